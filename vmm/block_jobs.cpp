#include "vmm/block_jobs.hpp"

#include <algorithm>

namespace whistler {

void BlockJobs::start(JobSettings settings, std::unique_ptr<JobWork> work) {
  jobs_.push_back(std::make_unique<BlockJob>(ring_, std::move(settings), std::move(work), listener_));
  auto* const job = jobs_.back().get();
  job->start([this, job] { std::erase_if(jobs_, [job](const auto& each) { return each.get() == job; }); });
}

BlockJob* BlockJobs::find(std::string_view id) const {
  const auto found = std::ranges::find_if(jobs_, [&](const auto& job) { return job->settings().id == id; });
  return found == jobs_.end() ? nullptr : found->get();
}

BlockJob* BlockJobs::on_drive(std::string_view drive) const {
  const auto found = std::ranges::find_if(
      jobs_, [&](const auto& job) { return job->settings().drive == drive && !job->over(); });
  return found == jobs_.end() ? nullptr : found->get();
}

void BlockJobs::end_all() {
  std::vector<std::string> ids;
  for (const auto& job : jobs_) {
    ids.push_back(job->settings().id);
  }
  for (const auto& id : ids) {  // one that ends may take others with it
    if (auto* const job = find(id); job != nullptr && !job->over()) {
      job->abandon();
    }
  }
  while (std::ranges::any_of(jobs_, [](const auto& job) { return !job->over(); })) {
    ring_.run_once(true);
  }
}

}  // namespace whistler

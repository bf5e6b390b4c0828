#include "block/jobs/job_group.hpp"

#include <algorithm>
#include <utility>

#include "block/jobs/block_job.hpp"

namespace whistler {

Task<void> JobGroup::meet() {
  const auto meeting = arrived_ / expected_;
  ++arrived_;
  while (!failed_ && arrived_ < (meeting + 1) * expected_) {
    co_await changed_.wait();
  }
  changed_.wake_all();
}

void JobGroup::fail(const BlockJob* except) {
  if (std::exchange(failed_, true)) {
    return;
  }
  for (auto* member : std::vector(members_)) {  // each may end by it, and be gone
    if (member != except) {
      member->fail_with_group();
    }
  }
  changed_.wake_all();
}

void JobGroup::finalize() {
  for (auto* member : std::vector(members_)) {
    member->finalize_with_group();
  }
}

bool JobGroup::needs_finalize() const {
  return std::ranges::any_of(members_, [](const BlockJob* job) { return !job->settings().auto_finalize; });
}

}  // namespace whistler

// The block jobs of a machine.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "block/jobs/block_job.hpp"

namespace whistler {

/// Under the machine lock.
class BlockJobs {
 public:
  explicit BlockJobs(Ring& ring) : ring_(ring) {}
  ~BlockJobs() { end_all(); }
  BlockJobs(const BlockJobs&) = delete;
  BlockJobs& operator=(const BlockJobs&) = delete;

  /// `listener` is told of what happens to each.
  void listen(BlockJob::Listener listener) { listener_ = std::move(listener); }
  void start(JobSettings settings, std::unique_ptr<JobWork> work);
  /// Keeps an id for a job that is about to be started, until give_back(); false if it is taken.
  [[nodiscard]] bool reserve(const std::string& id) {
    return find(id) == nullptr && reserved_.insert(id).second;
  }
  void give_back(const std::string& id) { reserved_.erase(id); }
  /// Null if there is none of that id.
  [[nodiscard]] BlockJob* find(std::string_view id) const;
  /// The job that works on that drive; null if none does.
  [[nodiscard]] BlockJob* on_drive(std::string_view drive) const;
  [[nodiscard]] const std::vector<std::unique_ptr<BlockJob>>& all() const { return jobs_; }
  /// Gives up all of them, and returns when none touches an image any more: before the drives are closed.
  void end_all();

 private:
  Ring& ring_;
  BlockJob::Listener listener_;
  std::vector<std::unique_ptr<BlockJob>> jobs_;
  std::set<std::string> reserved_;
};

}  // namespace whistler

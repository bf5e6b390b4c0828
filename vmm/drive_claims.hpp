// What a command of the monitor works on, so that others keep off until it is over.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "block/jobs/job_group.hpp"
#include "vmm/block_jobs.hpp"
#include "vmm/drive.hpp"

namespace whistler {

/// Under the machine lock. What a job that it has started works on is not its affair any more: see BlockJobs.
class DriveClaims {
 public:
  explicit DriveClaims(BlockJobs& jobs) : jobs_(jobs) {}
  DriveClaims(const DriveClaims&) = delete;
  DriveClaims& operator=(const DriveClaims&) = delete;
  ~DriveClaims() {
    for (auto* drive : drives_) {
      drive->set_claims(nullptr);
    }
    for (const auto& id : job_ids_) {
      jobs_.give_back(id);
    }
  }

  /// False if somebody else has claimed it. Asking again is allowed.
  [[nodiscard]] bool claim(Drive& drive) {
    if (drive.claims() == nullptr) {
      drive.set_claims(this);
      drives_.push_back(&drive);
    }
    return drive.claims() == this;
  }
  /// For a drive that is claimed: false if a job is to be started on it already.
  [[nodiscard]] bool plan_job(const Drive& drive) {
    const bool planned = std::ranges::find(with_jobs_, &drive) != with_jobs_.end();
    with_jobs_.push_back(&drive);
    return !planned;
  }
  /// The jobs it starts take effect together, or none does.
  void group_jobs() { group_ = std::make_shared<JobGroup>(); }
  /// For one job more that it will start; null: that goes by itself.
  [[nodiscard]] std::shared_ptr<JobGroup> group_of_job() const {
    if (group_) {
      group_->expect_one();
    }
    return group_;
  }
  /// False if there is a job of that id, or somebody is about to start one.
  [[nodiscard]] bool claim_job(const std::string& id) {
    if (!jobs_.reserve(id)) {
      return false;
    }
    job_ids_.push_back(id);
    return true;
  }

 private:
  BlockJobs& jobs_;
  std::vector<Drive*> drives_;
  std::vector<const Drive*> with_jobs_;
  std::vector<std::string> job_ids_;
  std::shared_ptr<JobGroup> group_;
};

}  // namespace whistler

// Jobs that take effect together or not at all: those of a transaction whose completion is grouped.
#pragma once

#include <cstddef>
#include <vector>

#include "base/async.hpp"
#include "base/task.hpp"

namespace whistler {

class BlockJob;

/// Under the machine lock.
class JobGroup {
 public:
  /// One job more will come.
  void expect_one() { ++expected_; }
  void join(BlockJob& job) { members_.push_back(&job); }
  /// Returns when every member has called it as often as this one, or one has failed.
  [[nodiscard]] Task<void> meet();
  /// One has failed, or was given up: so are all but `except`.
  void fail(const BlockJob* except);
  /// One has been told to take effect: so are all.
  void finalize();
  /// Whether they wait for that.
  [[nodiscard]] bool needs_finalize() const;
  /// It is over.
  void leave(const BlockJob& job) { std::erase(members_, &job); }

 private:
  std::vector<BlockJob*> members_;
  std::size_t expected_ = 0;
  std::size_t arrived_ = 0;  // in all meetings
  bool failed_ = false;
  WaitQueue changed_;
};

}  // namespace whistler

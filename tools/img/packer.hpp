// Compresses clusters on every core while the one thread of the engine goes on.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "base/task.hpp"
#include "base/unique_fd.hpp"
#include "block/qcow2/format.hpp"
#include "block/uring/ring.hpp"

namespace whistler::tools {

/// Nothing may be under way when it is destroyed.
class Packer {
 public:
  /// `threads`: at least 1.
  [[nodiscard]] static Result<std::unique_ptr<Packer>> create(Ring& ring, qcow2::Compression method,
                                                              unsigned threads);
  Packer(const Packer&) = delete;
  Packer& operator=(const Packer&) = delete;
  ~Packer();

  /// One cluster on its way; it begins at once, and `co_await job` waits for it.
  class Job {
   public:
    Job(Packer& packer, std::span<const std::uint8_t> cluster);
    Job(const Job&) = delete;
    Job& operator=(const Job&) = delete;

    [[nodiscard]] bool await_ready() const noexcept { return done_; }
    void await_suspend(std::coroutine_handle<> waiter) noexcept { waiter_ = waiter; }
    void await_resume() const noexcept {}
    /// The compressed form; empty if it would not be smaller.
    [[nodiscard]] const std::vector<std::uint8_t>& packed() const { return packed_; }

   private:
    friend class Packer;
    std::span<const std::uint8_t> cluster_;
    std::vector<std::uint8_t> packed_;
    bool done_ = false;  ///< seen by the engine's thread only
    std::coroutine_handle<> waiter_;
  };

 private:
  Packer(Ring& ring, qcow2::Compression method, int event) : ring_(ring), method_(method), event_(event) {}
  void start(Job& job);
  void work();
  /// Resumes who waits for finished jobs, as long as there are any under way.
  [[nodiscard]] Task<void> collect();

  Ring& ring_;
  qcow2::Compression method_;
  UniqueFd event_;
  std::mutex mutex_;  ///< guards waiting_, finished_ and stop_
  std::condition_variable wanted_;
  std::deque<Job*> waiting_;
  std::vector<Job*> finished_;
  bool stop_ = false;
  std::size_t under_way_ = 0;
  bool collecting_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace whistler::tools

#include "tools/img/packer.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "block/qcow2/compression.hpp"

namespace whistler::tools {

Result<std::unique_ptr<Packer>> Packer::create(Ring& ring, qcow2::Compression method, unsigned threads) {
  const int event = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event < 0) {
    return fail_errno(errno, "compression threads cannot be started: eventfd");
  }
  auto packer = std::unique_ptr<Packer>(new Packer(ring, method, event));
  for (unsigned i = 0; i < threads; ++i) {
    packer->threads_.emplace_back([&self = *packer] { self.work(); });
  }
  return packer;
}

Packer::~Packer() {
  {
    const std::lock_guard guard(mutex_);
    stop_ = true;
  }
  wanted_.notify_all();
  for (auto& thread : threads_) {
    thread.join();
  }
}

Packer::Job::Job(Packer& packer, std::span<const std::uint8_t> cluster) : cluster_(cluster) {
  packer.start(*this);
}

void Packer::start(Job& job) {
  {
    const std::lock_guard guard(mutex_);
    waiting_.push_back(&job);
  }
  wanted_.notify_one();
  ++under_way_;
  if (!collecting_) {
    collecting_ = true;
    spawn(collect());
  }
}

void Packer::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wanted_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
    if (stop_) {
      return;
    }
    Job& job = *waiting_.front();
    waiting_.pop_front();
    lock.unlock();
    job.packed_ = qcow2::compress_cluster(method_, job.cluster_);
    lock.lock();
    finished_.push_back(&job);
    if (finished_.size() == 1) {
      const std::uint64_t one = 1;
      [[maybe_unused]] const auto written = ::write(event_.get(), &one, sizeof one);
    }
  }
}

Task<void> Packer::collect() {
  while (under_way_ != 0) {
    // Not by a read, for which the ring takes a wait for a disk: it would stay awake on a processor that the
    // threads need.
    static_cast<void>(co_await ring_.poll(event_.get(), POLLIN));
    std::uint64_t count = 0;
    [[maybe_unused]] const auto read = ::read(event_.get(), &count, sizeof count);
    std::vector<Job*> finished;
    {
      const std::lock_guard guard(mutex_);
      finished = std::exchange(finished_, {});
    }
    under_way_ -= finished.size();
    // Whoever is resumed may find the rest of its jobs done too, and destroy them all: no job is looked at
    // after that.
    std::vector<std::coroutine_handle<>> waiters;
    for (auto* job : finished) {
      job->done_ = true;
      if (job->waiter_) {
        waiters.push_back(job->waiter_);
      }
    }
    for (const auto waiter : waiters) {
      waiter.resume();
    }
  }
  collecting_ = false;
}

}  // namespace whistler::tools

#include "vmm/pending_work.hpp"

#include <fmt/format.h>

#include <cerrno>

#include "block/uring/stoppable.hpp"

namespace whistler {

void PendingWork::end_all() {
  ending_.ask("the machine ends");
  while (running_ != 0) {
    ring_.run_once(true);
  }
}

Task<void> PendingWork::run_out(std::shared_ptr<Patience::Clock> clock) {
  auto timer = ring_.timeout(patience_);
  clock->timer = &timer;
  const auto result = co_await timer;
  clock->timer = nullptr;
  if (result == -ETIME && clock->stop != nullptr) {
    clock->stop->ask(fmt::format("no answer in {} s", std::chrono::duration<double>(patience_).count()));
  }
}

PendingWork::Patience::Patience(PendingWork& work)
    : work_(work),
      ending_(&work.ending_, [this] { stop_.ask(work_.ending_.why()); }),
      clock_(std::make_shared<Clock>(Clock{.stop = &stop_})) {
  if (work.ending_.asked()) {
    stop_.ask(work.ending_.why());
    return;
  }
  ++work.running_;
  spawn(work.run_out(clock_), [&work] { --work.running_; });
}

PendingWork::Patience::~Patience() {
  clock_->stop = nullptr;
  if (clock_->timer != nullptr) {
    work_.ring_.cancel(*clock_->timer);
  }
}

}  // namespace whistler

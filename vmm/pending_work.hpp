// What the monitor's clients have asked for and that waits for images: it goes on beside everything else.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "base/stop.hpp"
#include "base/task.hpp"
#include "block/uring/ring.hpp"

namespace whistler {

/// Under the machine lock.
class PendingWork {
 public:
  explicit PendingWork(Ring& ring) : ring_(ring) {}
  ~PendingWork() { end_all(); }
  PendingWork(const PendingWork&) = delete;
  PendingWork& operator=(const PendingWork&) = delete;

  /// Begins `work`; `done` gets its result, before this returns or later.
  template <typename T>
  void start(Task<T> work, std::function<void(T)> done) {
    ++running_;
    spawn(std::move(work), [this, done = std::move(done)](T result) {
      --running_;
      done(std::move(result));
    });
  }
  /// Asks all of it to give up, and returns when nothing is left: before the drives are closed.
  void end_all();

  /// How long somebody may keep a client waiting who is to open an image.
  void set_patience(std::chrono::milliseconds patience) { patience_ = patience; }

  /// While it lives: a stop that is asked for when patience is at its end, or the machine.
  class Patience {
   public:
    explicit Patience(PendingWork& work);
    ~Patience();
    Patience(const Patience&) = delete;
    Patience& operator=(const Patience&) = delete;
    [[nodiscard]] Stop& stop() { return stop_; }

   private:
    friend class PendingWork;
    struct Clock {
      Stop* stop = nullptr;  ///< null once nobody waits any more
      Ring::Operation* timer = nullptr;
    };
    PendingWork& work_;
    Stop stop_;
    Stop::Listener ending_;
    std::shared_ptr<Clock> clock_;
  };

 private:
  [[nodiscard]] Task<void> run_out(std::shared_ptr<Patience::Clock> clock);

  Ring& ring_;
  Stop ending_;
  std::size_t running_ = 0;
  std::chrono::milliseconds patience_{30'000};
};

}  // namespace whistler

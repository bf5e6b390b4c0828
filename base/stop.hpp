// Asking work that waits for somebody else, a server or a slow file system, to give up. Not thread-safe: it
// belongs to the executor of that work.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace whistler {

/// Whoever waits listens to it. Asking twice changes nothing; it may be gone before those who listen.
class Stop {
 public:
  class Listener {
   public:
    /// `give_up` is called once when the stop is asked for from now on; a null `stop` never is.
    Listener(Stop* stop, std::function<void()> give_up) : stop_(stop), give_up_(std::move(give_up)) {
      if (stop_ != nullptr) {
        stop_->listeners_.push_back(this);
      }
    }
    ~Listener() {
      if (stop_ != nullptr) {
        std::erase(stop_->listeners_, this);
      }
    }
    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;

    /// What it listens to; null once that is gone, or was asked for.
    [[nodiscard]] Stop* stop() const { return stop_; }

   private:
    friend class Stop;
    Stop* stop_;
    std::function<void()> give_up_;
  };

  Stop() = default;
  Stop(const Stop&) = delete;
  Stop& operator=(const Stop&) = delete;
  ~Stop() {
    for (auto* listener : listeners_) {
      listener->stop_ = nullptr;
    }
  }

  /// `why` is for the message of what ends by it.
  void ask(std::string why) {
    if (std::exchange(asked_, true)) {
      return;
    }
    why_ = std::move(why);
    while (!listeners_.empty()) {  // giving up may end others who listen
      auto* const listener = listeners_.back();
      listeners_.pop_back();
      listener->stop_ = nullptr;
      listener->give_up_();
    }
  }
  [[nodiscard]] bool asked() const { return asked_; }
  [[nodiscard]] const std::string& why() const { return why_; }

 private:
  bool asked_ = false;
  std::string why_;
  std::vector<Listener*> listeners_;
};

}  // namespace whistler

// What a machine does for its monitor beyond running and stopping: finding it, and looking into processors.
#include <pthread.h>
#include <unistd.h>

#include <ctime>
#include <filesystem>

#include "vmm/machine.hpp"

namespace whistler {

void Machine::write_down() {
  if (const auto sockets = monitor_->sockets(); !sockets.empty()) {
    std::error_code error;
    const auto& d = pc_.description();
    registration_.emplace(RunningMachine{.name = d.name,
                                         .description = std::filesystem::weakly_canonical(d.source, error),
                                         .socket = std::filesystem::absolute(sockets[0]),
                                         .process = ::getpid()});
  }
}

void Machine::inject_nmi() {
  while_parked([this] {
    for (const auto& vcpu : vcpus_) {
      vcpu->inject_nmi();
    }
  });
}

std::vector<int> Machine::thread_ids() { return {thread_ids_.begin(), thread_ids_.end()}; }

std::optional<std::uint64_t> Machine::translate(unsigned index, std::uint64_t address) {
  std::optional<std::uint64_t> found;
  while_parked([&] { found = vcpus_[index]->translate(address); });
  return found;
}

void Machine::while_parked(const std::function<void()>& look) {
  park_all();
  {
    const std::scoped_lock lock(pc_.lock());
    look();
    if (outcome_ || reset_asked_ || paused_ || paused_for_space_) {
      return;  // they stay where they are until whoever holds them lets them go on
    }
  }
  unpark_all();
}

Activity Machine::activity() {
  Activity now;
  for (std::size_t i = 0; i < threads_.size(); ++i) {
    now.exits += vcpus_[i]->exits();
    clockid_t clock{};
    timespec used{};
    if (::pthread_getcpuclockid(threads_[i].native_handle(), &clock) == 0 &&
        ::clock_gettime(clock, &used) == 0) {
      now.cpu_time += used.tv_sec * kNanosecondsPerSecond + used.tv_nsec;
    }
  }
  return now;
}

bool Machine::halted_for_good() {
  bool halted = true;
  while_parked([&] {
    for (const auto& vcpu : vcpus_) {
      halted = halted && vcpu->halted_for_good();
    }
  });
  return halted;
}

std::string Machine::registers() {
  std::string text;
  while_parked([&] {
    for (const auto& vcpu : vcpus_) {
      text += vcpu->describe(pc_.memory());
    }
  });
  return text;
}

}  // namespace whistler

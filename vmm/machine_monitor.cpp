// What a machine does for its monitor beyond running and stopping: finding it, and looking into processors.
#include <unistd.h>

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

}  // namespace whistler

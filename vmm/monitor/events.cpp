#include "vmm/monitor/events.hpp"

#include <cstring>

#include "vmm/monitor/qmp_jobs.hpp"
#include "vmm/monitor/qmp_media.hpp"

namespace whistler::qmp {
namespace {

void tell_failure(MachineControl& machine, const std::string& drive, const Error& error, bool write) {
  if (error.code == ErrorCode::kInvalid) {
    return;  // the guest's own mistake
  }
  const bool full = write && error.code == ErrorCode::kNoSpace;
  if (full && !machine.pc().space().empty()) {
    return;  // one of those that wait for room already
  }
  const std::string reason = error.sys_errno != 0 ? std::strerror(error.sys_errno) : error.message;
  machine.tell("BLOCK_IO_ERROR", {{"device", drive},
                                  {"node-name", drive},
                                  {"operation", write ? "write" : "read"},
                                  {"action", full ? "stop" : "report"},
                                  {"nospace", error.code == ErrorCode::kNoSpace},
                                  {"reason", reason}});
}

}  // namespace

void watch_machine(MachineControl& machine) {
  watch_trays(machine);
  watch_jobs(machine);
  for (const auto& drive : machine.pc().drives()) {
    drive->watch_failures([&machine, id = drive->description().id](const Error& error, bool write) {
      tell_failure(machine, id, error, write);
    });
  }
}

}  // namespace whistler::qmp

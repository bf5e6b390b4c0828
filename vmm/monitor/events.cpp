#include "vmm/monitor/events.hpp"

#include <array>
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

Json end_of(const VncAddress& address) {
  return {
      {"host", address.host}, {"service", address.service}, {"family", address.family}, {"websocket", false}};
}

void tell_vnc(MachineControl& machine, const VncEvent& event) {
  static constexpr std::array kNames = {"VNC_CONNECTED", "VNC_INITIALIZED", "VNC_DISCONNECTED"};
  auto server = end_of(event.server);
  server["auth"] = event.password ? "vnc" : "none";
  machine.tell(kNames[static_cast<std::size_t>(event.kind)],
               {{"server", std::move(server)}, {"client", end_of(event.client)}});
}

}  // namespace

Json query_vnc(MachineControl& machine) {
  const std::scoped_lock lock(machine.pc().lock());
  const auto* const server = machine.pc().vnc();
  if (server == nullptr) {
    return {{"enabled", false}};
  }
  auto answer = end_of(server->local());
  answer.erase("websocket");
  answer["enabled"] = true;
  answer["auth"] = server->asks_password() ? "vnc" : "none";
  answer["clients"] = Json::array();
  for (const auto& client : machine.pc().vnc_clients()) {
    answer["clients"].push_back(end_of(client.client));
  }
  return answer;
}

void watch_machine(MachineControl& machine) {
  watch_trays(machine);
  watch_jobs(machine);
  machine.pc().watch_vnc([&machine](const VncEvent& event) { tell_vnc(machine, event); });
  machine.pc().board().rtc().watch_time([&machine](std::int64_t offset) {
    machine.tell("RTC_CHANGE", {{"offset", offset}, {"qom-path", "/machine/rtc"}});
  });
  for (const auto& drive : machine.pc().drives()) {
    drive->watch_failures([&machine, id = drive->description().id](const Error& error, bool write) {
      tell_failure(machine, id, error, write);
    });
  }
}

}  // namespace whistler::qmp

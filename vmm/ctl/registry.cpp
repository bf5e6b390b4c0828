#include "vmm/ctl/registry.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/log.hpp"
#include "vmm/config/description.hpp"

namespace whistler {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr std::string_view kEnding = ".machine";

fs::path folder() {
  const char* const runtime = std::getenv("XDG_RUNTIME_DIR");
  return runtime != nullptr && runtime[0] == '/' ? fs::path(runtime) / "whistler" : fs::path("/run/whistler");
}

bool lives(int process) { return process > 0 && (::kill(process, 0) == 0 || errno == EPERM); }

}  // namespace

Registration::Registration(const RunningMachine& machine) {
  std::error_code error;
  const bool made = fs::create_directories(folder(), error);
  if (made) {
    fs::permissions(folder(), fs::perms::owner_all, error);
  }
  const auto file = folder() / fmt::format("{}{}", machine.process, kEnding);
  std::ofstream stream(file, std::ios::trunc);
  stream << Json{{"name", machine.name},
                 {"description", machine.description},
                 {"socket", machine.socket},
                 {"process", machine.process}}
                .dump(-1, ' ', true, Json::error_handler_t::replace);
  stream.close();
  if (!stream) {
    log(LogLevel::kDebug,
        fmt::format("{}: cannot be written: ctl list does not show this machine", file.string()));
    return;
  }
  file_ = file.string();
}

Registration::~Registration() {
  if (!file_.empty()) {
    ::unlink(file_.c_str());
  }
}

std::vector<RunningMachine> running_machines() {
  std::vector<RunningMachine> machines;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder(), error)) {
    if (entry.path().extension() != kEnding) {
      continue;
    }
    std::ifstream stream(entry.path());
    const auto json = Json::parse(stream, nullptr, false);
    RunningMachine machine;
    if (json.is_object()) {
      try {
        machine = {.name = json.at("name").get<std::string>(),
                   .description = json.at("description").get<std::string>(),
                   .socket = json.at("socket").get<std::string>(),
                   .process = json.at("process").get<int>()};
      } catch (const Json::exception&) {
        continue;
      }
    }
    if (lives(machine.process)) {
      machines.push_back(std::move(machine));
    } else {
      ::unlink(entry.path().c_str());
    }
  }
  std::ranges::sort(machines, {}, [](const RunningMachine& m) { return std::pair(m.name, m.process); });
  return machines;
}

Result<std::string> monitor_of(const std::string& target) {
  std::error_code error;
  if (fs::is_socket(target, error)) {
    return target;
  }
  const auto machines = running_machines();
  const auto path = fs::weakly_canonical(fs::absolute(target), error).string();
  std::vector<std::string> found;
  for (const auto& machine : machines) {
    if (machine.name == target || machine.description == path) {
      found.push_back(machine.socket);
    }
  }
  if (found.size() > 1) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: {} machines run of it; name the socket of one: {}",
                                                 target, found.size(), fmt::join(found, ", ")));
  }
  if (found.size() == 1) {
    return found[0];
  }
  if (!fs::is_regular_file(target, error)) {
    return fail(
        ErrorCode::kNotFound,
        fmt::format("{}: is no running machine, description or socket; see whistler ctl list", target));
  }
  const auto description = load_description(target);
  if (!description) {
    return std::unexpected(description.error());
  }
  if (description->monitor_socket.empty()) {
    return fail(
        ErrorCode::kNotFound,
        fmt::format("{}: does not run with a monitor; give it \"monitor\": {{\"socket\": \"PATH\"}}, or "
                    "start it with --qmp unix:PATH,server",
                    target));
  }
  return description->monitor_socket;
}

}  // namespace whistler

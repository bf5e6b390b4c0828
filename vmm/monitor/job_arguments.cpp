#include "vmm/monitor/job_arguments.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "vmm/monitor/qmp_media.hpp"

namespace whistler::qmp {
namespace {

constexpr std::array<std::string_view, 5> kErrorPolicies = {"report", "ignore", "stop", "enospc", "auto"};

bool well_formed(std::string_view id) {
  const auto letter = [](char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; };
  return !id.empty() && letter(id[0]) && std::ranges::all_of(id, [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '.' || c == '_';
  });
}

}  // namespace

JobSettings take_job_settings(Arguments& arguments) {
  JobSettings settings;
  settings.id = arguments.text_or("job-id", {});
  const auto speed = arguments.number_or("speed", 0);
  if (speed < 0) {
    arguments.fail("Parameter 'speed' expects a non-negative value");
  }
  settings.speed = static_cast<std::uint64_t>(std::max<std::int64_t>(0, speed));
  settings.auto_finalize = arguments.flag_or("auto-finalize", true);
  settings.auto_dismiss = arguments.flag_or("auto-dismiss", true);
  return settings;
}

OnJobError take_error_policy(Arguments& arguments, const std::string& key) {
  const auto word = arguments.word_or(key, kErrorPolicies, 0);
  return word < 4 ? static_cast<OnJobError>(word) : OnJobError::kEnospc;
}

CopySync take_copy_sync(Arguments& arguments) {
  static constexpr std::array<std::string_view, 3> kSyncs = {"full", "top", "none"};
  if (!arguments.has("sync")) {
    arguments.fail("Parameter 'sync' is missing");
  }
  return static_cast<CopySync>(arguments.word_or("sync", kSyncs, 0));
}

Answer<void> claim_idle(MachineControl& machine, DriveClaims& claims, Drive& drive) {
  const auto& id = drive.description().id;
  if (const auto* job = machine.pc().jobs().on_drive(id)) {
    return refuse(fmt::format("Node '{}' is busy: block device is in use by block job: {}", id, job->type()));
  }
  if (!claims.claim(drive)) {
    return refuse(fmt::format("Node '{}' is busy: another command works on it", id));
  }
  return {};
}

Answer<Drive*> idle_drive(MachineControl& machine, DriveClaims& claims, const std::string& device,
                          const std::string& node) {
  auto* const drive = find_drive(machine, device.empty() ? node : device);
  if (drive == nullptr) {
    return no_such_drive(device, node);
  }
  if (drive->image() == nullptr) {
    return refuse("Device has no medium");
  }
  if (auto idle = claim_idle(machine, claims, *drive); !idle) {
    return std::unexpected(idle.error());
  }
  return drive;
}

Answer<void> settle_job(DriveClaims& claims, const Drive& drive, JobSettings& settings) {
  settings.drive = drive.description().id;
  if (settings.id.empty()) {
    settings.id = settings.drive;
  } else if (!well_formed(settings.id)) {
    return refuse(fmt::format("Invalid job ID '{}'", settings.id));
  }
  if (!claims.plan_job(drive)) {
    return refuse(fmt::format("Node '{}' is busy: only one job at a time can work on it", settings.drive));
  }
  if (!claims.claim_job(settings.id)) {
    return refuse(fmt::format("Job ID '{}' already in use", settings.id));
  }
  settings.group = claims.group_of_job();
  return {};
}

std::unexpected<Refusal> could_not_create(const Error& error, const Stop& stop) {
  if (stop.asked()) {
    return refuse(fmt::format("{}: {}", error.message, stop.why()));
  }
  const bool brief = !error.brief.empty() && error.brief.find('\n') == std::string::npos;
  return refuse(brief ? error.brief : error.message);
}

std::vector<Layer> layers_of(Drive& drive) {
  return whistler::layers_of(drive.image()->image(), drive.description().format);
}

std::string node_name(const Drive& drive, std::size_t depth) {
  const auto& id = drive.description().id;
  return depth == 0 ? id : fmt::format("#{}.{}", id, depth);
}

}  // namespace whistler::qmp

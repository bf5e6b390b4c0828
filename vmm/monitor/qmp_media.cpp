#include "vmm/monitor/qmp_media.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cstring>

#include "block/formats/drivers.hpp"
#include "block/jobs/rebase.hpp"
#include "block/open.hpp"
#include "vmm/monitor/job_arguments.hpp"
#include "vmm/monitor/qmp_bitmaps.hpp"

namespace whistler::qmp {
namespace {

AtapiCdrom* cdrom_of(MachineControl& machine, const Drive& drive) {
  return machine.pc().board().ide().cdrom(drive.description().bus, drive.description().unit);
}

/// The names a command gives a drive by: "device", or "id" as that of the drive's chip. Here both are the
/// same.
struct DriveName {
  std::string device, id;
  explicit DriveName(Arguments& arguments)
      : device(arguments.text_or("device", {})), id(arguments.text_or("id", {})) {}
  [[nodiscard]] const std::string& any() const { return device.empty() ? id : device; }
};

/// The drive, if it has a tray. Under the machine lock.
Answer<Drive*> drive_with_tray(MachineControl& machine, const DriveName& name) {
  if (name.device.empty() == name.id.empty()) {
    return refuse("Need exactly one of 'device' and 'id'");
  }
  Drive* drive = find_drive(machine, name.any());
  if (drive == nullptr) {
    return std::unexpected(Refusal{.error_class = "DeviceNotFound",
                                   .description = fmt::format("Device '{}' not found", name.any())});
  }
  if (!drive->removable()) {
    return refuse(fmt::format("Device '{}' is not removable", name.any()));
  }
  return drive;
}

/// What the commands for trays are asked.
struct TrayRequest {
  DriveName name;
  bool force;
  explicit TrayRequest(Arguments& arguments) : name(arguments), force(arguments.flag_or("force", false)) {}
};

/// The drive of a command that has no other arguments. Under the machine lock.
Answer<Drive*> drive_of(MachineControl& machine, const TrayRequest& request, Arguments& arguments) {
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  return drive_with_tray(machine, request.name);
}

/// Opens the tray of a drive that nobody else works on.
Answer<void> pull_out(MachineControl& machine, DriveClaims& claims, Drive& drive,
                      const TrayRequest& request) {
  if (auto idle = claim_idle(machine, claims, drive); !idle) {
    return idle;
  }
  AtapiCdrom* cdrom = cdrom_of(machine, drive);
  if (!cdrom->tray_open() && !cdrom->eject(request.force)) {
    return refuse(
        fmt::format("Device '{}' is locked and force was not specified, wait for tray to open and try again",
                    request.name.any()));
  }
  return {};
}

/// Takes the disc out of the open tray, once the guest's requests to it have ended, or have waited long
/// enough for its server: what is to be closed, or null.
Task<Answer<std::unique_ptr<BlockDevice>>> take_out(MachineControl& machine, Drive& drive) {
  AtapiCdrom* cdrom = cdrom_of(machine, drive);
  {
    PendingWork::Patience patience(machine.pc().pending());
    const Stop::Listener hurry(&patience.stop(), [&] { drive.servers().ask(patience.stop().why()); });
    co_await cdrom->drain();
  }
  if (auto taken = cdrom->lay_in_tray(nullptr); !taken) {  // somebody has pushed it in meanwhile
    co_return refuse(taken.error().message);
  }
  co_return drive.remove();
}

/// The same, and lets go of its file.
Task<Answer<Json>> put_away(MachineControl& machine, Drive& drive) {
  auto old = co_await take_out(machine, drive);
  if (!old) {
    co_return std::unexpected(old.error());
  }
  co_await close_unused(std::move(*old));
  co_return Json::object();
}

void add_kind(Json& stats, const std::string& kind, const IoCounts::Kind& counts) {
  stats[kind + "_operations"] = counts.requests;
  stats["failed_" + kind + "_operations"] = counts.failed;
  stats["invalid_" + kind + "_operations"] = 0;
  stats[kind + "_total_time_ns"] = counts.nanoseconds;
}

Json stats_of(const IoCounts& counts) {
  Json stats;
  add_kind(stats, "rd", counts.reads);
  add_kind(stats, "wr", counts.writes);
  add_kind(stats, "flush", counts.flushes);
  add_kind(stats, "unmap", counts.discards);
  stats["rd_bytes"] = counts.reads.bytes;
  stats["wr_bytes"] = counts.writes.bytes;
  stats["unmap_bytes"] = counts.discards.bytes;
  for (const auto* merged : {"rd_merged", "wr_merged", "unmap_merged"}) {
    stats[merged] = 0;
  }
  stats["wr_highest_offset"] = counts.highest_write;
  stats["account_invalid"] = true;
  stats["account_failed"] = true;
  stats["timed_stats"] = Json::array();
  if (counts.last_request != 0) {
    stats["idle_time_ns"] = std::chrono::steady_clock::now().time_since_epoch().count() - counts.last_request;
  }
  return stats;
}

}  // namespace

Json inserted(Drive& drive) {
  const auto& description = drive.description();
  unsigned depth = 0;
  Json image = {{"virtual-size", drive.device()->size()},
                {"filename", description.file},
                {"format", description.format},
                {"actual-size", host_bytes_of(description.file)},
                {"dirty-flag", false}};
  std::string below;
  for (auto* layer = drive.image()->backing(); layer != nullptr; layer = layer->backing()) {
    if (depth++ == 0) {
      below = layer->name();
    }
  }
  Json json = {{"image", nullptr},
               {"file", description.file},
               {"drv", description.format},
               {"node-name", description.id},
               {"ro", drive.device()->read_only()},
               {"encrypted", false},
               {"backing_file_depth", depth},
               {"detect_zeroes", "off"},
               {"write_threshold", 0},
               {"cache",
                {{"writeback", !is_writethrough(description.cache)},
                 {"direct", is_direct(description.cache)},
                 {"no-flush", description.cache == CacheMode::kUnsafe}}}};
  if (!drive.bitmaps().all().empty()) {
    json["dirty-bitmaps"] = bitmap_list(drive);
  }
  for (const auto* limit : {"bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"}) {
    json[limit] = 0;
  }
  if (!below.empty()) {
    json["backing_file"] = below;
    image["backing-filename"] = below;
    image["full-backing-filename"] = below;
  }
  json["image"] = std::move(image);
  return json;
}

Drive* find_drive(MachineControl& machine, std::string_view id) {
  for (const auto& drive : machine.pc().drives()) {
    if (drive->description().id == id) {
      return drive.get();
    }
  }
  return nullptr;
}

std::unexpected<Refusal> no_such_drive(std::string_view device, std::string_view node) {
  return refuse(fmt::format("Cannot find device='{}' nor node-name='{}'", device, node));
}

std::unexpected<Refusal> could_not_open(const std::string& file, const Error& error, const Stop& stop) {
  return refuse(fmt::format("Could not open '{}': {}", file,
                            stop.asked()           ? stop.why()
                            : error.sys_errno != 0 ? std::strerror(error.sys_errno)
                                                   : error.message));
}

Task<Answer<Json>> eject(MachineControl& machine, Arguments arguments) {
  DriveClaims claims(machine.pc().jobs());
  const TrayRequest request(arguments);
  const auto drive = drive_of(machine, request, arguments);
  if (!drive) {
    co_return std::unexpected(drive.error());
  }
  if (auto open = pull_out(machine, claims, **drive, request); !open) {
    co_return std::unexpected(open.error());
  }
  auto done = co_await put_away(machine, **drive);
  co_return done;
}

Task<Answer<Json>> remove_medium(MachineControl& machine, Arguments arguments) {
  DriveClaims claims(machine.pc().jobs());
  const TrayRequest request(arguments);
  const auto drive = drive_of(machine, request, arguments);
  if (!drive) {
    co_return std::unexpected(drive.error());
  }
  if (!cdrom_of(machine, **drive)->tray_open()) {
    co_return refuse(fmt::format("Tray of device '{}' is not open", request.name.any()));
  }
  if (auto idle = claim_idle(machine, claims, **drive); !idle) {
    co_return std::unexpected(idle.error());
  }
  auto done = co_await put_away(machine, **drive);
  co_return done;
}

Answer<Json> open_tray(MachineControl& machine, Arguments& arguments) {
  const std::scoped_lock lock(machine.pc().lock());
  DriveClaims claims(machine.pc().jobs());
  const TrayRequest request(arguments);
  const auto drive = drive_of(machine, request, arguments);
  if (!drive) {
    return std::unexpected(drive.error());
  }
  const auto open = pull_out(machine, claims, **drive, request);
  return open ? Answer<Json>(Json::object()) : std::unexpected(open.error());
}

Answer<Json> close_tray(MachineControl& machine, Arguments& arguments) {
  const std::scoped_lock lock(machine.pc().lock());
  const TrayRequest request(arguments);
  const auto drive = drive_of(machine, request, arguments);
  if (!drive) {
    return std::unexpected(drive.error());
  }
  cdrom_of(machine, **drive)->push_in();
  return Json::object();
}

namespace {

/// A disc that is open already takes the place of the one in the drive, which is closed in the end.
Task<Answer<Json>> change_disc(MachineControl& machine, DriveClaims& claims, Drive& drive,
                               const TrayRequest& request, std::unique_ptr<BlockDevice> disc,
                               std::unique_ptr<Stop> servers, std::string file, std::string format) {
  auto open = pull_out(machine, claims, drive, request);
  Answer<std::unique_ptr<BlockDevice>> old;
  if (open) {
    old = co_await take_out(machine, drive);
  } else {
    old = std::unexpected(open.error());
  }
  if (!old) {
    co_await close_unused(std::move(disc));
    co_return std::unexpected(old.error());
  }
  drive.insert(std::move(disc), file, format, std::move(servers));
  AtapiCdrom* cdrom = cdrom_of(machine, drive);
  const auto laid = cdrom->lay_in_tray(drive.device());
  if (laid) {
    cdrom->push_in();
  }
  co_await close_unused(std::move(*old));
  co_return laid ? Answer<Json>(Json::object()) : Answer<Json>(refuse(laid.error().message));
}

}  // namespace

Task<Answer<Json>> change_medium(MachineControl& machine, Arguments arguments) {
  DriveClaims claims(machine.pc().jobs());
  const TrayRequest request(arguments);
  const auto file = arguments.text("filename");
  const auto format = arguments.text_or("format", "raw");
  const auto rights = arguments.text_or("read-only-mode", "retain");
  const auto found = drive_of(machine, request, arguments);
  if (!found) {
    co_return std::unexpected(found.error());
  }
  if (rights == "read-write") {
    co_return refuse("A CD-ROM can only be read");
  }
  if (rights != "retain" && rights != "read-only") {
    co_return refuse(fmt::format("Parameter 'read-only-mode' does not accept value '{}'", rights));
  }
  if (format != "raw" && format != "qcow2" && format != "luks" && !formats::is_foreign_format(format)) {
    co_return refuse(fmt::format("Unknown driver '{}'", format));
  }
  Drive& drive = **found;
  if (auto idle = claim_idle(machine, claims, drive); !idle) {
    co_return std::unexpected(idle.error());
  }
  auto path = absolute_name(file);
  auto servers = std::make_unique<Stop>();
  Result<std::unique_ptr<BlockDevice>> image;
  {
    PendingWork::Patience patience(machine.pc().pending());
    auto options = drive.open_options(path, format);
    options.stop = &patience.stop();
    options.let_go = servers.get();
    image = co_await open_image_task(machine.pc().ring(), std::move(options));
    if (!image) {
      co_return could_not_open(file, image.error(), patience.stop());
    }
  }
  auto done = co_await change_disc(machine, claims, drive, request, std::move(*image), std::move(servers),
                                   std::move(path), format);
  co_return done;
}

Task<Answer<Json>> resize_disk(MachineControl& machine, Arguments arguments) {
  constexpr std::int64_t kSector = 512;
  const auto device = arguments.text_or("device", {});
  const auto node = arguments.text_or("node-name", {});
  const auto size = arguments.number("size");
  if (auto sound = arguments.finish(); !sound) {
    co_return std::unexpected(sound.error());
  }
  DriveClaims claims(machine.pc().jobs());
  Drive* drive = find_drive(machine, device.empty() ? node : device);
  if (drive == nullptr) {
    co_return no_such_drive(device, node);
  }
  if (drive->device() == nullptr) {
    co_return refuse(fmt::format("Device '{}' has no medium", device));
  }
  if (auto idle = claim_idle(machine, claims, *drive); !idle) {
    co_return std::unexpected(idle.error());
  }
  if (size <= 0 || size % kSector != 0) {
    co_return refuse("Parameter 'size' expects a >0 size");
  }
  if (drive->device()->read_only()) {
    co_return refuse("Image is read-only");
  }
  // A chip counts the sectors of its disk when it is built: what it still offers must stay there.
  if (static_cast<std::uint64_t>(size) < drive->device()->size()) {
    co_return refuse("A disk cannot shrink while its machine runs");
  }
  const auto done = co_await drive->device()->resize(static_cast<std::uint64_t>(size));
  co_return done ? Answer<Json>(Json::object()) : Answer<Json>(refuse(done.error().message));
}

Json query_block(MachineControl& machine) {
  const std::scoped_lock lock(machine.pc().lock());
  Json list = Json::array();
  for (const auto& drive : machine.pc().drives()) {
    Json one = {{"device", drive->description().id},
                {"qdev", drive->description().id},
                {"type", "unknown"},
                {"removable", drive->removable()},
                {"locked", false}};
    if (drive->removable()) {
      const AtapiCdrom* cdrom = cdrom_of(machine, *drive);
      one["locked"] = cdrom->locked();
      one["tray_open"] = cdrom->tray_open();
    }
    if (drive->device() != nullptr) {
      one["io-status"] = machine.pc().space().empty() ? "ok" : "nospace";
      one["inserted"] = inserted(*drive);
    }
    list.push_back(std::move(one));
  }
  return list;
}

Answer<Json> query_block_stats(MachineControl& machine, Arguments& arguments) {
  static_cast<void>(arguments.flag_or("query-nodes", false));
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  const std::scoped_lock lock(machine.pc().lock());
  Json list = Json::array();
  for (const auto& drive : machine.pc().drives()) {
    Json one = {{"device", drive->description().id},
                {"qdev", drive->description().id},
                {"stats", stats_of(drive->counts())}};
    if (drive->device() != nullptr) {
      one["node-name"] = drive->description().id;
    }
    list.push_back(std::move(one));
  }
  return list;
}

void watch_trays(MachineControl& machine) {
  for (const auto& drive : machine.pc().drives()) {
    if (AtapiCdrom* cdrom = cdrom_of(machine, *drive)) {
      cdrom->watch_tray([&machine, id = drive->description().id](bool open) {
        machine.tell("DEVICE_TRAY_MOVED", {{"device", id}, {"id", id}, {"tray-open", open}});
      });
    }
  }
}

}  // namespace whistler::qmp

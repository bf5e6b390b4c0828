#include "vmm/hosted_pc.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>

#include "base/log.hpp"
#include "block/open.hpp"
#include "block/uring/stoppable.hpp"
#include "devices/ide/disk_geometry.hpp"
#include "firmware/bios.hpp"
#include "firmware/direct_boot.hpp"
#include "vmm/output_path.hpp"

namespace whistler {
namespace {

constexpr std::uint64_t kLargestKernel = 512 * kMiB;
constexpr std::uint64_t kLargestInitrd = 2 * kGiB;
/// How long a machine that ends waits for servers of its disks.
constexpr std::chrono::seconds kServerPatience{10};

/// Copies a ROM image into page-aligned memory of its own.
Result<HostMemory> rom_memory(const std::vector<std::uint8_t>& image) {
  auto memory = HostMemory::create(image.size());
  if (memory) {
    std::memcpy(memory->bytes().data(), image.data(), image.size());
  }
  return memory;
}

Result<std::string> read_password(const std::string& file) {
  constexpr std::uint64_t kLargest = 4096;
  const auto bytes = load_file(file, kLargest);
  if (!bytes) {
    return std::unexpected(bytes.error());
  }
  std::string password(bytes->begin(), bytes->end());
  password.erase(std::min(password.find_first_of("\r\n"), password.size()));
  if (password.empty()) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: holds no password in its first line", file));
  }
  return password;
}

/// The geometry that is given, or else the one the disk's partition table shows.
void choose_geometry(Ring& ring, BlockDevice& image, const DriveDescription& drive, IdeDriveConfig& config) {
  if (drive.geometry) {
    config.geometry = IdeGeometry{static_cast<std::uint16_t>(drive.geometry->cylinders),
                                  static_cast<std::uint8_t>(drive.geometry->heads),
                                  static_cast<std::uint8_t>(drive.geometry->sectors)};
    switch (drive.translation) {
      case Translation::kAuto: config.translation = usual_translation(*config.geometry); break;
      case Translation::kNone: config.translation = BiosTranslation::kNone; break;
      case Translation::kLba: config.translation = BiosTranslation::kLba; break;
      case Translation::kLarge: config.translation = BiosTranslation::kLarge; break;
      case Translation::kRechs: config.translation = BiosTranslation::kRechs; break;
    }
    return;
  }
  constexpr std::uint64_t kSector = 512;
  std::span<const std::uint8_t> first;
  const auto length = std::max<std::uint64_t>(kSector, image.request_alignment());
  const auto memory = HostMemory::create(length);
  if (memory && length <= image.size()) {
    const std::array<iovec, 1> to = {iovec{memory->bytes().data(), length}};
    if (sync_wait(ring, image.readv(0, to))) {
      first = memory->bytes().first(kSector);
    }
  }
  const auto guess = guess_geometry(image.size() / kSector, first);
  config.geometry = guess.chs;
  config.translation = guess.translation;
}

class GuestRamWriter final : public RamWriter {
 public:
  explicit GuestRamWriter(const GuestMemory& memory) : memory_(memory) {}
  bool write(std::uint64_t address, std::span<const std::uint8_t> bytes) override {
    return memory_.write(address, bytes);
  }

 private:
  const GuestMemory& memory_;
};

/// The video card, after what vCPUs have written to it but KVM still holds has reached it.
class CurrentDisplay final : public DisplaySource {
 public:
  CurrentDisplay(DisplaySource& card, std::function<void()> deliver)
      : card_(card), deliver_(std::move(deliver)) {}
  void update() override {
    deliver_();
    card_.update();
  }
  [[nodiscard]] const Surface& surface() const override { return card_.surface(); }
  [[nodiscard]] std::optional<TextScreen> text() const override { return card_.text(); }

 private:
  DisplaySource& card_;
  std::function<void()> deliver_;
};

}  // namespace

HostedPc::HostedPc(Description description, const Clock& clock, HostClock& loop_clock, PcRequests requests)
    : description_(std::move(description)),
      requests_(std::move(requests)),
      loop_clock_(loop_clock),
      timers_(clock),
      space_(requests_.disk_full) {}

HostedPc::~HostedPc() = default;

Result<void> HostedPc::open(OpenFor purpose) {
  purpose_ = purpose;
  auto loop = EventLoop::create(lock_, loop_clock_, timers_);
  if (!loop) {
    return std::unexpected(loop.error());
  }
  loop_ = std::move(*loop);
  auto ring = Ring::create();
  if (!ring) {
    return std::unexpected(ring.error());
  }
  ring_ = std::move(*ring);
  if (const auto& refused = ring_->refused(); refused && refused->sys_errno != 0) {
    log(LogLevel::kWarning,
        fmt::format("{}; until then, threads serve the disks, which is slower", refused->message));
  }
  jobs_.emplace(*ring_);
  pending_.emplace(*ring_);
  auto ram = GuestRam::create(description_.memory, {.huge_pages = description_.memory_options.huge_pages,
                                                    .merge = description_.memory_options.merge});
  if (!ram) {
    return std::unexpected(ram.error().within(description_.source.string()));
  }
  ram_.emplace(std::move(*ram));
  if (auto done = open_firmware(); !done) {
    return done;
  }
  for (const auto& drive : description_.drives) {
    if (auto done = open_drive(drive); !done) {
      return std::unexpected(
          done.error().within(fmt::format("{}: drive \"{}\"", description_.source.string(), drive.id)));
    }
  }
  if (description_.vnc && !description_.vnc->password_file.empty()) {
    auto password = read_password(description_.vnc->password_file);
    if (!password) {
      return std::unexpected(password.error().within(description_.source.string() + ": vnc.password_file"));
    }
    vnc_password_ = std::move(*password);
  }
  return make_streams();
}

Result<void> HostedPc::open_firmware() {
  const auto within = [&](std::string_view key, const Error& error) {
    return std::unexpected(error.within(fmt::format("{}: {}", description_.source.string(), key)));
  };
  const auto& named = description_.firmware;
  const auto bios = load_bios(named.bios.empty() ? kDefaultBios : named.bios);
  if (!bios) {
    return within("firmware.bios", bios.error());
  }
  auto bios_memory = rom_memory(*bios);
  if (!bios_memory) {
    return within("firmware.bios", bios_memory.error());
  }
  bios_.emplace(std::move(*bios_memory));
  if (description_.display.vga) {
    const auto rom = load_option_rom(named.vga_bios.empty() ? kDefaultVgaBios : named.vga_bios);
    if (!rom) {
      return within("firmware.vga_bios", rom.error());
    }
    auto rom_bytes = rom_memory(*rom);
    auto vram = HostMemory::create(description_.display.vram);
    if (!rom_bytes || !vram) {
      return within("display.vram", rom_bytes ? vram.error() : rom_bytes.error());
    }
    vga_rom_.emplace(std::move(*rom_bytes));
    vram_.emplace(std::move(*vram));
  }
  if (!description_.boot.kernel.empty()) {
    auto kernel = load_file(description_.boot.kernel, kLargestKernel);
    if (!kernel) {
      return within("boot.kernel", kernel.error());
    }
    if (kernel->empty()) {
      return fail(ErrorCode::kInvalid, fmt::format("{}: boot.kernel: {}: is empty",
                                                   description_.source.string(), description_.boot.kernel));
    }
    kernel_ = std::move(*kernel);
  }
  if (!description_.boot.initrd.empty()) {
    auto initrd = load_file(description_.boot.initrd, kLargestInitrd);
    if (!initrd) {
      return within("boot.initrd", initrd.error());
    }
    initrd_ = std::move(*initrd);
  }
  return {};
}

Result<void> HostedPc::open_drive(const DriveDescription& description) {
  drives_.push_back(std::make_unique<Drive>(description, space_));
  Drive& drive = *drives_.back();
  IdeDriveConfig config;
  config.kind = description.media == Media::kCdrom ? IdeKind::kCdrom : IdeKind::kDisk;
  config.model = description.model;
  config.serial = description.serial.empty() && config.kind == IdeKind::kDisk
                      ? fmt::format("WH{:05}", description.bus * 2 + description.unit + 1)
                      : description.serial;
  config.firmware = description.version;
  config.read_only = description.read_only;
  if (!description.password_file.empty()) {
    const auto password = read_password(description.password_file);
    if (!password) {
      return std::unexpected(password.error().within("password_file"));
    }
    drive.set_password(crypto::Secret(*password));
  }
  if (!description.file.empty()) {
    auto options = drive.open_options(description.file, description.format);
    if (purpose_ == OpenFor::kChecking) {
      if (!description.read_only && ::access(description.file.c_str(), F_OK) == 0 &&
          ::access(description.file.c_str(), W_OK) != 0) {
        return fail_errno(errno, description.file + ": cannot be opened for writing");
      }
      options.read_only = true;
      options.lock = false;
    }
    auto image = open_image(*ring_, options);
    if (!image) {
      return std::unexpected(image.error());
    }
    const std::uint64_t sector = config.kind == IdeKind::kCdrom ? 2048 : 512;
    if ((*image)->size() < sector) {
      return fail(ErrorCode::kInvalid, fmt::format("{}: holds {} bytes, less than one sector",
                                                   description.file, (*image)->size()));
    }
    if (config.kind == IdeKind::kDisk) {
      choose_geometry(*ring_, **image, description, config);
    }
    drive.insert(std::move(*image), description.file, description.format);
    config.block = drive.device();
  }
  ide_drives_[description.bus][description.unit] = std::move(config);
  return {};
}

Result<void> HostedPc::make_streams() {
  using Backend = SerialDescription::Backend;
  for (std::size_t i = 0; i < description_.serial.size(); ++i) {
    const auto& serial = description_.serial[i];
    std::unique_ptr<HostStream> stream;
    switch (serial.backend) {
      case Backend::kNull: break;
      case Backend::kStdio: stream = make_stdio_stream(*loop_, timers_, StdioInput::kUse); break;
      case Backend::kFile: stream = make_file_stream(*loop_, timers_, serial.path); break;
      case Backend::kPty: stream = make_pty_stream(*loop_, timers_); break;
      case Backend::kUnix: stream = make_unix_stream(*loop_, timers_, serial.path); break;
    }
    if (stream) {
      outputs_.push_back({.key = fmt::format("serial[{}]{}", i, serial.path.empty() ? "" : ".path"),
                          .path = serial.path,
                          .stream = stream.get(),
                          .empties_file = serial.backend == Backend::kFile});
    }
    serial_.push_back(std::move(stream));
  }
  const auto& console = description_.debug.console;
  if (!console.empty()) {
    const bool stdio = console == "stdio";
    const auto path = stdio ? std::string() : console.substr(std::strlen("file:"));
    // Standard input is for the serial line.
    debug_console_ = stdio ? make_stdio_stream(*loop_, timers_, StdioInput::kLeave)
                           : make_file_stream(*loop_, timers_, path);
    outputs_.push_back(
        {.key = "debug.console", .path = path, .stream = debug_console_.get(), .empties_file = !stdio});
  }
  return check_outputs();
}

Result<void> HostedPc::check_outputs() const {
  std::vector<std::pair<std::string, std::string>> taken = {
      {description_.source.string(), "this description"}};
  const auto take = [&taken](const std::string& path, std::string what) {
    if (!path.empty()) {
      taken.emplace_back(path, std::move(what));
    }
  };
  for (const auto& drive : description_.drives) {
    take(drive.file, fmt::format("the image of drive \"{}\"", drive.id));
    take(drive.password_file, fmt::format("the password of drive \"{}\"", drive.id));
  }
  take(description_.boot.kernel, "boot.kernel");
  take(description_.boot.initrd, "boot.initrd");
  take(description_.firmware.bios, "firmware.bios");
  take(description_.firmware.vga_bios, "firmware.vga_bios");
  take(description_.vnc ? description_.vnc->password_file : "", "vnc.password_file");
  for (const auto& output : outputs_) {
    const auto context = fmt::format("{}: {}", description_.source.string(), output.key);
    if (output.path.empty()) {
      continue;
    }
    for (const auto& [path, what] : taken) {
      if (path == output.path || same_file(path, output.path)) {
        return fail(ErrorCode::kInvalid, fmt::format("{}: {}: is also {}", context, output.path, what));
      }
    }
    const auto possible = output.stream->check();
    if (!possible) {
      return std::unexpected(possible.error().within(context));
    }
    take(output.path, output.key);
  }
  return {};
}

Result<void> HostedPc::open_streams() {
  std::scoped_lock lock(lock_);
  // Files last: nothing goes wrong any more once one is emptied.
  std::ranges::partition(outputs_, [](const Output& output) { return !output.empties_file; });
  for (const auto& output : outputs_) {
    if (auto opened = output.stream->open(); !opened) {
      return std::unexpected(
          opened.error().within(fmt::format("{}: {}", description_.source.string(), output.key)));
    }
    if (const auto address = output.stream->address(); !address.empty()) {
      notices_.push_back(fmt::format("{} is {}", output.key, address));
    }
  }
  return {};
}

bool HostedPc::uses_stdout() const {
  return description_.debug.console == "stdio" ||
         std::ranges::any_of(description_.serial, [](const SerialDescription& serial) {
           return serial.backend == SerialDescription::Backend::kStdio;
         });
}

std::int64_t HostedPc::rtc_start() const {
  const std::time_t now =
      description_.clock.start ? static_cast<std::time_t>(*description_.clock.start) : std::time(nullptr);
  if (description_.clock.start || !description_.clock.local_time) {
    return now;
  }
  std::tm local{};
  ::localtime_r(&now, &local);
  return now + local.tm_gmtoff;
}

Result<void> HostedPc::build(const CpuSide& cpus) {
  memory_.emplace(memory_bus_, cpus.slots);
  BoardSetup setup;
  setup.description = &description_;
  setup.ram = &*ram_;
  setup.bios = bios_->bytes();
  if (vram_) {
    setup.vram = vram_->bytes();
    setup.vga_rom = vga_rom_->bytes();
  }
  setup.ports = &ports_;
  setup.memory = &memory_bus_;
  setup.mapper = &*memory_;
  setup.timers = &timers_;
  setup.gsis = cpus.gsis;
  setup.kernel_interrupt_controllers = cpus.kernel_interrupt_controllers;
  setup.start_seconds = rtc_start();
  setup.drives = ide_drives_;
  for (const auto& stream : serial_) {
    setup.serial.push_back(stream.get());
  }
  setup.debug_console = debug_console_.get();
  setup.request_reset = requests_.reset;
  setup.request_power_off = requests_.power_off;
  setup.request_exit = requests_.exit;
  auto board = BoardPc::create(setup);
  if (!board) {
    return std::unexpected(board.error());
  }
  board_ = std::move(*board);
  if (board_->vga() != nullptr) {
    display_ = std::make_unique<CurrentDisplay>(*board_->vga(), cpus.deliver_queued_writes);
  }
  for (unsigned i = 0; i < serial_.size(); ++i) {
    if (serial_[i]) {
      serial_[i]->connect(board_->serial(i));
    }
  }
  return {};
}

void HostedPc::note_vnc(const VncEvent& event) {
  std::erase_if(vnc_clients_, [&](const VncEvent& each) { return each.client == event.client; });
  if (event.kind != VncEvent::Kind::kDisconnected) {
    vnc_clients_.push_back(event);
  }
  if (vnc_told_) {
    vnc_told_(event);
  }
}

VncConfig HostedPc::vnc_config() {
  return {.listen = description_.vnc->listen,
          .port = description_.vnc->port,
          .password = vnc_password_,
          .name = description_.name,
          .tell = [this](const VncEvent& event) { loop_->post([this, event] { note_vnc(event); }); }};
}

Result<std::unique_ptr<VncServer>> HostedPc::listen_vnc(const VncConfig& config) {
  auto server = VncServer::start(config, *display_, board_->input(), lock_);
  if (!server) {
    return std::unexpected(server.error().within(description_.source.string() + ": vnc"));
  }
  return server;
}

Result<void> HostedPc::start() {
  if (description_.vnc && !display_) {
    notices_.emplace_back("no VNC server: the machine has no video card");
  }
  if (description_.vnc && display_) {
    auto server = listen_vnc(vnc_config());
    if (!server) {
      return std::unexpected(server.error());
    }
    vnc_ = std::move(*server);
    notices_.push_back(fmt::format("VNC server running on {}", vnc_->address()));
  }
  return open_streams();
}

Result<void> HostedPc::check_vnc() {
  // Listening on a unix socket would create it.
  if (!description_.vnc || !display_ || description_.vnc->listen.starts_with("unix:")) {
    return {};
  }
  auto config = vnc_config();
  config.port = 0;  // the machine itself may be running on its port
  const auto server = listen_vnc(config);
  return server ? Result<void>{} : std::unexpected(server.error());
}

Result<std::optional<ProtectedEntry>> HostedPc::load_kernel() {
  if (kernel_.empty()) {
    return std::nullopt;
  }
  DirectBootFiles files;
  files.kernel_name = description_.boot.kernel;
  files.kernel = kernel_;
  files.cmdline = description_.boot.cmdline;
  if (!description_.boot.initrd.empty()) {
    files.initrd_name = description_.boot.initrd;
    files.initrd = initrd_;
  }
  GuestRamWriter writer(board_->memory());
  const auto boot = prepare_direct_boot(files, board_->facts(), writer);
  if (!boot) {
    return std::unexpected(boot.error().within(description_.source.string() + ": boot.kernel"));
  }
  board_->set_up_without_firmware();
  return ProtectedEntry{.eip = boot->eip,
                        .esp = boot->esp,
                        .eax = boot->eax,
                        .ebx = boot->ebx,
                        .esi = boot->esi,
                        .gdt_address = boot->gdt_base,
                        .gdt_limit = boot->gdt_limit,
                        .code_selector = boot->code_selector,
                        .data_selector = boot->data_selector};
}

Task<void> HostedPc::hurry_servers(std::shared_ptr<Stop> over) {
  const auto waited = co_await stoppable(*ring_, ring_->timeout(kServerPatience), over.get());
  if (waited == -ETIME) {
    log(LogLevel::kError, fmt::format("servers of disks that have not answered for {} s are given up",
                                      kServerPatience.count()));
    for (const auto& drive : drives_) {
      drive->servers().ask("it does not answer");
    }
    nodes_.servers().ask("it does not answer");
  }
}

void HostedPc::drain() {
  // A request that waits for room would keep us here, and nobody needs its answer any more.
  const bool for_good = space_.given_up();
  space_.give_up();
  const auto over = std::make_shared<Stop>();
  if (for_good) {
    spawn(hurry_servers(over));
  }
  bool drained = false;
  spawn(board_->ide().drain(), [&] { drained = true; });
  while (!drained) {
    ring_->run_once(true);
  }
  over->ask({});
  if (!for_good) {
    space_.start_over();
  }
}

void HostedPc::close_drives() {
  const auto over = std::make_shared<Stop>();
  spawn(hurry_servers(over));
  pending_->end_all();
  jobs_->end_all();
  nodes_.close_all(*ring_);
  for (auto& drive : drives_) {
    if (drive->device() == nullptr) {
      continue;
    }
    const auto name = drive->device()->name();
    if (auto closed = sync_wait(*ring_, drive->device()->close()); !closed) {
      log(LogLevel::kError,
          fmt::format("{}: closing failed, the last writes may be lost: {}", name, closed.error().message));
    }
  }
  over->ask({});
  while (ring_->in_flight() != 0) {  // what was given up ends by itself: a connection to a server, a timer
    ring_->run_once(true);
  }
}

void HostedPc::flush_streams() {
  for (auto& stream : serial_) {
    if (stream) {
      stream->flush();
    }
  }
  if (debug_console_) {
    debug_console_->flush();
  }
}

}  // namespace whistler

#include "vmm/hosted_pc.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <ctime>

#include "base/log.hpp"
#include "block/open.hpp"
#include "firmware/bios.hpp"
#include "firmware/direct_boot.hpp"

namespace whistler {
namespace {

constexpr std::uint64_t kLargestKernel = 512 * kMiB;
constexpr std::uint64_t kLargestInitrd = 2 * kGiB;

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

class GuestRamWriter final : public RamWriter {
 public:
  explicit GuestRamWriter(const GuestMemory& memory) : memory_(memory) {}
  bool write(std::uint64_t address, std::span<const std::uint8_t> bytes) override { return memory_.write(address, bytes); }

 private:
  const GuestMemory& memory_;
};

}  // namespace

HostedPc::HostedPc(Description description, const Clock& clock, HostClock& loop_clock, PcRequests requests)
    : description_(std::move(description)),
      requests_(std::move(requests)),
      loop_clock_(loop_clock),
      timers_(clock),
      space_(requests_.disk_full) {}

HostedPc::~HostedPc() = default;

Result<void> HostedPc::open() {
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
  auto ram = GuestRam::create(description_.memory,
                              {.huge_pages = description_.memory_options.huge_pages, .merge = description_.memory_options.merge});
  if (!ram) {
    return std::unexpected(ram.error().within(description_.source.string()));
  }
  ram_.emplace(std::move(*ram));
  if (auto done = open_firmware(); !done) {
    return done;
  }
  for (const auto& drive : description_.drives) {
    if (auto done = open_drive(drive); !done) {
      return std::unexpected(done.error().within(fmt::format("{}: drive \"{}\"", description_.source.string(), drive.id)));
    }
  }
  if (description_.vnc && !description_.vnc->password_file.empty()) {
    auto password = read_password(description_.vnc->password_file);
    if (!password) {
      return std::unexpected(password.error().within(description_.source.string() + ": vnc.password_file"));
    }
    vnc_password_ = std::move(*password);
  }
  return {};
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

Result<void> HostedPc::open_drive(const DriveDescription& drive) {
  IdeDriveConfig config;
  config.kind = drive.media == Media::kCdrom ? IdeKind::kCdrom : IdeKind::kDisk;
  config.model = drive.model;
  config.serial = drive.serial.empty() && config.kind == IdeKind::kDisk ? fmt::format("WH{:05}", drive.bus * 2 + drive.unit + 1) : drive.serial;
  config.read_only = drive.read_only;
  if (drive.geometry) {
    config.geometry = IdeGeometry{static_cast<std::uint16_t>(drive.geometry->cylinders), static_cast<std::uint8_t>(drive.geometry->heads),
                                  static_cast<std::uint8_t>(drive.geometry->sectors)};
  }
  if (!drive.file.empty()) {
    OpenOptions options;
    options.path = drive.file;
    options.format = drive.format;
    options.read_only = drive.read_only;
    options.cache = drive.cache;
    auto image = open_image(*ring_, options);
    if (!image) {
      return std::unexpected(image.error());
    }
    drives_.push_back(std::make_unique<PauseWhenFull>(std::move(*image), space_));
    config.block = drives_.back().get();
  }
  ide_drives_[drive.bus][drive.unit] = std::move(config);
  return {};
}

Result<void> HostedPc::open_streams() {
  using Backend = SerialDescription::Backend;
  for (std::size_t i = 0; i < description_.serial.size(); ++i) {
    const auto& serial = description_.serial[i];
    Result<std::unique_ptr<HostStream>> stream = nullptr;
    std::string pty;
    switch (serial.backend) {
      case Backend::kNull: break;
      case Backend::kStdio: stream = make_stdio_stream(*loop_, timers_); break;
      case Backend::kFile: stream = make_file_stream(*loop_, timers_, serial.path); break;
      case Backend::kPty:
        stream = make_pty_stream(*loop_, timers_, pty);
        notices_.push_back(fmt::format("serial port {} is {}", i, pty));
        break;
      case Backend::kUnix: stream = make_unix_stream(*loop_, timers_, serial.path); break;
    }
    if (!stream) {
      return std::unexpected(stream.error().within(fmt::format("{}: serial[{}]", description_.source.string(), i)));
    }
    serial_.push_back(std::move(*stream));
  }
  const auto& console = description_.debug.console;
  if (console == "stdio") {
    debug_console_ = make_stdio_stream(*loop_, timers_);
  } else if (!console.empty()) {
    auto stream = make_file_stream(*loop_, timers_, console.substr(std::strlen("file:")));
    if (!stream) {
      return std::unexpected(stream.error().within(description_.source.string() + ": debug.console"));
    }
    debug_console_ = std::move(*stream);
  }
  return {};
}

bool HostedPc::uses_stdout() const {
  return description_.debug.console == "stdio" || std::ranges::any_of(description_.serial, [](const SerialDescription& serial) {
           return serial.backend == SerialDescription::Backend::kStdio;
         });
}

std::int64_t HostedPc::rtc_start() const {
  const std::time_t now = description_.clock.start ? static_cast<std::time_t>(*description_.clock.start) : std::time(nullptr);
  if (description_.clock.start || !description_.clock.local_time) {
    return now;
  }
  std::tm local{};
  ::localtime_r(&now, &local);
  return now + local.tm_gmtoff;
}

Result<void> HostedPc::build(const CpuSide& cpus) {
  if (auto done = open_streams(); !done) {
    return done;
  }
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
  for (unsigned i = 0; i < serial_.size(); ++i) {
    if (serial_[i]) {
      serial_[i]->connect(board_->serial(i));
    }
  }
  return {};
}

Result<void> HostedPc::start_vnc() {
  if (!description_.vnc || board_->vga() == nullptr) {
    return {};
  }
  VncConfig config;
  config.listen = description_.vnc->listen;
  config.port = description_.vnc->port;
  config.password = vnc_password_;
  config.name = description_.name;
  auto server = VncServer::start(config, *board_->vga(), board_->input(), lock_);
  if (!server) {
    return std::unexpected(server.error().within(description_.source.string() + ": vnc"));
  }
  vnc_ = std::move(*server);
  notices_.push_back(fmt::format("VNC server running on {}", vnc_->address()));
  return {};
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

void HostedPc::drain() {
  bool drained = false;
  spawn(board_->ide().drain(), [&] { drained = true; });
  while (!drained) {
    ring_->run_once(true);
  }
}

void HostedPc::close_drives() {
  for (auto& drive : drives_) {
    const auto name = drive->name();
    if (auto closed = sync_wait(*ring_, drive->close()); !closed) {
      log(LogLevel::kError, fmt::format("{}: closing failed, the last writes may be lost: {}", name, closed.error().message));
    }
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

#include "devices/video/std_vga.hpp"

#include <bit>
#include <string>

#include "base/log.hpp"
#include "devices/video/edid.hpp"

namespace whistler {
namespace {

constexpr PciIds kIds = {.vendor = 0x1234,
                         .device = 0x1111,
                         .class_code = 0x030000,
                         .revision = 2,  // has the extended registers at 0x600
                         .subsystem_vendor = 0x1AF4,
                         .subsystem = 0x1100};

// BAR2 (QEMU, docs/specs/standard-vga.rst).
constexpr std::uint32_t kMmioSize = 0x1000;
constexpr std::uint64_t kEdidSpace = 0x400;  // the block, then zeros
constexpr std::uint64_t kVgaPorts = 0x400;   // from port 0x3C0 on
constexpr std::uint64_t kVgaPortsEnd = 0x420;
constexpr std::uint64_t kDispi = 0x500;  // 16-bit registers
constexpr std::uint64_t kDispiEnd = kDispi + 2 * (VbeDispi::kVideoMemory64K + 1);
constexpr std::uint64_t kExtendedSize = 0x600;  // bytes of extended registers
constexpr std::uint64_t kByteOrder = 0x604;
constexpr std::uint32_t kBigEndian = 0xBEBEBEBE;
constexpr std::uint32_t kLittleEndian = 0x1E1E1E1E;

/// Reads `width` bytes one by one, lowest address first.
template <typename ReadByte>
std::uint64_t gather(unsigned width, ReadByte read) {
  std::uint64_t value = 0;
  for (unsigned i = 0; i < width; ++i) {
    value |= std::uint64_t{read(i)} << (8 * i);
  }
  return value;
}

}  // namespace

Result<void> StdVga::check_vram_size(std::uint64_t bytes) {
  if (!std::has_single_bit(bytes) || bytes < (1U << 20) || bytes > (256U << 20)) {
    return fail(ErrorCode::kInvalid, "display.vram: " + std::to_string(bytes) +
                                         " bytes; it must be a power of two from 1M to 256M");
  }
  return {};
}

StdVga::StdVga(const Clock& clock, MemoryMapper& mapper, const Setup& setup)
    : PciFunction(kIds),
      clock_(clock),
      vram_(setup.vram),
      mapper_(mapper),
      vram_slot_(setup.vram_slot),
      window_slot_(setup.window_slot),
      vga_(clock),
      vbe_(setup.vram.size()),
      dirty_(setup.vram.size()),
      planes_(setup.vram, vga_, dirty_),
      edid_(make_edid(setup.edid_width, setup.edid_height)),
      ports_(*this, &StdVga::port_read, &StdVga::port_write),
      dispi_ports_(*this, &StdVga::dispi_port_read, &StdVga::dispi_port_write),
      window_(*this, &StdVga::window_read, &StdVga::window_write),
      mmio_(*this, &StdVga::mmio_read, &StdVga::mmio_write) {
  set_bar(0, {.kind = PciBar::Kind::kMemory,
              .size = static_cast<std::uint32_t>(setup.vram.size()),
              .prefetchable = true,
              .slot = setup.vram_slot,
              .memory = setup.vram});
  set_bar(2, {.kind = PciBar::Kind::kRegisters, .size = kMmioSize, .handler = &mmio_, .max_width = 4});
  if (!setup.rom.empty()) {
    set_bar(kRomBar, {.kind = PciBar::Kind::kRom,
                      .size = static_cast<std::uint32_t>(setup.rom.size()),
                      .slot = setup.rom_slot,
                      .memory = setup.rom});
  }
}

void StdVga::reset() {
  reset_config();
  vga_.reset();
  vbe_.reset();
  planes_.set_latch(0);
  big_endian_ = false;
  settle();
}

void StdVga::save(StateWriter& writer) const {
  writer.put(State{.pci = config(),
                   .vga = vga_.state(),
                   .vbe = vbe_.state(),
                   .latch = planes_.latch(),
                   .big_endian = big_endian_});
}

Result<void> StdVga::load(const StateReader& reader) {
  State state;
  if (auto done = reader.get(state); !done) {
    return done;
  }
  if (auto done = vga_.load(state.vga); !done) {
    return done;
  }
  vbe_.load(state.vbe);
  planes_.set_latch(state.latch);
  big_endian_ = state.big_endian;
  load_config(state.pci);
  settle();
  return {};
}

// After every register may have changed: what is derived from them follows, and nothing drawn is trusted.
void StdVga::settle() {
  vga_.set_eight_bit_dac(vbe_.eight_bit_dac());
  place_window();
  renderer_.invalidate();
}

std::uint64_t StdVga::port_read(std::uint64_t offset, unsigned width) {
  return gather(width, [&](unsigned i) {
    return vga_.read(static_cast<std::uint16_t>(VgaRegisters::kFirstPort + offset + i));
  });
}

void StdVga::port_write(std::uint64_t offset, unsigned width, std::uint64_t value) {
  for (unsigned i = 0; i < width; ++i) {
    vga_.write(static_cast<std::uint16_t>(VgaRegisters::kFirstPort + offset + i),
               static_cast<std::uint8_t>(value >> (8 * i)));
  }
  place_window();
}

std::uint64_t StdVga::dispi_port_read(std::uint64_t offset, unsigned width) {
  const std::uint64_t value = offset == 0 ? vbe_.index() : vbe_.read(vbe_.index());
  return value & all_ones(width);
}

void StdVga::dispi_port_write(std::uint64_t offset, unsigned, std::uint64_t value) {
  if (offset == 0) {
    vbe_.set_index(static_cast<std::uint16_t>(value));
  } else {
    write_dispi(vbe_.index(), static_cast<std::uint16_t>(value));
  }
}

void StdVga::write_dispi(std::uint16_t index, std::uint16_t value) {
  if (vbe_.write(index, value)) {
    vga_.prepare_for_vbe(vbe_.width(), vbe_.height(), vbe_.pitch(), vbe_.planar());
    if ((value & VbeDispi::kNoClearMem) == 0) {
      const std::size_t picture = std::size_t{vbe_.pitch()} * vbe_.height();
      std::fill_n(vram_.begin(), picture, std::uint8_t{0});
      dirty_.mark(0, picture);
    }
  }
  vga_.set_eight_bit_dac(vbe_.eight_bit_dac());
  place_window();
}

std::uint64_t StdVga::window_read(std::uint64_t offset, unsigned width) {
  map_window();
  return gather(width, [&](unsigned i) {
    return planes_.read(static_cast<std::uint32_t>(offset + i), vbe_.bank_offset());
  });
}

void StdVga::window_write(std::uint64_t offset, unsigned width, std::uint64_t value) {
  map_window();
  for (unsigned i = 0; i < width; ++i) {
    planes_.write(static_cast<std::uint32_t>(offset + i), vbe_.bank_offset(),
                  static_cast<std::uint8_t>(value >> (8 * i)));
  }
}

std::uint64_t StdVga::mmio_read(std::uint64_t offset, unsigned width) {
  if (offset == kExtendedSize && width == 4) {
    return 8;
  }
  if (offset == kByteOrder && width == 4) {
    return big_endian_ ? kBigEndian : kLittleEndian;
  }
  return gather(width, [&](unsigned i) { return mmio_read_byte(offset + i); });
}

std::uint8_t StdVga::mmio_read_byte(std::uint64_t offset) {
  if (offset < kEdidSpace) {
    return offset < edid_.size() ? edid_[offset] : 0;
  }
  if (offset >= kVgaPorts && offset < kVgaPortsEnd) {
    return vga_.read(static_cast<std::uint16_t>(0x3C0 + offset - kVgaPorts));
  }
  if (offset >= kDispi && offset < kDispiEnd) {
    const auto value = vbe_.read(static_cast<std::uint16_t>((offset - kDispi) / 2));
    return static_cast<std::uint8_t>((offset & 1) != 0 ? value >> 8 : value);
  }
  return 0xFF;
}

void StdVga::mmio_write(std::uint64_t offset, unsigned width, std::uint64_t value) {
  if (offset == kByteOrder && width == 4) {
    if (value == kBigEndian || value == kLittleEndian) {
      big_endian_ = value == kBigEndian;
    }
  } else if (offset >= kVgaPorts && offset < kVgaPortsEnd) {
    port_write(offset - kVgaPorts + 0x3C0 - VgaRegisters::kFirstPort, width, value);
  } else if (offset >= kDispi && offset < kDispiEnd && (offset & 1) == 0) {
    for (unsigned i = 0; i < width; i += 2) {  // a byte is taken as a whole register
      write_dispi(static_cast<std::uint16_t>((offset - kDispi + i) / 2),
                  static_cast<std::uint16_t>(value >> (8 * i)));
    }
  } else {
    log_once(LogLevel::kDebug, "vga mmio " + std::to_string(offset),
             "vga: write to offset " + std::to_string(offset) + " of BAR2, where no register takes it");
  }
}

// The window is mapped on the first access that could have been spared, so that a mode switch, which passes
// through many states, maps nothing. Once mapped it follows the registers.
void StdVga::map_window() {
  if (!mapped_window_) {
    mapped_window_ = planes_.linear_window(vbe_.bank_offset());
    if (mapped_window_) {
      mapper_.map(window_slot_, kWindowAddress + mapped_window_->position,
                  vram_.subspan(mapped_window_->offset, mapped_window_->size), MemoryMapper::Access::kLogged);
    }
  }
}

void StdVga::place_window() {
  if (mapped_window_ && mapped_window_ != planes_.linear_window(vbe_.bank_offset())) {
    collect_window();
    const bool moves = planes_.linear_window(vbe_.bank_offset()).has_value();
    mapped_window_.reset();
    if (moves) {
      map_window();  // replaces the old mapping
    } else {
      mapper_.unmap(window_slot_);
    }
  }
}

/// Takes over which pages were written through the mapped window.
void StdVga::collect_window() {
  if (!mapped_window_) {
    return;
  }
  const std::uint64_t pages = mapped_window_->size / MemoryMapper::kPageSize;
  std::uint64_t written = 0;  // 128 KiB are 32 pages
  mapper_.collect_dirty(window_slot_, std::span(&written, 1));
  for (std::uint64_t page = 0; page < pages; ++page) {
    if ((written >> page & 1) != 0) {
      dirty_.mark(mapped_window_->offset + page * MemoryMapper::kPageSize, MemoryMapper::kPageSize);
    }
  }
}

void StdVga::update() {
  collect_window();
  mapper_.collect_dirty(vram_slot_, dirty_.words());
  renderer_.draw(frame(), decode_palette(vga_, vbe_.eight_bit_dac()), vram_, dirty_, clock_.now());
  dirty_.clear();
}

VgaFrame StdVga::frame() const { return decode_frame(vga_, vbe_, vram_.size(), big_endian_); }

std::optional<TextScreen> StdVga::text() const {
  const auto current = frame();
  if (current.kind != VgaFrame::Kind::kText) {
    return std::nullopt;
  }
  return read_text(current, vram_);
}

}  // namespace whistler

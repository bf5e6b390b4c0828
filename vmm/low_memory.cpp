#include "vmm/low_memory.hpp"

#include <algorithm>

namespace whistler {
namespace {

constexpr std::size_t kMostRomBelow1M = 128 * 1024;

}  // namespace

LowMemory::LowMemory(MemoryMapper& mapper, unsigned first_slot, std::span<std::uint8_t> ram,
                     std::span<std::uint8_t> bios)
    : mapper_(mapper),
      first_slot_(first_slot),
      ram_(ram),
      rom_(bios.last(std::min(bios.size(), kMostRomBelow1M))) {
  remap();
}

Result<void> LowMemory::attach(Bus& memory) {
  return memory.map({.base = kShadowBase, .length = kTop - kShadowBase, .max_width = 8}, *this, "shadow RAM");
}

void LowMemory::set_shadow(unsigned segment, bool read_dram, bool write_dram) {
  // Segment 0 is the 64 KiB at 0xF0000; the others follow from 0xC0000 on, 16 KiB each (82441FX,
  // section 3.2.18).
  constexpr unsigned kPiecesOfF = 4;
  const unsigned first = segment == 0 ? kPieces - kPiecesOfF : segment - 1;
  const unsigned count = segment == 0 ? kPiecesOfF : 1;
  for (unsigned i = first; i < std::min(first + count, kPieces); ++i) {
    pieces_[i] = {read_dram, write_dram};
  }
  remap();
}

void LowMemory::set_smram_open(bool open) {
  if (open && ram_.size() >= kShadowBase) {
    mapper_.map(first_slot_, kSmramBase, ram_.subspan(kSmramBase, kShadowBase - kSmramBase),
                MemoryMapper::Access::kReadWrite);
  } else {
    mapper_.unmap(first_slot_);
  }
}

LowMemory::Window LowMemory::window_of(unsigned piece) const {
  const std::uint64_t address = kShadowBase + piece * kPiece;
  const Piece& state = pieces_[piece];
  if (state.read_ram) {
    return {address, ram_.subspan(address, kPiece),
            state.write_ram ? MemoryMapper::Access::kReadWrite : MemoryMapper::Access::kReadOnly};
  }
  const std::uint64_t rom_base = kTop - rom_.size();
  if (address < rom_base) {
    return {};  // the bus: nobody answers
  }
  return {address, rom_.subspan(address - rom_base, kPiece), MemoryMapper::Access::kReadOnly};
}

void LowMemory::remap() {
  std::array<Window, kPieces> wanted{};
  unsigned start = 0;
  for (unsigned piece = 0; piece < kPieces; ++piece) {
    const Window next = window_of(piece);
    Window& last = wanted[start];
    const bool joins = !last.memory.empty() && !next.memory.empty() && last.access == next.access &&
                       last.address + last.memory.size() == next.address &&
                       last.memory.data() + last.memory.size() == next.memory.data();
    if (joins) {
      last.memory = {last.memory.data(), last.memory.size() + next.memory.size()};
    } else {
      start = piece;
      wanted[piece] = next;
    }
  }
  for (unsigned piece = 0; piece < kPieces; ++piece) {
    if (!mapped_[piece].memory.empty() && !mapped_[piece].same(wanted[piece])) {
      mapper_.unmap(first_slot_ + 1 + piece);
    }
  }
  for (unsigned piece = 0; piece < kPieces; ++piece) {
    if (!wanted[piece].memory.empty() && !mapped_[piece].same(wanted[piece])) {
      mapper_.map(first_slot_ + 1 + piece, wanted[piece].address, wanted[piece].memory, wanted[piece].access);
    }
  }
  mapped_ = wanted;
}

// Only what no window takes comes here: reads where there is neither RAM nor ROM, and writes to read-only
// stretches.
std::uint64_t LowMemory::read(std::uint64_t, unsigned width) { return all_ones(width); }

void LowMemory::write(std::uint64_t offset, unsigned width, std::uint64_t value) {
  for (unsigned i = 0; i < width && offset + i < kTop - kShadowBase; ++i) {
    if (pieces_[(offset + i) / kPiece].write_ram) {
      ram_[kShadowBase + offset + i] = static_cast<std::uint8_t>(value >> (8 * i));
    }
  }
}

}  // namespace whistler

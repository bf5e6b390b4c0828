// What a write leaves out of the clusters it touches, and brings along when they are new.
#pragma once

#include <cstdint>
#include <span>

#include "block/aligned_buffer.hpp"

namespace whistler::qcow2 {

struct Surroundings {
  AlignedBuffer memory;
  std::span<std::uint8_t> head;  ///< before the write; empty: nothing to bring along
  std::span<std::uint8_t> tail;  ///< behind it

  /// Room for both, with `bridge` bytes between them; not initialised.
  Surroundings(std::size_t before, std::size_t bridge, std::size_t behind)
      : memory(before + bridge + behind),
        head(memory.data(), before),
        tail(memory.data() + before + bridge, behind) {}
};

}  // namespace whistler::qcow2

// What a write leaves out of the clusters it touches, and brings along when they are new.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

namespace whistler::qcow2 {

struct Surroundings {
  std::unique_ptr<std::uint8_t[]> memory;
  std::span<std::uint8_t> head;  ///< before the write; empty: nothing to bring along
  std::span<std::uint8_t> tail;  ///< behind it

  /// Room for both, with `bridge` bytes between them; not initialised.
  Surroundings(std::size_t before, std::size_t bridge, std::size_t behind)
      : memory(std::make_unique_for_overwrite<std::uint8_t[]>(before + bridge + behind)),
        head(memory.get(), before),
        tail(memory.get() + before + bridge, behind) {}
};

}  // namespace whistler::qcow2

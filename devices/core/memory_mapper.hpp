// Host memory placed into the guest's physical address space, so that vCPUs reach it without an exit.
#pragma once

#include <cstdint>
#include <span>

namespace whistler {

/// KVM memory slots; in qtest a plain list. Under the machine lock.
class MemoryMapper {
 public:
  static constexpr std::uint64_t kPageSize = 4096;

  enum class Access : std::uint8_t {
    kReadOnly,  ///< writes exit and go to the memory bus
    kReadWrite,
    kLogged,  ///< read and write, and written pages are remembered for collect_dirty()
  };

  virtual ~MemoryMapper() = default;

  /// Maps `memory` (whole pages; it must outlive the mapping) at page-aligned guest-physical `address`.
  /// `slot` is a number the board gave its user; what was mapped there before is replaced. Guests choose
  /// addresses: one that collides with another slot is logged and leaves this slot unmapped.
  virtual void map(unsigned slot, std::uint64_t address, std::span<std::uint8_t> memory, Access access) = 0;
  virtual void unmap(unsigned slot) = 0;

  /// Sets bit n of `bitmap` for each page n of the slot that was written since the last call (and leaves the
  /// others as they are). `bitmap` holds at least one bit a page. All bits are set right after map().
  virtual void collect_dirty(unsigned slot, std::span<std::uint64_t> bitmap) = 0;
};

}  // namespace whistler

// Guest-physical address space: which addresses are memory, and which go to the memory bus.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>

#include "devices/core/bus.hpp"
#include "devices/core/memory_mapper.hpp"

namespace whistler {

/// Makes a window known to what runs the vCPUs (KVM memory slots). Without one (qtest) the AddressSpace alone
/// answers.
class SlotBackend {
 public:
  virtual ~SlotBackend() = default;
  /// False if the kernel refuses; the window is then not mapped.
  [[nodiscard]] virtual bool set_slot(unsigned slot, std::uint64_t address, std::span<std::uint8_t> memory,
                                      MemoryMapper::Access access) = 0;
  virtual void clear_slot(unsigned slot) = 0;
  virtual void collect_dirty(unsigned slot, std::span<std::uint64_t> bitmap) = 0;
};

/// Memory windows over a memory bus. Under the machine lock.
class AddressSpace final : public MemoryMapper {
 public:
  /// `bus` answers where no window lies; `backend` may be null. Both must outlive the space.
  AddressSpace(Bus& bus, SlotBackend* backend) : bus_(bus), backend_(backend) {}

  void map(unsigned slot, std::uint64_t address, std::span<std::uint8_t> memory, Access access) override;
  void unmap(unsigned slot) override;
  void collect_dirty(unsigned slot, std::span<std::uint64_t> bitmap) override;

  /// One access of 1, 2, 4 or 8 bytes as a vCPU would make it. For qtest, the monitor and MMIO exits.
  [[nodiscard]] std::uint64_t read(std::uint64_t address, unsigned width);
  void write(std::uint64_t address, unsigned width, std::uint64_t value);

  /// Copies without side effects on devices: memory only. False where there is none.
  [[nodiscard]] bool peek(std::uint64_t address, std::span<std::uint8_t> to) const;

 private:
  struct Window {
    std::uint64_t address = 0;
    std::span<std::uint8_t> memory;
    Access access = Access::kReadWrite;
    bool all_dirty = true;
  };
  [[nodiscard]] const Window* find(std::uint64_t address) const;

  Bus& bus_;
  SlotBackend* backend_;
  std::map<unsigned, Window> windows_;  // by slot
};

}  // namespace whistler

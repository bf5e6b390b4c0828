// KVM, as objects: the /dev/kvm handle, one virtual machine, its in-kernel interrupt controllers and timer.
// Source: Linux Documentation/virt/kvm/api.rst.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "devices/core/irq_line.hpp"
#include "vmm/address_space.hpp"
#include "vmm/kvm/cpuid.hpp"

namespace whistler {

/// The host's KVM. Opening checks the API version and every capability the machine needs; what is missing is
/// named with its remedy.
class Kvm {
 public:
  [[nodiscard]] static Result<Kvm> open();

  /// What the host's CPU and KVM offer guests.
  [[nodiscard]] Result<std::vector<CpuidEntry>> supported_cpuid() const;
  [[nodiscard]] int fd() const { return fd_.get(); }
  /// Bytes of the region shared with the kernel for each vCPU.
  [[nodiscard]] std::size_t vcpu_mmap_size() const { return vcpu_mmap_size_; }
  /// The value of an extension; 0 if it is not there.
  [[nodiscard]] int extension(int capability) const;

 private:
  Kvm(UniqueFd fd, std::size_t vcpu_mmap_size) : fd_(std::move(fd)), vcpu_mmap_size_(vcpu_mmap_size) {}

  UniqueFd fd_;
  std::size_t vcpu_mmap_size_;
};

/// One virtual machine with in-kernel PICs, I/O APIC, local APICs and PIT (with tick reinjection). Takes the
/// windows of an AddressSpace as memory slots. IrqSink inputs are GSIs: 0..15 reach PIC and I/O APIC, 16..23
/// the I/O APIC.
class Vm final : public SlotBackend, public IrqSink {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Vm>> create(const Kvm& kvm);

  // SlotBackend: memory slots.
  [[nodiscard]] bool set_slot(unsigned slot, std::uint64_t address, std::span<std::uint8_t> memory,
                              MemoryMapper::Access access) override;
  void clear_slot(unsigned slot) override;
  void collect_dirty(unsigned slot, std::span<std::uint64_t> bitmap) override;

  void set_irq(unsigned input, bool level) override;

  /// Writes to these ranges may be queued and delivered later, before any other exit is handled. Failure only
  /// costs speed.
  void coalesce_memory(std::uint64_t address, std::uint32_t length);
  void coalesce_port(std::uint16_t port, std::uint32_t length);

  /// Puts the interrupt controllers and the PIT into their power-on state.
  void reset_interrupt_controllers();

  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  struct ControllerState;

  explicit Vm(UniqueFd fd);

 public:
  ~Vm() override;

 private:
  UniqueFd fd_;
  bool coalesced_ports_ = false;
  std::vector<std::uint64_t> slot_bytes_;  // memory size by slot, 0 if free
  std::vector<std::uint64_t> dirty_;       // scratch for collect_dirty
  std::unique_ptr<ControllerState> power_on_;
};

}  // namespace whistler

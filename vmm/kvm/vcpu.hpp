// One virtual CPU: its registers, and one stay in the guest at a time.
// Source: Linux Documentation/virt/kvm/api.rst; reset values: Intel SDM volume 3A, table 10-1.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "vmm/kvm/vm.hpp"

struct kvm_run;

namespace whistler {

/// Where accesses that leave the guest go. Called on the vCPU's thread.
class ExitHandler {
 public:
  virtual ~ExitHandler() = default;
  /// `count` accesses of `width` bytes to one port, as a string instruction makes them; `data` holds count *
  /// width bytes.
  virtual void port_read(std::uint16_t port, unsigned width, std::span<std::uint8_t> data) = 0;
  virtual void port_write(std::uint16_t port, unsigned width, std::span<const std::uint8_t> data) = 0;
  virtual void memory_read(std::uint64_t address, std::span<std::uint8_t> data) = 0;
  virtual void memory_write(std::uint64_t address, std::span<const std::uint8_t> data) = 0;
};

/// Why a stay in the guest ended, when it was not an access.
enum class VcpuEvent : std::uint8_t {
  kAccess,       ///< a port or memory access, already handled
  kInterrupted,  ///< kicked, or a signal
  kHalted,       ///< HLT that the kernel handed out
  kTripleFault,
  kCannotEmulate,  ///< an instruction KVM cannot emulate, or another internal error
  kFailedEntry,
  kUnknownExit,
};

/// Register values to begin with other than at the reset vector: 32-bit protected mode, flat segments, paging
/// off.
struct ProtectedEntry {
  std::uint32_t eip = 0, esp = 0, eax = 0, ebx = 0, esi = 0;
  std::uint64_t gdt_address = 0;  ///< of a GDT that matches the selectors
  std::uint16_t gdt_limit = 0;
  std::uint16_t code_selector = 0x10, data_selector = 0x18;
};

/// Created at the reset state (application processors wait for SIPI). All but kick() on the thread that runs
/// it, or while that thread is parked.
class Vcpu {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Vcpu>> create(const Kvm& kvm, const Vm& vm, unsigned index,
                                                            std::span<const CpuidEntry> cpuid);
  ~Vcpu();
  Vcpu(const Vcpu&) = delete;
  Vcpu& operator=(const Vcpu&) = delete;

  /// Enters the guest until the next exit. An access is handed to `handler`.
  [[nodiscard]] VcpuEvent run(ExitHandler& handler);

  /// Makes run() return soon, or at once when it is called next. Any thread; `thread` is the one in run().
  void kick(pthread_t thread);
  /// Takes a kick back, before run() is meant to go on.
  void clear_kick();

  /// Power-on reset.
  void reset();
  [[nodiscard]] Result<void> enter_protected(const ProtectedEntry& entry);
  void inject_nmi();

  /// Finishes an access whose answer the guest has not taken over yet, so that the registers are whole.
  void complete_access();

  /// Registers, descriptor tables, the bytes at the instruction pointer and the last event's details, for
  /// people. `peek` reads guest-physical memory.
  [[nodiscard]] std::string describe(const AddressSpace& memory) const;
  /// The guest-physical address of a linear one, by its page tables; nothing if they do not map it.
  [[nodiscard]] std::optional<std::uint64_t> translate(std::uint64_t linear) const;
  /// Whether it halts with interrupts off, or waits for another one to start it: nothing but a reset, an NMI
  /// or the other one ends that.
  [[nodiscard]] bool halted_for_good() const;
  /// What the last event was about, one line: "KVM internal error, suberror 1 (emulation failed)".
  [[nodiscard]] const std::string& event_detail() const { return detail_; }

  /// Hands queued coalesced writes to `handler`, oldest first. The queue is the whole VM's.
  void drain_coalesced(ExitHandler& handler);
  [[nodiscard]] std::uint64_t exits() const { return exits_.load(std::memory_order_relaxed); }

 private:
  struct PowerOn;
  Vcpu(UniqueFd fd, unsigned index);

  UniqueFd fd_;
  unsigned index_;
  kvm_run* run_ = nullptr;
  std::size_t run_size_ = 0;
  std::size_t coalesced_offset_ = 0;  // of the ring in the shared region; 0 = none
  std::unique_ptr<PowerOn> power_on_;
  std::string detail_;
  std::atomic<std::uint64_t> exits_ = 0;
};

/// The signal kick() sends; its handler does nothing. Call once before vCPU threads start.
void install_kick_signal();

}  // namespace whistler

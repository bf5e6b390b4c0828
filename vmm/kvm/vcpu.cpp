#include "vmm/kvm/vcpu.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "vmm/kvm/kvm_abi.hpp"

namespace whistler {
namespace {

constexpr std::size_t kPage = 4096;
constexpr int kKickSignal = SIGUSR1;

// Model-specific registers that a reset must bring back and that no other KVM structure carries (values:
// Intel SDM 3A, table 10-1; the KVM ones: Documentation/virt/kvm/x86/msr.rst).
constexpr std::array kResetMsrs = std::to_array<std::pair<std::uint32_t, std::uint64_t>>({
    {0x10, 0},                    // IA32_TIME_STAMP_COUNTER
    {0x174, 0},                   // IA32_SYSENTER_CS
    {0x175, 0},                   // IA32_SYSENTER_ESP
    {0x176, 0},                   // IA32_SYSENTER_EIP
    {0x277, 0x0007040600070406},  // IA32_PAT
    {0x2FF, 0},                   // IA32_MTRR_DEF_TYPE
    {0xC0000081, 0},              // STAR
    {0xC0000082, 0},              // LSTAR
    {0xC0000083, 0},              // CSTAR
    {0xC0000084, 0},              // SFMASK
    {0xC0000102, 0},              // KERNEL_GS_BASE
    {0xC0000103, 0},              // TSC_AUX
    {0x11, 0},                    // MSR_KVM_WALL_CLOCK
    {0x12, 0},                    // MSR_KVM_SYSTEM_TIME
    {0x4B564D00, 0},              // MSR_KVM_WALL_CLOCK_NEW
    {0x4B564D01, 0},              // MSR_KVM_SYSTEM_TIME_NEW
    {0x4B564D02, 0},              // MSR_KVM_ASYNC_PF_EN
    {0x4B564D03, 0},              // MSR_KVM_STEAL_TIME
    {0x4B564D04, 0},              // MSR_KVM_PV_EOI_EN
});

std::span<std::uint8_t> bytes_at(void* base, std::size_t offset, std::size_t length) {
  return {static_cast<std::uint8_t*>(base) + offset, length};
}

std::string_view suberror_name(std::uint32_t suberror) {
  switch (suberror) {
    case KVM_INTERNAL_ERROR_EMULATION: return "emulation failed";
    case KVM_INTERNAL_ERROR_SIMUL_EX: return "simultaneous exceptions";
    case KVM_INTERNAL_ERROR_DELIVERY_EV: return "event delivery";
    case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON: return "unexpected exit reason";
    default: return "unknown";
  }
}

}  // namespace

struct Vcpu::PowerOn {
  kvm_regs regs{};
  kvm_sregs sregs{};
  kvm_fpu fpu{};
  kvm_lapic_state lapic{};
  kvm_vcpu_events events{};
  kvm_mp_state mp_state{};
};

Vcpu::Vcpu(UniqueFd fd, unsigned index)
    : fd_(std::move(fd)), index_(index), power_on_(std::make_unique<PowerOn>()) {}

Vcpu::~Vcpu() {
  if (run_ != nullptr) {
    ::munmap(run_, run_size_);
  }
}

Result<std::unique_ptr<Vcpu>> Vcpu::create(const Kvm& kvm, const Vm& vm, unsigned index,
                                           std::span<const CpuidEntry> cpuid) {
  const auto failed = [&](std::string_view what) {
    return fail_errno(errno, fmt::format("/dev/kvm: vCPU {}: {}", index, what));
  };
  UniqueFd fd(::ioctl(vm.fd(), KVM_CREATE_VCPU, index));
  if (!fd) {
    return failed("KVM_CREATE_VCPU");
  }
  std::unique_ptr<Vcpu> vcpu(new Vcpu(std::move(fd), index));
  void* shared =
      ::mmap(nullptr, kvm.vcpu_mmap_size(), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd_.get(), 0);
  if (shared == MAP_FAILED) {
    return failed("mapping of the shared region");
  }
  vcpu->run_ = static_cast<kvm_run*>(shared);
  vcpu->run_size_ = kvm.vcpu_mmap_size();
  if (const int page = kvm.extension(KVM_CAP_COALESCED_MMIO); page > 0) {
    const auto offset = static_cast<std::size_t>(page) * kPage;
    vcpu->coalesced_offset_ = offset + kPage <= vcpu->run_size_ ? offset : 0;
  }

  std::vector<std::uint8_t> buffer(sizeof(kvm_cpuid2) + cpuid.size() * sizeof(kvm_cpuid_entry2));
  auto* list = reinterpret_cast<kvm_cpuid2*>(buffer.data());
  list->nent = static_cast<std::uint32_t>(cpuid.size());
  for (std::size_t i = 0; i < cpuid.size(); ++i) {
    const CpuidEntry& e = cpuid[i];
    list->entries[i] = {.function = e.function,
                        .index = e.index,
                        .flags = e.index_matters ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0U,
                        .eax = e.eax,
                        .ebx = e.ebx,
                        .ecx = e.ecx,
                        .edx = e.edx,
                        .padding = {}};
  }
  if (::ioctl(vcpu->fd_.get(), KVM_SET_CPUID2, list) != 0) {
    return failed("KVM_SET_CPUID2");
  }
  PowerOn& state = *vcpu->power_on_;
  const int vcpu_fd = vcpu->fd_.get();
  if (::ioctl(vcpu_fd, KVM_GET_REGS, &state.regs) != 0 ||
      ::ioctl(vcpu_fd, KVM_GET_SREGS, &state.sregs) != 0 || ::ioctl(vcpu_fd, KVM_GET_FPU, &state.fpu) != 0 ||
      ::ioctl(vcpu_fd, KVM_GET_LAPIC, &state.lapic) != 0 ||
      ::ioctl(vcpu_fd, KVM_GET_VCPU_EVENTS, &state.events) != 0 ||
      ::ioctl(vcpu_fd, KVM_GET_MP_STATE, &state.mp_state) != 0) {
    return failed("reading the reset state");
  }
  return vcpu;
}

VcpuEvent Vcpu::run(ExitHandler& handler) {
  const int rc = ::ioctl(fd_.get(), KVM_RUN, 0);
  if (rc != 0) {
    if (errno == EINTR || errno == EAGAIN) {
      return VcpuEvent::kInterrupted;
    }
    detail_ = fmt::format("KVM_RUN: {}", std::strerror(errno));
    return VcpuEvent::kFailedEntry;
  }
  exits_.fetch_add(1, std::memory_order_relaxed);
  switch (run_->exit_reason) {
    case KVM_EXIT_IO: {
      const auto& io = run_->io;
      const auto length = std::size_t{io.size} * io.count;
      // SAFETY: the kernel places the data inside the shared region; a wrong offset would be its bug, not the
      // guest's.
      if (io.data_offset + length > run_size_) {
        detail_ = "KVM_EXIT_IO beyond the shared region";
        return VcpuEvent::kUnknownExit;
      }
      const auto data = bytes_at(run_, io.data_offset, length);
      if (io.direction == KVM_EXIT_IO_IN) {
        handler.port_read(io.port, io.size, data);
      } else {
        handler.port_write(io.port, io.size, data);
      }
      return VcpuEvent::kAccess;
    }
    case KVM_EXIT_MMIO: {
      auto& mmio = run_->mmio;
      const auto length = std::min<std::size_t>(mmio.len, sizeof mmio.data);
      if (mmio.is_write != 0) {
        handler.memory_write(mmio.phys_addr, std::span<const std::uint8_t>(mmio.data, length));
      } else {
        handler.memory_read(mmio.phys_addr, std::span<std::uint8_t>(mmio.data, length));
      }
      return VcpuEvent::kAccess;
    }
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_SET_TPR:
    case KVM_EXIT_TPR_ACCESS:
    case KVM_EXIT_IOAPIC_EOI: return VcpuEvent::kInterrupted;
    case KVM_EXIT_HLT: return VcpuEvent::kHalted;
    case KVM_EXIT_SHUTDOWN: detail_ = "triple fault"; return VcpuEvent::kTripleFault;
    case KVM_EXIT_SYSTEM_EVENT:
      detail_ = fmt::format("system event {}", run_->system_event.type);
      return VcpuEvent::kUnknownExit;
    case KVM_EXIT_FAIL_ENTRY:
      detail_ =
          fmt::format("failed entry, hardware reason {:#x}", run_->fail_entry.hardware_entry_failure_reason);
      return VcpuEvent::kFailedEntry;
    case KVM_EXIT_INTERNAL_ERROR:
      detail_ = fmt::format("KVM internal error, suberror {} ({})", run_->internal.suberror,
                            suberror_name(run_->internal.suberror));
      return VcpuEvent::kCannotEmulate;
    default:
      detail_ = fmt::format("exit reason {} that this program does not know", run_->exit_reason);
      return VcpuEvent::kUnknownExit;
  }
}

void Vcpu::kick(pthread_t thread) {
  // SAFETY: the kernel reads this byte at entry; a plain store would race with nothing but that read.
  __atomic_store_n(&run_->immediate_exit, std::uint8_t{1}, __ATOMIC_SEQ_CST);
  ::pthread_kill(thread, kKickSignal);
}

void Vcpu::clear_kick() { __atomic_store_n(&run_->immediate_exit, std::uint8_t{0}, __ATOMIC_SEQ_CST); }

void Vcpu::complete_access() {
  __atomic_store_n(&run_->immediate_exit, std::uint8_t{1}, __ATOMIC_SEQ_CST);
  ::ioctl(fd_.get(), KVM_RUN, 0);
}

void Vcpu::reset() {
  const int fd = fd_.get();
  ::ioctl(fd, KVM_SET_LAPIC, &power_on_->lapic);
  // After a triple fault on an AMD host KVM has emptied the VMCB, the root of the nested page tables with it,
  // and sets that root again only when CR0 changes. So CR0 goes by way of another value; else the guest
  // faults for ever.
  kvm_sregs sregs = power_on_->sregs;
  sregs.cr0 = 0x10;  // ET; the reset value has CD and NW too
  ::ioctl(fd, KVM_SET_SREGS, &sregs);
  ::ioctl(fd, KVM_SET_SREGS, &power_on_->sregs);
  ::ioctl(fd, KVM_SET_REGS, &power_on_->regs);
  ::ioctl(fd, KVM_SET_FPU, &power_on_->fpu);
  kvm_debugregs debug{};
  debug.dr6 = 0xFFFF0FF0;
  debug.dr7 = 0x400;
  ::ioctl(fd, KVM_SET_DEBUGREGS, &debug);
  alignas(kvm_msrs) std::array<std::uint8_t, sizeof(kvm_msrs) + sizeof(kvm_msr_entry)> buffer{};
  auto* msr = reinterpret_cast<kvm_msrs*>(buffer.data());
  for (const auto& [number, value] : kResetMsrs) {  // one by one: a host may lack some of them
    msr->nmsrs = 1;
    msr->entries[0] = {.index = number, .reserved = 0, .data = value};
    ::ioctl(fd, KVM_SET_MSRS, msr);
  }
  ::ioctl(fd, KVM_SET_VCPU_EVENTS, &power_on_->events);
  ::ioctl(fd, KVM_SET_MP_STATE, &power_on_->mp_state);
}

Result<void> Vcpu::enter_protected(const ProtectedEntry& entry) {
  kvm_sregs sregs = power_on_->sregs;
  const auto flat = [](std::uint16_t selector, std::uint8_t type) {
    kvm_segment segment{};
    segment.limit = 0xFFFFFFFF;
    segment.selector = selector;
    segment.type = type;
    segment.present = segment.s = segment.db = segment.g = 1;
    return segment;
  };
  sregs.cs = flat(entry.code_selector, 11);  // execute, read, accessed
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss =
      flat(entry.data_selector, 3);  // read, write, accessed
  sregs.gdt.base = entry.gdt_address;
  sregs.gdt.limit = entry.gdt_limit;
  sregs.cr0 = 0x11;  // PE, ET
  sregs.cr4 = 0;
  kvm_regs regs{};
  regs.rip = entry.eip;
  regs.rsp = entry.esp;
  regs.rax = entry.eax;
  regs.rbx = entry.ebx;
  regs.rsi = entry.esi;
  regs.rflags = 2;
  if (::ioctl(fd_.get(), KVM_SET_SREGS, &sregs) != 0 || ::ioctl(fd_.get(), KVM_SET_REGS, &regs) != 0) {
    return fail_errno(errno, "/dev/kvm: setting the start registers");
  }
  return {};
}

void Vcpu::inject_nmi() { ::ioctl(fd_.get(), KVM_NMI, 0); }

std::optional<std::uint64_t> Vcpu::translate(std::uint64_t linear) const {
  kvm_translation place{};
  place.linear_address = linear;
  if (::ioctl(fd_.get(), KVM_TRANSLATE, &place) != 0 || place.valid == 0) {
    return std::nullopt;
  }
  return place.physical_address;
}

bool Vcpu::halted_for_good() const {
  constexpr std::uint64_t kInterruptFlag = 0x200;
  kvm_mp_state state{};
  kvm_regs registers{};
  if (::ioctl(fd_.get(), KVM_GET_MP_STATE, &state) != 0 ||
      ::ioctl(fd_.get(), KVM_GET_REGS, &registers) != 0) {
    return false;
  }
  return state.mp_state == KVM_MP_STATE_UNINITIALIZED ||
         (state.mp_state == KVM_MP_STATE_HALTED && (registers.rflags & kInterruptFlag) == 0);
}

std::string Vcpu::describe(const AddressSpace& memory) const {
  kvm_regs r{};
  kvm_sregs s{};
  if (::ioctl(fd_.get(), KVM_GET_REGS, &r) != 0 || ::ioctl(fd_.get(), KVM_GET_SREGS, &s) != 0) {
    return fmt::format("CPU {}: registers cannot be read\n", index_);
  }
  std::string text = fmt::format(
      "CPU {}\n"
      "  rax {:016x}  rbx {:016x}  rcx {:016x}  rdx {:016x}\n"
      "  rsi {:016x}  rdi {:016x}  rbp {:016x}  rsp {:016x}\n"
      "  r8  {:016x}  r9  {:016x}  r10 {:016x}  r11 {:016x}\n"
      "  r12 {:016x}  r13 {:016x}  r14 {:016x}  r15 {:016x}\n"
      "  rip {:016x}  rflags {:08x}\n",
      index_, r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13,
      r.r14, r.r15, r.rip, r.rflags);
  if (r.rip == power_on_->regs.rip && s.cs.base == power_on_->sregs.cs.base) {
    text += "  (the state after a reset: at a triple fault, KVM on an AMD host keeps nothing else)\n";
  }
  const auto segment = [](std::string_view name, const kvm_segment& seg) {
    return fmt::format("  {} {:04x} base {:016x} limit {:08x} type {:x}\n", name, seg.selector, seg.base,
                       seg.limit, seg.type);
  };
  text += segment("cs ", s.cs) + segment("ds ", s.ds) + segment("es ", s.es) + segment("fs ", s.fs) +
          segment("gs ", s.gs) + segment("ss ", s.ss) + segment("tr ", s.tr) + segment("ldt", s.ldt);
  text += fmt::format(
      "  gdt {:016x}/{:04x}  idt {:016x}/{:04x}\n  cr0 {:08x}  cr2 {:016x}  cr3 {:016x}  cr4 {:08x}  efer "
      "{:x}\n",
      s.gdt.base, s.gdt.limit, s.idt.base, s.idt.limit, s.cr0, s.cr2, s.cr3, s.cr4, s.efer);
  kvm_translation place{};
  place.linear_address = s.cs.base + r.rip;
  std::array<std::uint8_t, 16> code{};
  if (::ioctl(fd_.get(), KVM_TRANSLATE, &place) == 0 && place.valid != 0 &&
      memory.peek(place.physical_address, code)) {
    text += fmt::format("  code at {:#x}: {:02x}\n", place.linear_address, fmt::join(code, " "));
  } else {
    text += fmt::format("  code at {:#x}: not readable\n", place.linear_address);
  }
  return text;
}

void Vcpu::drain_coalesced(ExitHandler& handler) {
  if (coalesced_offset_ == 0) {
    return;
  }
  // SAFETY: the ring is one page of the shared region that only the kernel and, under the machine lock, we
  // change.
  auto* ring = reinterpret_cast<kvm_coalesced_mmio_ring*>(bytes_at(run_, coalesced_offset_, kPage).data());
  constexpr std::uint32_t kEntries = (kPage - sizeof(kvm_coalesced_mmio_ring)) / sizeof(kvm_coalesced_mmio);
  while (ring->first % kEntries != __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE) % kEntries) {
    const kvm_coalesced_mmio entry = ring->coalesced_mmio[ring->first % kEntries];
    const auto length = std::min<std::size_t>(entry.len, sizeof entry.data);
    const std::span<const std::uint8_t> data(entry.data, length);
    __atomic_store_n(&ring->first, (ring->first + 1) % kEntries, __ATOMIC_RELEASE);
    if (entry.pio != 0) {
      handler.port_write(static_cast<std::uint16_t>(entry.phys_addr), static_cast<unsigned>(length), data);
    } else {
      handler.memory_write(entry.phys_addr, data);
    }
  }
}

void install_kick_signal() {
  struct sigaction action{};
  action.sa_handler = [](int) {};
  ::sigaction(kKickSignal, &action, nullptr);  // no SA_RESTART: KVM_RUN must return
}

}  // namespace whistler

#include "vmm/kvm/vm.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/log.hpp"

#include "vmm/kvm/kvm_abi.hpp"

namespace whistler {
namespace {

constexpr int kApiVersion = 12;
constexpr std::size_t kMaxCpuidEntries = 256;
// Three pages for Intel's task state and one for its identity map, just below the BIOS, where no RAM or BAR
// may be.
constexpr std::uint64_t kIdentityMapAddress = 0xFEFFC000;
constexpr unsigned long kTssAddress = 0xFEFFD000;

struct Needed {
  int capability;
  std::string_view name;
};
constexpr std::array kNeeded = std::to_array<Needed>({
    {KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},
    {KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"},
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
    {KVM_CAP_PIT2, "KVM_CAP_PIT2"},
    {KVM_CAP_PIT_STATE2, "KVM_CAP_PIT_STATE2"},
    {KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR"},
    {KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
    {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
});

std::unexpected<Error> open_failure(int errnum) {
  switch (errnum) {
    case ENOENT:
      return fail(ErrorCode::kUnsupported,
                  "/dev/kvm: does not exist; load the module kvm_intel or kvm_amd, and switch on "
                  "virtualisation (VT-x, AMD-V) in "
                  "the host's firmware, or nested virtualisation if the host is itself a guest");
    case EACCES:
    case EPERM:
      return fail(ErrorCode::kPermission,
                  "/dev/kvm: permission denied; add this user to the group kvm (`usermod -aG kvm USER`, then "
                  "log in again)");
    default: return fail_errno(errnum, "/dev/kvm: cannot be opened");
  }
}

// GSIs 0 to 15 reach both PICs and the I/O APIC, 16 to 23 the I/O APIC alone. The timer's IRQ 0 is at the I/O
// APIC's input 2, where the MADT's override says it is; input 2 of the PIC is the cascade and has no wire.
bool route_gsis(int vm_fd) {
  constexpr std::uint32_t kIoApicInputs = 24;
  constexpr std::size_t kRoutes = 15 + 23;
  alignas(kvm_irq_routing)
      std::array<std::uint8_t, sizeof(kvm_irq_routing) + kRoutes * sizeof(kvm_irq_routing_entry)>
          buffer{};
  auto* routing = reinterpret_cast<kvm_irq_routing*>(buffer.data());
  const auto add = [routing](std::uint32_t gsi, std::uint32_t chip, std::uint32_t pin) {
    auto& entry = routing->entries[routing->nr++];
    entry.gsi = gsi;
    entry.type = KVM_IRQ_ROUTING_IRQCHIP;
    entry.u.irqchip = {.irqchip = chip, .pin = pin};
  };
  for (std::uint32_t gsi = 0; gsi < 16; ++gsi) {
    if (gsi != 2) {
      add(gsi, gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, gsi % 8);
    }
  }
  for (std::uint32_t gsi = 0; gsi < kIoApicInputs; ++gsi) {
    if (gsi != 2) {
      add(gsi, KVM_IRQCHIP_IOAPIC, gsi == 0 ? 2 : gsi);
    }
  }
  return ::ioctl(vm_fd, KVM_SET_GSI_ROUTING, routing) == 0;
}

}  // namespace

Result<Kvm> Kvm::open() {
  UniqueFd fd(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!fd) {
    return open_failure(errno);
  }
  const int version = ::ioctl(fd.get(), KVM_GET_API_VERSION, 0);
  if (version != kApiVersion) {
    return fail(ErrorCode::kUnsupported,
                version < 0 ? "/dev/kvm: is not KVM"
                            : fmt::format("/dev/kvm: API version {} where {} is needed; use another kernel",
                                          version, kApiVersion));
  }
  for (const auto& needed : kNeeded) {
    if (::ioctl(fd.get(), KVM_CHECK_EXTENSION, needed.capability) <= 0) {
      return fail(
          ErrorCode::kUnsupported,
          fmt::format(
              "/dev/kvm: this kernel's KVM lacks {}; use Linux 4.12 or later with in-kernel irqchip support",
              needed.name));
    }
  }
  const int mmap_size = ::ioctl(fd.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
  if (mmap_size < static_cast<int>(sizeof(kvm_run))) {
    return fail_errno(errno, "/dev/kvm: KVM_GET_VCPU_MMAP_SIZE");
  }
  return Kvm(std::move(fd), static_cast<std::size_t>(mmap_size));
}

int Kvm::extension(int capability) const {
  const int value = ::ioctl(fd_.get(), KVM_CHECK_EXTENSION, capability);
  return value < 0 ? 0 : value;
}

Result<std::vector<CpuidEntry>> Kvm::supported_cpuid() const {
  std::vector<std::uint8_t> buffer(sizeof(kvm_cpuid2) + kMaxCpuidEntries * sizeof(kvm_cpuid_entry2));
  auto* list = reinterpret_cast<kvm_cpuid2*>(buffer.data());
  list->nent = kMaxCpuidEntries;
  if (::ioctl(fd_.get(), KVM_GET_SUPPORTED_CPUID, list) != 0) {
    return fail_errno(errno, "/dev/kvm: KVM_GET_SUPPORTED_CPUID");
  }
  std::vector<CpuidEntry> entries;
  entries.reserve(list->nent);
  for (std::uint32_t i = 0; i < list->nent; ++i) {
    const kvm_cpuid_entry2& e = list->entries[i];
    entries.push_back(
        {e.function, e.index, (e.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0, e.eax, e.ebx, e.ecx, e.edx});
  }
  // The local APIC is the kernel's, so its deadline timer is there although KVM does not list it on every
  // version.
  if (extension(KVM_CAP_TSC_DEADLINE_TIMER) > 0) {
    for (auto& entry : entries) {
      if (entry.function == 1) {
        entry.ecx |= 1U << 24;
      }
    }
  }
  return entries;
}

struct Vm::ControllerState {
  std::array<kvm_irqchip, 3> chips{};
  kvm_pit_state2 pit{};
};

Vm::Vm(UniqueFd fd) : fd_(std::move(fd)), power_on_(std::make_unique<ControllerState>()) {}
Vm::~Vm() = default;

Result<std::unique_ptr<Vm>> Vm::create(const Kvm& kvm) {
  int vm_fd = -1;
  do {
    vm_fd = ::ioctl(kvm.fd(), KVM_CREATE_VM, 0);
  } while (vm_fd < 0 && errno == EINTR);
  if (vm_fd < 0) {
    return fail_errno(errno, "/dev/kvm: KVM_CREATE_VM");
  }
  std::unique_ptr<Vm> vm(new Vm(UniqueFd(vm_fd)));
  auto identity = kIdentityMapAddress;
  if (::ioctl(vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) != 0) {
    return fail_errno(errno, "/dev/kvm: KVM_SET_IDENTITY_MAP_ADDR");
  }
  if (::ioctl(vm_fd, KVM_SET_TSS_ADDR, kTssAddress) != 0) {
    return fail_errno(errno, "/dev/kvm: KVM_SET_TSS_ADDR");
  }
  if (::ioctl(vm_fd, KVM_CREATE_IRQCHIP, 0) != 0) {
    return fail_errno(errno, "/dev/kvm: KVM_CREATE_IRQCHIP");
  }
  if (!route_gsis(vm_fd)) {
    return fail_errno(errno, "/dev/kvm: KVM_SET_GSI_ROUTING");
  }
  kvm_pit_config pit{};
  pit.flags =
      KVM_PIT_SPEAKER_DUMMY;  // port 0x61 belongs to the kernel's PIT, which alone knows channel 2's output
  if (::ioctl(vm_fd, KVM_CREATE_PIT2, &pit) != 0) {
    return fail_errno(errno, "/dev/kvm: KVM_CREATE_PIT2");
  }
  kvm_reinject_control reinject{};
  reinject.pit_reinject = 1;  // PIC HALs of Windows count PIT ticks: none may be lost
  if (kvm.extension(KVM_CAP_REINJECT_CONTROL) > 0) {
    ::ioctl(vm_fd, KVM_REINJECT_CONTROL, &reinject);
  }
  for (std::uint32_t chip = 0; chip < vm->power_on_->chips.size(); ++chip) {
    vm->power_on_->chips[chip].chip_id = chip;
    if (::ioctl(vm_fd, KVM_GET_IRQCHIP, &vm->power_on_->chips[chip]) != 0) {
      return fail_errno(errno, "/dev/kvm: KVM_GET_IRQCHIP");
    }
  }
  if (::ioctl(vm_fd, KVM_GET_PIT2, &vm->power_on_->pit) != 0) {
    return fail_errno(errno, "/dev/kvm: KVM_GET_PIT2");
  }
  vm->coalesced_ports_ = kvm.extension(KVM_CAP_COALESCED_PIO) > 0;
  return vm;
}

bool Vm::set_slot(unsigned slot, std::uint64_t address, std::span<std::uint8_t> memory,
                  MemoryMapper::Access access) {
  kvm_userspace_memory_region region{};
  region.slot = slot;
  region.guest_phys_addr = address;
  region.memory_size = memory.size();
  region.userspace_addr = reinterpret_cast<std::uint64_t>(memory.data());
  region.flags = access == MemoryMapper::Access::kReadOnly ? KVM_MEM_READONLY
                 : access == MemoryMapper::Access::kLogged ? KVM_MEM_LOG_DIRTY_PAGES
                                                           : 0U;
  if (::ioctl(fd_.get(), KVM_SET_USER_MEMORY_REGION, &region) != 0) {
    log(LogLevel::kDebug,
        fmt::format("KVM_SET_USER_MEMORY_REGION slot {} at {:#x}: {}", slot, address, std::strerror(errno)));
    return false;
  }
  if (slot >= slot_bytes_.size()) {
    slot_bytes_.resize(slot + 1);
  }
  slot_bytes_[slot] = memory.size();
  return true;
}

void Vm::clear_slot(unsigned slot) {
  kvm_userspace_memory_region region{};
  region.slot = slot;
  ::ioctl(fd_.get(), KVM_SET_USER_MEMORY_REGION, &region);
  slot_bytes_[slot] = 0;
}

void Vm::collect_dirty(unsigned slot, std::span<std::uint64_t> bitmap) {
  if (slot >= slot_bytes_.size() || slot_bytes_[slot] == 0) {
    return;
  }
  const auto words = (slot_bytes_[slot] / MemoryMapper::kPageSize + 63) / 64;
  dirty_.assign(words, 0);
  kvm_dirty_log request{};
  request.slot = slot;
  request.dirty_bitmap = dirty_.data();
  if (::ioctl(fd_.get(), KVM_GET_DIRTY_LOG, &request) != 0) {
    dirty_.assign(words, ~std::uint64_t{0});  // cannot tell: everything
  }
  for (std::size_t i = 0; i < std::min(words, bitmap.size()); ++i) {
    bitmap[i] |= dirty_[i];
  }
}

void Vm::set_irq(unsigned input, bool level) {
  kvm_irq_level request{};
  request.irq = input;
  request.level = level ? 1 : 0;
  ::ioctl(fd_.get(), KVM_IRQ_LINE, &request);
}

void Vm::coalesce_memory(std::uint64_t address, std::uint32_t length) {
  kvm_coalesced_mmio_zone zone{};
  zone.addr = address;
  zone.size = length;
  ::ioctl(fd_.get(), KVM_REGISTER_COALESCED_MMIO, &zone);
}

void Vm::coalesce_port(std::uint16_t port, std::uint32_t length) {
  if (!coalesced_ports_) {
    return;
  }
  kvm_coalesced_mmio_zone zone{};
  zone.addr = port;
  zone.size = length;
  zone.pio = 1;
  ::ioctl(fd_.get(), KVM_REGISTER_COALESCED_MMIO, &zone);
}

void Vm::reset_interrupt_controllers() {
  for (auto& chip : power_on_->chips) {
    ::ioctl(fd_.get(), KVM_SET_IRQCHIP, &chip);
  }
  ::ioctl(fd_.get(), KVM_SET_PIT2, &power_on_->pit);
}

}  // namespace whistler

// What CPU the guest sees: the host's, as far as KVM can virtualise it, with the topology and the feature
// switches of the machine description. Pure functions over CPUID entries; the ioctls are in vm.cpp. Sources:
// Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E; Linux Documentation/virt/kvm/x86/cpuid.rst.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace whistler {

/// One CPUID leaf as KVM takes it.
struct CpuidEntry {
  std::uint32_t function = 0;
  std::uint32_t index = 0;
  bool index_matters = false;
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

/// Feature switches by name ("pae": true). Names are those of /proc/cpuinfo and of QEMU: see
/// known_cpu_features().
using CpuFeatures = std::map<std::string, bool, std::less<>>;

[[nodiscard]] std::vector<std::string_view> known_cpu_features();

/// Removes what is switched off and checks what is switched on. A feature asked for that the host does not
/// offer is an error naming it. NX is off unless switched on: XP-era guests take a PAE path with it that
/// fails to boot on some.
[[nodiscard]] Result<void> apply_cpu_features(std::vector<CpuidEntry>& entries, const CpuFeatures& features);

/// The entries for virtual CPU `cpu` of `cores`, which appear as cores of one socket (XP licenses sockets).
/// APIC id = cpu.
[[nodiscard]] std::vector<CpuidEntry> cpuid_for(std::span<const CpuidEntry> entries, unsigned cpu,
                                                unsigned cores);

/// How many bits a guest-physical address has on this host (leaf 0x80000008; 36 where that is missing): RAM
/// beyond cannot be mapped.
[[nodiscard]] unsigned physical_address_bits(std::span<const CpuidEntry> entries);

}  // namespace whistler

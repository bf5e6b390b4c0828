#include "vmm/kvm/cpuid.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>

namespace whistler {
namespace {

enum class Register : std::uint8_t { kEax, kEbx, kEcx, kEdx };

struct Feature {
  std::string_view name;
  std::uint32_t function;
  Register where;
  unsigned bit;
  std::uint32_t index = 0;
};

constexpr std::uint32_t kBasic = 1;
constexpr std::uint32_t kStructured = 7;
constexpr std::uint32_t kExtended = 0x80000001;
constexpr std::uint32_t kKvmFeatures = 0x40000001;

constexpr std::array kFeatures = std::to_array<Feature>({
    {"fpu", kBasic, Register::kEdx, 0},
    {"vme", kBasic, Register::kEdx, 1},
    {"de", kBasic, Register::kEdx, 2},
    {"pse", kBasic, Register::kEdx, 3},
    {"tsc", kBasic, Register::kEdx, 4},
    {"msr", kBasic, Register::kEdx, 5},
    {"pae", kBasic, Register::kEdx, 6},
    {"mce", kBasic, Register::kEdx, 7},
    {"cx8", kBasic, Register::kEdx, 8},
    {"apic", kBasic, Register::kEdx, 9},
    {"sep", kBasic, Register::kEdx, 11},
    {"mtrr", kBasic, Register::kEdx, 12},
    {"pge", kBasic, Register::kEdx, 13},
    {"mca", kBasic, Register::kEdx, 14},
    {"cmov", kBasic, Register::kEdx, 15},
    {"pat", kBasic, Register::kEdx, 16},
    {"pse36", kBasic, Register::kEdx, 17},
    {"clflush", kBasic, Register::kEdx, 19},
    {"mmx", kBasic, Register::kEdx, 23},
    {"fxsr", kBasic, Register::kEdx, 24},
    {"sse", kBasic, Register::kEdx, 25},
    {"sse2", kBasic, Register::kEdx, 26},
    {"sse3", kBasic, Register::kEcx, 0},
    {"pclmulqdq", kBasic, Register::kEcx, 1},
    {"vmx", kBasic, Register::kEcx, 5},
    {"ssse3", kBasic, Register::kEcx, 9},
    {"fma", kBasic, Register::kEcx, 12},
    {"cx16", kBasic, Register::kEcx, 13},
    {"pcid", kBasic, Register::kEcx, 17},
    {"sse4.1", kBasic, Register::kEcx, 19},
    {"sse4.2", kBasic, Register::kEcx, 20},
    {"x2apic", kBasic, Register::kEcx, 21},
    {"movbe", kBasic, Register::kEcx, 22},
    {"popcnt", kBasic, Register::kEcx, 23},
    {"tsc-deadline", kBasic, Register::kEcx, 24},
    {"aes", kBasic, Register::kEcx, 25},
    {"xsave", kBasic, Register::kEcx, 26},
    {"avx", kBasic, Register::kEcx, 28},
    {"f16c", kBasic, Register::kEcx, 29},
    {"rdrand", kBasic, Register::kEcx, 30},
    {"hypervisor", kBasic, Register::kEcx, 31},
    {"fsgsbase", kStructured, Register::kEbx, 0},
    {"bmi1", kStructured, Register::kEbx, 3},
    {"avx2", kStructured, Register::kEbx, 5},
    {"smep", kStructured, Register::kEbx, 7},
    {"bmi2", kStructured, Register::kEbx, 8},
    {"erms", kStructured, Register::kEbx, 9},
    {"invpcid", kStructured, Register::kEbx, 10},
    {"avx512f", kStructured, Register::kEbx, 16},
    {"rdseed", kStructured, Register::kEbx, 18},
    {"adx", kStructured, Register::kEbx, 19},
    {"smap", kStructured, Register::kEbx, 20},
    {"clflushopt", kStructured, Register::kEbx, 23},
    {"sha-ni", kStructured, Register::kEbx, 29},
    {"umip", kStructured, Register::kEcx, 2},
    {"la57", kStructured, Register::kEcx, 16},
    {"syscall", kExtended, Register::kEdx, 11},
    {"nx", kExtended, Register::kEdx, 20},
    {"fxsr-opt", kExtended, Register::kEdx, 25},
    {"pdpe1gb", kExtended, Register::kEdx, 26},
    {"rdtscp", kExtended, Register::kEdx, 27},
    {"lm", kExtended, Register::kEdx, 29},
    {"svm", kExtended, Register::kEcx, 2},
    {"topoext", kExtended, Register::kEcx, 22},
    {"kvmclock", kKvmFeatures, Register::kEax, 3},
    {"kvm-asyncpf", kKvmFeatures, Register::kEax, 4},
    {"kvm-steal-time", kKvmFeatures, Register::kEax, 5},
    {"kvm-pv-eoi", kKvmFeatures, Register::kEax, 6},
});

std::uint32_t& register_of(CpuidEntry& entry, Register where) {
  switch (where) {
    case Register::kEax: return entry.eax;
    case Register::kEbx: return entry.ebx;
    case Register::kEcx: return entry.ecx;
    case Register::kEdx: break;
  }
  return entry.edx;
}

CpuidEntry* find(std::vector<CpuidEntry>& entries, std::uint32_t function, std::uint32_t index = 0) {
  const auto found = std::ranges::find_if(entries, [&](const CpuidEntry& e) {
    return e.function == function && (!e.index_matters || e.index == index);
  });
  return found == entries.end() ? nullptr : &*found;
}

void switch_off(std::vector<CpuidEntry>& entries, const Feature& feature) {
  if (CpuidEntry* entry = find(entries, feature.function, feature.index); entry != nullptr) {
    register_of(*entry, feature.where) &= ~(1U << feature.bit);
  }
  // AMD repeats the low 24 feature bits of leaf 1 in leaf 0x80000001.
  constexpr std::uint32_t kMirrored = 0x0183F3FF;
  if (feature.function == kBasic && feature.where == Register::kEdx &&
      ((kMirrored >> feature.bit) & 1) != 0) {
    if (CpuidEntry* entry = find(entries, kExtended); entry != nullptr) {
      entry->edx &= ~(1U << feature.bit);
    }
  }
}

void set_field(std::uint32_t& value, unsigned first, unsigned count, std::uint32_t field) {
  const std::uint32_t mask = ((1U << count) - 1) << first;
  value = (value & ~mask) | ((field << first) & mask);
}

// Leaves 4 (Intel) and 0x8000001D (AMD): level 1 and 2 caches are each core's own, level 3 is everybody's.
void share_cache(CpuidEntry& entry, unsigned cores, bool intel) {
  const std::uint32_t type = entry.eax & 0x1F;
  if (type == 0) {
    return;
  }
  const std::uint32_t level = (entry.eax >> 5) & 7;
  set_field(entry.eax, 14, 12, level >= 3 ? std::bit_ceil(cores) - 1 : 0);
  if (intel) {
    set_field(entry.eax, 26, 6, std::bit_ceil(cores) - 1);
  }
}

// Leaves 0xB and 0x1F: one thread a core, then the cores of the one package.
void extended_topology(CpuidEntry& entry, unsigned cpu, unsigned cores) {
  constexpr std::uint32_t kThreads = 1;
  constexpr std::uint32_t kCores = 2;
  entry.edx = cpu;
  entry.ecx = entry.index & 0xFF;
  if (entry.index == 0) {
    entry.eax = 0;
    entry.ebx = 1;
    entry.ecx |= kThreads << 8;
  } else if (entry.index == 1) {
    entry.eax = static_cast<std::uint32_t>(std::bit_width(cores - 1));
    entry.ebx = cores;
    entry.ecx |= kCores << 8;
  } else {
    entry.eax = entry.ebx = 0;
  }
}

}  // namespace

std::vector<std::string_view> known_cpu_features() {
  std::vector<std::string_view> names;
  for (const auto& feature : kFeatures) {
    names.push_back(feature.name);
  }
  return names;
}

Result<void> apply_cpu_features(std::vector<CpuidEntry>& entries, const CpuFeatures& features) {
  for (const auto& feature : kFeatures) {
    const auto wanted = features.find(feature.name);
    if (wanted == features.end()) {
      if (feature.name == "nx") {
        switch_off(entries, feature);
      }
      continue;
    }
    if (!wanted->second) {
      switch_off(entries, feature);
      continue;
    }
    CpuidEntry* entry = find(entries, feature.function, feature.index);
    if (entry == nullptr || (register_of(*entry, feature.where) & (1U << feature.bit)) == 0) {
      return fail(ErrorCode::kUnsupported, fmt::format("cpu.features.{}: this host's CPU and KVM do not "
                                                       "offer it; remove the switch or set it to false",
                                                       feature.name));
    }
  }
  return {};
}

std::vector<CpuidEntry> cpuid_for(std::span<const CpuidEntry> entries, unsigned cpu, unsigned cores) {
  std::vector<CpuidEntry> result(entries.begin(), entries.end());
  bool has_cores_level = false;
  for (CpuidEntry& entry : result) {
    switch (entry.function) {
      case kBasic: {
        constexpr std::uint32_t kHtt = 1U << 28;
        set_field(entry.ebx, 16, 8, cores > 1 ? std::bit_ceil(cores) : 1);
        set_field(entry.ebx, 24, 8, cpu);
        entry.edx = cores > 1 ? entry.edx | kHtt : entry.edx & ~kHtt;
        break;
      }
      case 4: share_cache(entry, cores, true); break;
      case 0xB:
      case 0x1F:
        extended_topology(entry, cpu, cores);
        has_cores_level = has_cores_level || (entry.function == 0xB && entry.index == 1);
        break;
      case kExtended: {
        constexpr std::uint32_t kCmpLegacy = 1U << 1;  // AMD: the logical CPUs of leaf 1 are cores
        const bool amd = (entry.ecx & kCmpLegacy) != 0 || (entry.edx & (1U << 31)) != 0;
        entry.ecx &= ~kCmpLegacy;
        if (cores > 1 && amd) {
          entry.ecx |= kCmpLegacy;
        }
        break;
      }
      case 0x80000008:
        set_field(entry.ecx, 0, 8, cores - 1);
        set_field(entry.ecx, 12, 4, static_cast<std::uint32_t>(std::bit_width(cores - 1)));
        break;
      case 0x8000001D: share_cache(entry, cores, false); break;
      case 0x8000001E:
        entry.eax = cpu;
        entry.ebx = cpu;  // core id, one thread a core
        entry.ecx = 0;    // node 0 of one
        break;
      default: break;
    }
  }
  // KVM lists only the sub-leaves the host has; a host with one thread a core may end before the core level.
  if (!has_cores_level && find(result, 0xB) != nullptr) {
    CpuidEntry level{.function = 0xB, .index = 1, .index_matters = true};
    extended_topology(level, cpu, cores);
    result.push_back(level);
  }
  return result;
}

unsigned physical_address_bits(std::span<const CpuidEntry> entries) {
  constexpr unsigned kWithoutTheLeaf = 36;
  for (const auto& entry : entries) {
    if (entry.function == 0x80000008 && (entry.eax & 0xFF) != 0) {
      return entry.eax & 0xFF;
    }
  }
  return kWithoutTheLeaf;
}

}  // namespace whistler

#include "vmm/kvm/cpuid.hpp"

#include <catch2/catch.hpp>

using namespace whistler;

namespace {

const CpuidEntry* leaf(const std::vector<CpuidEntry>& entries, std::uint32_t function,
                       std::uint32_t index = 0) {
  for (const auto& entry : entries) {
    if (entry.function == function && entry.index == index) {
      return &entry;
    }
  }
  return nullptr;
}

std::vector<CpuidEntry> host() {
  return {
      {.function = 1, .ebx = 0x07100800, .ecx = 0, .edx = 0x178BFBFF},
      {.function = 4, .index = 0, .index_matters = true, .eax = 0xFC004121},
      {.function = 4, .index = 3, .index_matters = true, .eax = 0xFC1FC163},
      {.function = 0xB, .index = 0, .index_matters = true, .eax = 1, .ebx = 2, .ecx = 0x100},
      {.function = 0x80000001, .edx = 0x2FD3FBFF},
      {.function = 0x80000008, .ecx = 0x400F},
  };
}

}  // namespace

TEST_CASE("two_cpus_are_cores_of_one_socket", "[cpuid]") {
  const auto entries = cpuid_for(host(), 1, 2);
  REQUIRE((leaf(entries, 1)->ebx >> 24) == 1);           // APIC id
  REQUIRE(((leaf(entries, 1)->ebx >> 16) & 0xFF) == 2);  // logical CPUs in the package
  REQUIRE((leaf(entries, 1)->edx & (1U << 28)) != 0);
  REQUIRE((leaf(entries, 4)->eax >> 26) == 1);            // cores - 1
  REQUIRE(((leaf(entries, 4)->eax >> 14) & 0xFFF) == 0);  // level 1: not shared
  REQUIRE(((leaf(entries, 4, 3)->eax >> 14) & 0xFFF) == 1);
  REQUIRE(leaf(entries, 0xB, 1)->ebx == 2);
  REQUIRE(leaf(entries, 0xB, 1)->ecx == 0x201);
  REQUIRE((leaf(entries, 0x80000008)->ecx & 0xFF) == 1);
}

TEST_CASE("one_cpu_has_no_htt", "[cpuid]") {
  const auto entries = cpuid_for(host(), 0, 1);
  REQUIRE((leaf(entries, 1)->edx & (1U << 28)) == 0);
  REQUIRE(((leaf(entries, 1)->ebx >> 16) & 0xFF) == 1);
}

TEST_CASE("nx_is_masked_unless_asked_for", "[cpuid]") {
  auto entries = host();
  REQUIRE(apply_cpu_features(entries, {}).has_value());
  REQUIRE((leaf(entries, 0x80000001)->edx & (1U << 20)) == 0);
  entries = host();
  REQUIRE(apply_cpu_features(entries, {{"nx", true}}).has_value());
  REQUIRE((leaf(entries, 0x80000001)->edx & (1U << 20)) != 0);
}

TEST_CASE("switched_off_feature_goes_from_both_leaves", "[cpuid]") {
  auto entries = host();
  REQUIRE(apply_cpu_features(entries, {{"pae", false}}).has_value());
  REQUIRE((leaf(entries, 1)->edx & (1U << 6)) == 0);
  REQUIRE((leaf(entries, 0x80000001)->edx & (1U << 6)) == 0);
}

TEST_CASE("feature_the_host_lacks_is_named", "[cpuid]") {
  auto entries = host();
  const auto result = apply_cpu_features(entries, {{"avx", true}});
  REQUIRE_FALSE(result.has_value());
  REQUIRE(result.error().message.find("cpu.features.avx") != std::string::npos);
}

TEST_CASE("physical_address_bits_come_from_leaf_80000008", "[cpuid]") {
  const std::vector<CpuidEntry> entries = {{.function = 0x80000008, .eax = 0x3028}};
  REQUIRE(physical_address_bits(entries) == 40);
}

TEST_CASE("physical_address_bits_without_the_leaf_are_36", "[cpuid]") {
  REQUIRE(physical_address_bits({}) == 36);
}

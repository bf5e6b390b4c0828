#include "vmm/low_memory.hpp"

#include <catch2/catch.hpp>
#include <vector>

#include "vmm/address_space.hpp"

using namespace whistler;

namespace {

constexpr std::uint64_t kMegabyte = 1 << 20;

struct Fixture {
  std::vector<std::uint8_t> ram = std::vector<std::uint8_t>(2 * kMegabyte, 0x11);
  std::vector<std::uint8_t> bios = std::vector<std::uint8_t>(256 * 1024, 0x22);
  Bus bus{"memory"};
  AddressSpace space{bus, nullptr};
  LowMemory low{space, 10, ram, bios};
  Fixture() { REQUIRE(low.attach(bus).has_value()); }

  std::uint64_t read(std::uint64_t address) { return space.read(address, 1); }
  /// Whether a write arrives in RAM.
  bool stores(std::uint64_t address) {
    ram[address] = 0x11;
    space.write(address, 1, 0x99);
    const bool stored = ram[address] == 0x99;
    ram[address] = 0x11;
    return stored;
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "after_reset_the_bios_ends_at_one_megabyte_and_nothing_stores", "[low_memory]") {
  REQUIRE(read(0xC0000) == 0xFF);  // the bus
  REQUIRE(read(0xDFFFF) == 0xFF);
  REQUIRE(read(0xE0000) == 0x22);
  REQUIRE(read(0xFFFFF) == 0x22);
  REQUIRE_FALSE(stores(0xC0000));
  REQUIRE_FALSE(stores(0xFFFFF));
}

TEST_CASE_METHOD(Fixture, "each_segment_has_four_states", "[low_memory]") {
  for (unsigned segment = 0; segment <= 12; ++segment) {
    const std::uint64_t first = segment == 0 ? 0xF0000 : 0xC0000 + (segment - 1) * 0x4000;
    const std::uint64_t last = first + (segment == 0 ? 0xFFFF : 0x3FFF);
    for (const bool from_ram : {false, true}) {
      for (const bool to_ram : {false, true}) {
        low.set_shadow(segment, from_ram, to_ram);
        for (const auto address : {first, last}) {
          CAPTURE(segment, from_ram, to_ram, address);
          const unsigned elsewhere = address >= 0xE0000 ? 0x22 : 0xFF;
          REQUIRE(read(address) == (from_ram ? 0x11 : elsewhere));
          REQUIRE(stores(address) == to_ram);
        }
      }
    }
    low.set_shadow(segment, false, false);
  }
}

TEST_CASE_METHOD(Fixture, "neighbouring_segments_do_not_disturb_each_other", "[low_memory]") {
  low.set_shadow(3, true, true);
  REQUIRE(read(0xC8000 - 1) == 0xFF);
  REQUIRE(read(0xC8000) == 0x11);
  REQUIRE(read(0xCBFFF) == 0x11);
  REQUIRE(read(0xCC000) == 0xFF);
  REQUIRE_FALSE(stores(0xCC000));
}

TEST_CASE_METHOD(Fixture, "write_across_a_border_stores_what_may_be_stored", "[low_memory]") {
  low.set_shadow(1, false, true);
  space.write(0xC3FFE, 4, 0xDDCCBBAA);
  REQUIRE(ram[0xC3FFE] == 0xAA);
  REQUIRE(ram[0xC3FFF] == 0xBB);
  REQUIRE(ram[0xC4000] == 0x11);
}

TEST_CASE_METHOD(Fixture, "smram_is_seen_while_it_is_open", "[low_memory]") {
  REQUIRE(read(0xA0000) == 0xFF);
  low.set_smram_open(true);
  REQUIRE(read(0xA0000) == 0x11);
  REQUIRE(stores(0xBFFFF));
  low.set_smram_open(false);
  REQUIRE(read(0xBFFFF) == 0xFF);
}

TEST_CASE("small_bios_leaves_the_rest_to_the_bus", "[low_memory]") {
  std::vector<std::uint8_t> ram(kMegabyte, 0x11);
  std::vector<std::uint8_t> bios(64 * 1024, 0x22);
  Bus bus{"memory"};
  AddressSpace space{bus, nullptr};
  LowMemory low{space, 10, ram, bios};
  REQUIRE(low.attach(bus).has_value());
  REQUIRE(space.read(0xEFFFF, 1) == 0xFF);
  REQUIRE(space.read(0xF0000, 1) == 0x22);
}

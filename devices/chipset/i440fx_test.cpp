#include "devices/chipset/i440fx.hpp"

#include <catch2/catch.hpp>
#include <random>

using namespace whistler;

namespace {

struct Map final : ShadowControl {
  std::array<bool, I440fx::kSegments> reads{}, writes{};
  bool smram = false;
  unsigned calls = 0;
  void set_shadow(unsigned segment, bool read_dram, bool write_dram) override {
    reads.at(segment) = read_dram;
    writes.at(segment) = write_dram;
    ++calls;
  }
  void set_smram_open(bool open) override {
    smram = open;
    ++calls;
  }
};

struct Fixture {
  Map map;
  I440fx chip{map};
  [[nodiscard]] unsigned get(unsigned offset) const { return chip.config_read(offset, 1); }
  void set(unsigned offset, unsigned value) { chip.config_write(offset, 1, value); }
};

StateBytes saved(const I440fx& chip) {
  StateWriter writer;
  chip.save(writer);
  return writer.bytes();
}

}  // namespace

TEST_CASE_METHOD(Fixture, "i440fx_after_reset_identifies_itself", "[chipset]") {
  REQUIRE(chip.config_read(0, 4) == 0x12378086);
  REQUIRE(chip.config_read(kPciRevision, 4) == 0x06000002);
  REQUIRE(chip.config_read(kPciSubsystemVendor, 4) == 0x11001AF4);
  REQUIRE(chip.config_read(0x59, 4) == 0);
  REQUIRE(get(0x72) == 0x02);
  REQUIRE(map.calls == 0);
}

TEST_CASE_METHOD(Fixture, "i440fx_pam_each_nibble_steers_its_own_segment", "[chipset]") {
  for (unsigned segment = 0; segment < I440fx::kSegments; ++segment) {
    const unsigned reg = segment == 0 ? 0x59 : 0x5A + (segment - 1) / 2;
    const unsigned shift = segment == 0 || segment % 2 == 0 ? 4 : 0;
    for (const unsigned attributes : {3U, 1U, 2U, 0U}) {
      map.calls = 0;
      set(reg, attributes << shift);
      REQUIRE(map.reads[segment] == ((attributes & 1) != 0));
      REQUIRE(map.writes[segment] == ((attributes & 2) != 0));
      REQUIRE(map.calls == 1);
    }
  }
}

TEST_CASE_METHOD(Fixture, "i440fx_pam_written_with_the_same_attributes_calls_nobody", "[chipset]") {
  set(0x5A, 0x33);
  map.calls = 0;
  set(0x5A, 0xFF);  // the cache enable and reserved bits steer nothing
  REQUIRE(map.calls == 0);
  REQUIRE(get(0x5A) == 0xFF);
}

TEST_CASE_METHOD(Fixture, "i440fx_pam_wide_write_sets_all_segments_of_it", "[chipset]") {
  chip.config_write(0x5C, 4, 0x33333333);
  for (unsigned segment = 5; segment <= 12; ++segment) {
    REQUIRE(map.reads[segment]);
    REQUIRE(map.writes[segment]);
  }
  REQUIRE_FALSE(map.reads[4]);
  REQUIRE_FALSE(map.reads[0]);
}

TEST_CASE_METHOD(Fixture, "i440fx_smram_opens_with_D_OPEN_and_G_SMRAME", "[chipset]") {
  set(0x72, 0x42);
  REQUIRE_FALSE(map.smram);
  set(0x72, 0x4A);
  REQUIRE(map.smram);
  set(0x72, 0x0A);
  REQUIRE_FALSE(map.smram);
}

TEST_CASE_METHOD(Fixture, "i440fx_smram_locked_stays_closed_until_reset", "[chipset]") {
  set(0x72, 0x4A);
  set(0x72, 0x5A);
  REQUIRE_FALSE(map.smram);
  REQUIRE(get(0x72) == 0x1A);
  set(0x72, 0x4A);
  REQUIRE_FALSE(map.smram);
  REQUIRE(get(0x72) == 0x1A);
  chip.reset();
  set(0x72, 0x4A);
  REQUIRE(map.smram);
}

TEST_CASE_METHOD(Fixture, "i440fx_smram_base_segment_is_read_only", "[chipset]") {
  set(0x72, 0x85);
  REQUIRE(get(0x72) == 0x02);
}

TEST_CASE_METHOD(Fixture, "i440fx_reset_equals_a_fresh_chip_and_map", "[chipset]") {
  chip.config_write(0x59, 4, 0x33333333);
  set(0x72, 0x4A);
  chip.reset();
  Map other_map;
  REQUIRE(saved(chip) == saved(I440fx(other_map)));
  REQUIRE(map.reads == other_map.reads);
  REQUIRE_FALSE(map.smram);
}

TEST_CASE_METHOD(Fixture, "i440fx_load_restores_registers_map_and_lock", "[chipset]") {
  set(0x59, 0x30);
  set(0x5F, 0x12);
  set(0x72, 0x1A);
  const auto bytes = saved(chip);
  const Map before = map;
  chip.reset();
  set(0x5A, 0x11);
  REQUIRE(chip.load(StateReader(bytes)).has_value());
  REQUIRE(saved(chip) == bytes);
  REQUIRE(map.reads == before.reads);
  REQUIRE(map.writes == before.writes);
  set(0x72, 0x4A);
  REQUIRE_FALSE(map.smram);
}

TEST_CASE_METHOD(Fixture, "i440fx_load_of_short_state_fails_and_changes_nothing", "[chipset]") {
  auto bytes = saved(chip);
  bytes.pop_back();
  set(0x59, 0x30);
  const auto before = saved(chip);
  REQUIRE_FALSE(chip.load(StateReader(bytes)).has_value());
  REQUIRE(saved(chip) == before);
}

TEST_CASE_METHOD(Fixture, "i440fx_random_writes_keep_map_and_registers_together", "[chipset]") {
  auto random = [generator = std::mt19937(1)]() mutable { return static_cast<unsigned>(generator()); };
  for (unsigned i = 0; i < 5000; ++i) {
    const unsigned width = 1U << random() % 3;
    chip.config_write(random() % (257 - width), width, random());
    static_cast<void>(chip.config_read(random() % 253, 4));
    REQUIRE(chip.config_read(0, 4) == 0x12378086);
    REQUIRE(map.reads[0] == ((get(0x59) & 0x10) != 0));
    REQUIRE(map.writes[12] == ((get(0x5F) & 0x20) != 0));
  }
}

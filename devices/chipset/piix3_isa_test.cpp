#include "devices/chipset/piix3_isa.hpp"

#include <catch2/catch.hpp>
#include <random>

using namespace whistler;

namespace {

struct Fixture {
  IrqRecorder irqs;
  std::vector<ResetKind> resets;
  Piix3Isa chip{irqs, [this](ResetKind kind) { resets.push_back(kind); }};
  void route(unsigned pirq, unsigned value) { chip.config_write(0x60 + pirq, 1, value); }
};

StateBytes saved(const Piix3Isa& chip) {
  StateWriter writer;
  chip.save(writer);
  return writer.bytes();
}

}  // namespace

TEST_CASE_METHOD(Fixture, "piix3_after_reset_identifies_itself", "[chipset]") {
  REQUIRE(chip.config_read(0, 4) == 0x70008086);
  REQUIRE(chip.config_read(kPciRevision, 4) == 0x06010000);
  REQUIRE(chip.config_read(kPciHeaderType, 1) == 0x80);
  REQUIRE(chip.config_read(kPciStatus, 2) == 0x0200);
  REQUIRE(chip.config_read(0x60, 4) == 0x80808080);
  REQUIRE(chip.config_read(0x4C, 4) == 0x0003004D);
  REQUIRE(chip.reset_control().read(0, 1) == 0);
}

TEST_CASE_METHOD(Fixture, "piix3_pirq_reaches_the_isa_interrupt_it_is_routed_to", "[chipset]") {
  chip.pirq_inputs().set_irq(2, true);
  REQUIRE_FALSE(irqs.level(11));
  route(2, 11);
  REQUIRE(irqs.level(11));
  route(2, 10);
  REQUIRE_FALSE(irqs.level(11));
  REQUIRE(irqs.level(10));
  route(2, 0x8A);
  REQUIRE_FALSE(irqs.level(10));
}

TEST_CASE_METHOD(Fixture, "piix3_shared_interrupt_stays_high_until_its_last_source_falls", "[chipset]") {
  chip.config_write(0x60, 4, 0x0A0A0A0A);
  chip.pirq_inputs().set_irq(0, true);
  chip.pirq_inputs().set_irq(3, true);
  chip.isa_inputs().set_irq(10, true);
  REQUIRE(irqs.raised(10) == 1);
  chip.pirq_inputs().set_irq(0, false);
  chip.isa_inputs().set_irq(10, false);
  REQUIRE(irqs.level(10));
  chip.pirq_inputs().set_irq(3, false);
  REQUIRE_FALSE(irqs.level(10));
}

TEST_CASE_METHOD(Fixture, "piix3_pirq_routed_to_a_reserved_interrupt_goes_nowhere", "[chipset]") {
  chip.pirq_inputs().set_irq(0, true);
  for (const unsigned reserved : {0U, 1U, 2U, 8U, 13U}) {
    route(0, reserved);
    REQUIRE_FALSE(irqs.level(reserved));
  }
}

TEST_CASE_METHOD(Fixture, "piix3_isa_line_passes_every_edge", "[chipset]") {
  for (unsigned i = 0; i < 3; ++i) {
    chip.isa_inputs().set_irq(8, true);
    chip.isa_inputs().set_irq(8, false);
  }
  REQUIRE(irqs.raised(8) == 3);
}

TEST_CASE_METHOD(Fixture, "piix3_input_out_of_range_is_ignored", "[chipset]") {
  chip.pirq_inputs().set_irq(4, true);
  chip.isa_inputs().set_irq(16, true);
  chip.isa_inputs().set_irq(64, true);
  for (unsigned irq = 0; irq < 65; ++irq) {
    REQUIRE_FALSE(irqs.level(irq));
  }
}

TEST_CASE_METHOD(Fixture, "piix3_reset_control_asks_for_the_kind_of_reset_written", "[chipset]") {
  auto& rc = chip.reset_control();
  rc.write(0, 1, 0x02);
  REQUIRE(resets.empty());
  REQUIRE(rc.read(0, 1) == 0x02);
  rc.write(0, 1, 0x06);
  rc.write(0, 1, 0x04);
  REQUIRE(resets == std::vector{ResetKind::kHard, ResetKind::kSoft});
  rc.write(0, 1, 0xF0);
  REQUIRE(rc.read(0, 1) == 0);
  REQUIRE(resets.size() == 2);
}

TEST_CASE_METHOD(Fixture, "piix3_elcr_keeps_board_interrupts_edge_triggered", "[chipset]") {
  chip.elcr().write(0, 2, 0xFFFF);
  REQUIRE(chip.elcr().read(0, 2) == 0xDEF8);
}

TEST_CASE_METHOD(Fixture, "piix3_reset_equals_a_fresh_chip_and_releases_pirqs", "[chipset]") {
  route(1, 11);
  chip.pirq_inputs().set_irq(1, true);
  chip.reset_control().write(0, 1, 0x02);
  chip.elcr().write(0, 2, 0x0C00);
  chip.reset();
  IrqRecorder other;
  REQUIRE(saved(chip) == saved(Piix3Isa(other, {})));
  REQUIRE_FALSE(irqs.level(11));
}

TEST_CASE_METHOD(Fixture, "piix3_load_restores_routing_and_drives_the_lines", "[chipset]") {
  route(1, 11);
  chip.reset_control().write(0, 1, 0x02);
  chip.elcr().write(0, 2, 0x0C00);
  const auto bytes = saved(chip);
  chip.reset();
  chip.pirq_inputs().set_irq(1, true);
  REQUIRE(chip.load(StateReader(bytes)).has_value());
  REQUIRE(saved(chip) == bytes);
  REQUIRE(irqs.level(11));
}

TEST_CASE_METHOD(Fixture, "piix3_load_of_short_state_fails_and_changes_nothing", "[chipset]") {
  auto bytes = saved(chip);
  bytes.pop_back();
  route(0, 5);
  const auto before = saved(chip);
  REQUIRE_FALSE(chip.load(StateReader(bytes)).has_value());
  REQUIRE(saved(chip) == before);
}

TEST_CASE_METHOD(Fixture, "piix3_random_writes_keep_identity_and_reserved_lines_low", "[chipset]") {
  auto random = [generator = std::mt19937(2)]() mutable { return static_cast<unsigned>(generator()); };
  for (unsigned i = 0; i < 5000; ++i) {
    const unsigned width = 1U << random() % 3;
    chip.config_write(random() % (257 - width), width, random());
    chip.pirq_inputs().set_irq(random() % 8, random() % 2 == 0);
    chip.reset_control().write(0, 1, random() & 0xFF);
    chip.elcr().write(random() % 2, 1, random() & 0xFF);
    REQUIRE(chip.config_read(0, 4) == 0x70008086);
    REQUIRE_FALSE(irqs.level(13));
  }
}

#include "devices/pci/pci_bus.hpp"

#include <catch2/catch.hpp>
#include <map>

using namespace whistler;

namespace {

struct Registers final : IoHandler {
  std::uint64_t value = 0;
  std::uint64_t read(std::uint64_t offset, unsigned) override { return value + offset; }
  void write(std::uint64_t, unsigned, std::uint64_t written) override { value = written; }
};

struct Mapper final : MemoryMapper {
  std::map<unsigned, std::uint64_t> slots;
  void map(unsigned slot, std::uint64_t address, std::span<std::uint8_t>, Access) override {
    slots[slot] = address;
  }
  void unmap(unsigned slot) override { slots.erase(slot); }
  void collect_dirty(unsigned, std::span<std::uint64_t>) override {}
};

struct Card final : PciFunction {
  Registers registers;
  std::vector<std::uint8_t> memory = std::vector<std::uint8_t>(0x10000);
  Card() : PciFunction({.vendor = 0x1234, .device = 0x5678, .class_code = 0x010180}) {
    set_bar(
        0,
        {.kind = PciBar::Kind::kMemory, .size = 0x10000, .prefetchable = true, .slot = 7, .memory = memory});
    set_bar(4, {.kind = PciBar::Kind::kIo, .size = 16, .handler = &registers});
    set_interrupt_pin(1);
  }
  using PciFunction::set_intx;
};

struct Fixture {
  Bus ports{"io"};
  Bus memory{"memory"};
  Mapper mapper;
  IrqRecorder pirq;
  PciBus pci{ports, memory, mapper, pirq};
  Card card;
  Fixture() {
    REQUIRE(ports.map({.base = 0xCF8, .length = 8}, pci, "pci").has_value());
    REQUIRE(pci.attach(3, 0, card, "card").has_value());
  }
  void address(unsigned offset) { ports.write(0xCF8, 4, 0x80000000 | (3U << 11) | offset); }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "config_data_reads_the_addressed_function", "[pci]") {
  address(0);
  REQUIRE(ports.read(0xCFC, 4) == 0x56781234);
  REQUIRE(ports.read(0xCFE, 2) == 0x5678);
  ports.write(0xCF8, 4, 0x80000000 | (4U << 11));
  REQUIRE(ports.read(0xCFC, 4) == 0xFFFFFFFF);
}

TEST_CASE_METHOD(Fixture, "low_bits_of_the_address_choose_the_byte_as_on_qemu", "[pci]") {
  address(2);
  REQUIRE(ports.read(0xCF8, 4) == (0x80000000 | (3U << 11) | 2));
  REQUIRE(ports.read(0xCFC, 2) == 0x5678);
  address(0x3C + 1);
  REQUIRE(ports.read(0xCFC, 1) == 1);  // the interrupt pin
  address(0x3C);
  ports.write(0xCFC, 1, 0x5A);
  address(0x3C + 3);
  ports.write(0xCFC, 1, 0xFF);
  address(0x3C);
  REQUIRE(ports.read(0xCFC, 2) == 0x015A);
  address(0xFF);
  REQUIRE(ports.read(0xCFC, 4) == ports.read(0xCFF, 4));  // and past the end, of a kind
}

TEST_CASE_METHOD(Fixture, "bar_size_probe_keeps_type_bits", "[pci]") {
  address(0x10);
  ports.write(0xCFC, 4, 0xFFFFFFFF);
  REQUIRE(ports.read(0xCFC, 4) == 0xFFFF0008);
  address(0x20);
  ports.write(0xCFC, 4, 0xFFFFFFFF);
  REQUIRE(ports.read(0xCFC, 4) == 0xFFFFFFF1);
}

TEST_CASE_METHOD(Fixture, "io_bar_moves_with_its_register", "[pci]") {
  pci.config_write(3, 0, kPciCommand, 2, kPciCommandIo | kPciCommandMemory);
  pci.config_write(3, 0, 0x20, 4, 0xC000);
  REQUIRE(ports.read(0xC001, 1) == 1);
  pci.config_write(3, 0, 0x20, 4, 0xC100);
  REQUIRE(ports.read(0xC001, 1) == 0xFF);
  REQUIRE(ports.read(0xC102, 1) == 2);
  pci.config_write(3, 0, kPciCommand, 2, 0);
  REQUIRE(ports.read(0xC102, 1) == 0xFF);
}

TEST_CASE_METHOD(Fixture, "memory_bar_is_mapped_in_its_slot", "[pci]") {
  pci.config_write(3, 0, kPciCommand, 2, kPciCommandMemory);
  pci.config_write(3, 0, 0x10, 4, 0xFD000000);
  REQUIRE(mapper.slots.at(7) == 0xFD000000);
  pci.config_write(3, 0, kPciCommand, 2, 0);
  REQUIRE(mapper.slots.empty());
}

TEST_CASE_METHOD(Fixture, "bar_gets_its_place_when_the_one_in_the_way_leaves", "[pci]") {
  Card other;
  REQUIRE(pci.attach(4, 0, other, "other").has_value());
  for (unsigned slot = 3; slot <= 4; ++slot) {
    pci.config_write(slot, 0, kPciCommand, 2, kPciCommandIo);
    pci.config_write(slot, 0, 0x20, 4, 0xC000);
  }
  other.registers.value = 0x40;
  REQUIRE(ports.read(0xC000, 1) == 0);
  pci.config_write(3, 0, 0x20, 4, 0xC100);
  REQUIRE(ports.read(0xC000, 1) == 0x40);
}

TEST_CASE_METHOD(Fixture, "intx_reaches_the_swizzled_wire_unless_disabled", "[pci]") {
  card.set_intx(true);
  REQUIRE(pirq.level(2));  // (3 + 1 - 2) mod 4
  REQUIRE((pci.config_read(3, 0, kPciStatus, 2) & kPciStatusInterrupt) != 0);
  pci.config_write(3, 0, kPciCommand, 2, kPciCommandIntxDisable);
  REQUIRE_FALSE(pirq.level(2));
}

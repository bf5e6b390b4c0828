#include "devices/legacy/test_device.hpp"

#include <catch2/catch.hpp>

#include "devices/core/bus.hpp"

using namespace whistler;

namespace {

struct Fixture {
  IrqRecorder irqs;
  std::uint64_t flushed = 1;
  TestDevice device{irqs, [this](std::uint64_t page) { flushed = page; }};
  Bus ports{"I/O ports"};
  Fixture() {
    REQUIRE(ports.map({.base = 0xE0, .length = 4, .max_width = 4}, device.latch(), "whole").has_value());
    REQUIRE(ports.map({.base = 0xE4, .length = 4, .max_width = 4}, device.flush(), "flush").has_value());
    REQUIRE(ports.map({.base = 0xE8, .length = 4, .max_width = 1}, device.latch(), "bytes").has_value());
    REQUIRE(ports.map({.base = 0x2000, .length = 24, .max_width = 1}, device.lines(), "lines").has_value());
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "bytes_written_wide_are_read_narrow_and_the_other_way", "[test_device]") {
  ports.write(0xE0, 4, 0x87654321);
  REQUIRE(ports.read(0xE8, 1) == 0x21);
  REQUIRE(ports.read(0xEA, 2) == 0x8765);
  REQUIRE(ports.read(0xE8, 4) == 0x87654321);
  ports.write(0xEA, 2, 0x8866);
  REQUIRE(ports.read(0xE0, 4) == 0x88664321);
  ports.write(0xE9, 1, 0x55);
  REQUIRE(ports.read(0xE0, 2) == 0x5521);
}

TEST_CASE_METHOD(Fixture, "each_port_drives_its_line", "[test_device]") {
  ports.write(0x2000 + 14, 1, 1);
  ports.write(0x2000 + 23, 1, 2);
  REQUIRE(irqs.level(14));
  REQUIRE(irqs.level(23));
  REQUIRE_FALSE(irqs.level(13));
  ports.write(0x2000 + 14, 1, 0);
  REQUIRE_FALSE(irqs.level(14));
}

TEST_CASE_METHOD(Fixture, "page_is_flushed_by_a_32_bit_write", "[test_device]") {
  ports.write(0xE4, 2, 0x5000);
  REQUIRE(flushed == 1);
  ports.write(0xE4, 4, 0x5678);
  REQUIRE(flushed == 0x5000);
}

TEST_CASE_METHOD(Fixture, "memory_stores_up_to_its_end", "[test_device]") {
  device.memory().write(0x10, 8, 0x1122334455667788);
  REQUIRE(device.memory().read(0x12, 2) == 0x5566);
  device.memory().write(TestDevice::kMemoryLength - 1, 8, 0xFFEE);
  REQUIRE(device.memory().read(TestDevice::kMemoryLength - 1, 4) == 0xEE);
}

TEST_CASE_METHOD(Fixture, "latch_survives_a_save", "[test_device]") {
  ports.write(0xE0, 4, 0xCAFEBABE);
  StateWriter writer;
  device.save(writer);
  ports.write(0xE0, 4, 0);
  const auto saved = writer.bytes();
  REQUIRE(device.load(StateReader(saved)).has_value());
  REQUIRE(ports.read(0xE8, 4) == 0xCAFEBABE);
}

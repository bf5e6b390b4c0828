#include "vmm/address_space.hpp"

#include <catch2/catch.hpp>
#include <vector>

using namespace whistler;

namespace {

struct Register final : IoHandler {
  std::uint64_t last = 0;
  std::uint64_t read(std::uint64_t, unsigned) override { return 0x5A; }
  void write(std::uint64_t, unsigned, std::uint64_t value) override { last = value; }
};

struct Fixture {
  Bus bus{"memory"};
  AddressSpace space{bus, nullptr};
  std::vector<std::uint8_t> page = std::vector<std::uint8_t>(4096, 0x11);
};

}  // namespace

TEST_CASE_METHOD(Fixture, "read_write_window_keeps_little_endian_values", "[address_space]") {
  space.map(0, 0x1000, page, MemoryMapper::Access::kReadWrite);
  space.write(0x1ffc, 4, 0xAABBCCDD);
  REQUIRE(space.read(0x1ffc, 4) == 0xAABBCCDD);
  REQUIRE(page[4092] == 0xDD);
}

TEST_CASE_METHOD(Fixture, "write_to_read_only_window_goes_to_the_bus", "[address_space]") {
  Register handler;
  REQUIRE(bus.map({.base = 0x1000, .length = 0x1000}, handler, "below").has_value());
  space.map(0, 0x1000, page, MemoryMapper::Access::kReadOnly);
  space.write(0x1004, 4, 77);
  REQUIRE(handler.last == 77);
  REQUIRE(space.read(0x1004, 1) == 0x11);
}

TEST_CASE_METHOD(Fixture, "access_across_the_edge_of_a_window_is_joined", "[address_space]") {
  space.map(0, 0x1000, page, MemoryMapper::Access::kReadWrite);
  REQUIRE(space.read(0x1fff, 2) == 0xFF11);
  REQUIRE(space.read(0x0fff, 2) == 0x11FF);
}

TEST_CASE_METHOD(Fixture, "window_over_another_is_refused", "[address_space]") {
  std::vector<std::uint8_t> other(4096, 0x22);
  space.map(0, 0x1000, page, MemoryMapper::Access::kReadWrite);
  space.map(1, 0x1000, other, MemoryMapper::Access::kReadWrite);
  REQUIRE(space.read(0x1000, 1) == 0x11);
}

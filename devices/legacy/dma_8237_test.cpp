#include "devices/legacy/dma_8237.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <numeric>
#include <random>
#include <vector>

using namespace whistler;

namespace {

struct Fixture {
  std::vector<std::uint8_t> ram = std::vector<std::uint8_t>(0x400000);
  GuestMemory memory;
  Dma8237 dma{memory};
  Fixture() { memory.add(0, ram); }

  StateBytes state() const {
    StateWriter writer;
    dma.save(writer);
    return writer.bytes();
  }
  /// Programs channel 2 as a floppy driver does: `count` is the number of bytes less one.
  void program_channel_2(std::uint8_t mode, std::uint8_t page, std::uint16_t address, std::uint16_t count) {
    dma.first().write(0x0A, 1, 0x06);
    dma.first().write(0x0C, 1, 0);
    dma.first().write(0x0B, 1, mode | 2U);
    dma.first().write(0x04, 1, address & 0xFF);
    dma.first().write(0x04, 1, address >> 8);
    dma.first().write(0x05, 1, count & 0xFF);
    dma.first().write(0x05, 1, count >> 8);
    dma.pages().write(0x01, 1, page);
    dma.first().write(0x0A, 1, 0x02);
  }
};

constexpr std::uint8_t kSingleToMemory = 0x44;
constexpr std::uint8_t kSingleFromMemory = 0x48;
constexpr auto kToMemory = Dma8237::Direction::kToMemory;
constexpr auto kFromMemory = Dma8237::Direction::kFromMemory;

}  // namespace

TEST_CASE_METHOD(Fixture, "dma_byte_channel_fills_memory_up_to_terminal_count", "[dma]") {
  program_channel_2(kSingleToMemory, 0x12, 0x3456, 3);
  std::vector<std::uint8_t> bytes = {1, 2, 3, 4, 5, 6};
  const auto moved = dma.transfer(2, kToMemory, bytes);
  REQUIRE(moved.bytes == 4);
  REQUIRE(moved.terminal_count);
  REQUIRE(std::vector<int>(&ram[0x123456], &ram[0x12345B]) == std::vector<int>{1, 2, 3, 4, 0});
  REQUIRE((dma.first().read(0x08, 1) & 0x0F) == 0x04);
  REQUIRE((dma.first().read(0x08, 1) & 0x0F) == 0);       // read once
  REQUIRE(dma.transfer(2, kToMemory, bytes).bytes == 0);  // masked now
}

TEST_CASE_METHOD(Fixture, "dma_address_and_count_read_back_through_the_flip_flop", "[dma]") {
  program_channel_2(kSingleToMemory, 0, 0x1000, 0x01FF);
  std::vector<std::uint8_t> bytes(0x10);
  static_cast<void>(dma.transfer(2, kToMemory, bytes));
  REQUIRE(dma.first().read(4, 1) == 0x10);
  REQUIRE(dma.first().read(4, 1) == 0x10);
  REQUIRE(dma.first().read(5, 1) == 0xEF);
  REQUIRE(dma.first().read(5, 1) == 0x01);
  static_cast<void>(dma.first().read(5, 1));
  dma.first().write(0x0C, 1, 0);
  REQUIRE(dma.first().read(5, 1) == 0xEF);
}

TEST_CASE_METHOD(Fixture, "dma_autoinitialise_starts_over", "[dma]") {
  program_channel_2(kSingleFromMemory | 0x10, 0, 0x2000, 1);
  std::iota(ram.begin() + 0x2000, ram.begin() + 0x2004, std::uint8_t{7});
  std::vector<std::uint8_t> bytes(8);
  REQUIRE(dma.transfer(2, kFromMemory, bytes).bytes == 2);
  REQUIRE(dma.transfer(2, kFromMemory, bytes).terminal_count);
  REQUIRE(bytes[1] == 8);
}

TEST_CASE_METHOD(Fixture, "dma_decrement_goes_down", "[dma]") {
  program_channel_2(kSingleToMemory | 0x20, 0, 0x2000, 1);
  std::vector<std::uint8_t> bytes = {1, 2};
  static_cast<void>(dma.transfer(2, kToMemory, bytes));
  REQUIRE(ram[0x2000] == 1);
  REQUIRE(ram[0x1FFF] == 2);
}

TEST_CASE_METHOD(Fixture, "dma_address_wraps_within_its_page", "[dma]") {
  program_channel_2(kSingleToMemory, 0x01, 0xFFFF, 1);
  std::vector<std::uint8_t> bytes = {1, 2};
  static_cast<void>(dma.transfer(2, kToMemory, bytes));
  REQUIRE(ram[0x1FFFF] == 1);
  REQUIRE(ram[0x10000] == 2);
}

TEST_CASE_METHOD(Fixture, "dma_word_channel_counts_words", "[dma]") {
  dma.second().write(0x18, 1, 0);                    // clear the flip-flop
  dma.second().write(0x16, 1, kSingleToMemory | 1);  // channel 5
  dma.second().write(0x04, 1, 0x00);
  dma.second().write(0x04, 1, 0x80);
  dma.second().write(0x06, 1, 0x01);
  dma.second().write(0x06, 1, 0x00);
  dma.pages().write(0x0B, 1, 0x03);  // bit 0 is not connected
  dma.second().write(0x14, 1, 0x01);
  std::vector<std::uint8_t> bytes = {1, 2, 3, 4, 5};
  const auto moved = dma.transfer(5, kToMemory, bytes);
  REQUIRE(moved.bytes == 4);
  REQUIRE(moved.terminal_count);
  REQUIRE(ram[0x30003] == 4);
}

TEST_CASE_METHOD(Fixture, "dma_wrong_direction_verify_and_cascade_store_nothing", "[dma]") {
  std::vector<std::uint8_t> bytes = {9};
  program_channel_2(kSingleFromMemory, 0, 0x2000, 1);
  REQUIRE(dma.transfer(2, kToMemory, bytes).bytes == 0);
  program_channel_2(0x40, 0, 0x2000, 1);
  REQUIRE(dma.transfer(2, kToMemory, bytes).bytes == 1);
  REQUIRE(ram[0x2000] == 0);
  REQUIRE(dma.transfer(4, kToMemory, bytes).bytes == 0);
  REQUIRE(dma.transfer(99, kToMemory, bytes).bytes == 0);
}

TEST_CASE_METHOD(Fixture, "dma_memory_beyond_ram_is_harmless", "[dma]") {
  program_channel_2(kSingleFromMemory, 0xFF, 0, 1);
  dma.high_pages().write(0x01, 1, 0xFE);
  std::vector<std::uint8_t> bytes = {0};
  REQUIRE(dma.transfer(2, kFromMemory, bytes).bytes == 1);
  REQUIRE(bytes[0] == 0xFF);
}

TEST_CASE_METHOD(Fixture, "dma_page_registers_are_plain_storage", "[dma]") {
  dma.pages().write(0x00, 1, 0x5A);
  dma.pages().write(0x0F, 1, 0xA5);
  REQUIRE(dma.pages().read(0x00, 1) == 0x5A);
  REQUIRE(dma.pages().read(0x0F, 1) == 0xA5);
}

TEST_CASE_METHOD(Fixture, "dma_master_clear_masks_all_channels", "[dma]") {
  dma.first().write(0x0E, 1, 0);
  REQUIRE(dma.first().read(0x0F, 1) == 0);
  dma.first().write(0x0D, 1, 0);
  REQUIRE(dma.first().read(0x0F, 1) == 0x0F);
}

TEST_CASE_METHOD(Fixture, "dma_state_round_trips_and_reset_is_fresh", "[dma]") {
  const auto fresh = state();
  program_channel_2(kSingleToMemory, 5, 0x1234, 0x100);
  const auto saved = state();
  dma.reset();
  REQUIRE(state() == fresh);
  REQUIRE(dma.load(StateReader(saved)).has_value());
  REQUIRE(state() == saved);
  REQUIRE_FALSE(dma.load(StateReader(std::span(saved).first(saved.size() / 2))).has_value());
  REQUIRE(state() == saved);
}

TEST_CASE_METHOD(Fixture, "dma_survives_random_accesses", "[dma]") {
  std::mt19937 engine(8237);
  const auto random = [&] { return static_cast<unsigned>(engine()); };
  std::vector<std::uint8_t> bytes(512);
  for (int i = 0; i < 5000; ++i) {
    dma.first().write(random() % 16, 1, random() & 0xFF);
    dma.second().write(random() % 32, 1, random() & 0xFF);
    dma.pages().write(random() % 16, 1, random() & 0xFF);
    dma.high_pages().write(random() % 16, 1, random() & 0xFF);
    const auto moved = dma.transfer(random() % 9, random() % 2 == 0 ? kToMemory : kFromMemory,
                                    std::span(bytes).first(random() % bytes.size()));
    REQUIRE(moved.bytes <= bytes.size());
    REQUIRE(dma.first().read(random() % 16, 1) <= 0xFF);
    REQUIRE(dma.second().read(random() % 32, 1) <= 0xFF);
  }
}

#include "devices/legacy/fw_cfg.hpp"

#include <catch2/catch.hpp>
#include <random>

#include "base/bytes.hpp"
#include "devices/core/bus.hpp"

using namespace whistler;

namespace {

using ByteVector = std::vector<std::uint8_t>;

/// A device on its PC ports, with 1 MiB of RAM.
struct Fixture {
  std::vector<std::uint8_t> ram = std::vector<std::uint8_t>(1 << 20);
  GuestMemory memory;
  FwCfg device{memory};
  Bus bus{"ports"};

  Fixture() {
    memory.add(0, ram);
    REQUIRE(bus.map({.base = 0x510, .length = 2, .max_width = 2}, device.ports(), "fw_cfg"));
    REQUIRE(bus.map({.base = 0x514, .length = 8, .max_width = 8}, device.dma(), "fw_cfg-dma"));
    REQUIRE(device.add_item(0x0F, {2, 0}));
    REQUIRE(device.add_item(0x8002, {1}));
    REQUIRE(device.add_file("etc/zebra", {9, 8, 7}));
    REQUIRE(device.add_file("etc/ape", {1, 2, 3, 4}, true));
  }

  ByteVector read_key(std::uint16_t key, std::size_t count) {
    bus.write(0x510, 2, key);
    ByteVector bytes(count);
    for (auto& byte : bytes) {
      byte = static_cast<std::uint8_t>(bus.read(0x511, 1));
    }
    return bytes;
  }

  /// Starts a request at 0x1000 and returns the control word it leaves.
  std::uint32_t request(std::uint32_t control, std::uint32_t length, std::uint64_t address) {
    store_be<std::uint32_t>(&ram[0x1000], control);
    store_be<std::uint32_t>(&ram[0x1004], length);
    store_be<std::uint64_t>(&ram[0x1008], address);
    bus.write(0x514, 4, 0);
    bus.write(0x518, 4, std::byteswap(std::uint32_t{0x1000}));
    return load_be<std::uint32_t>(&ram[0x1000]);
  }

  StateBytes saved() const {
    StateWriter writer;
    device.save(writer);
    return writer.bytes();
  }
};

constexpr std::uint32_t select_and(std::uint32_t key, std::uint32_t verb) { return key << 16 | 0x08 | verb; }

}  // namespace

TEST_CASE("fw_cfg_fixed_items_read_as_documented", "[fw_cfg]") {
  Fixture f;
  CHECK(f.read_key(FwCfg::kSignature, 5) == ByteVector{'Q', 'E', 'M', 'U', 0});
  CHECK(f.read_key(FwCfg::kId, 4) == ByteVector{3, 0, 0, 0});
  CHECK(f.read_key(0x0F, 3) == ByteVector{2, 0, 0});
  CHECK(f.read_key(0x8002, 2) == ByteVector{1, 0});
  CHECK(f.read_key(0x7777, 2) == ByteVector{0, 0});
}

TEST_CASE("fw_cfg_directory_lists_files_by_name", "[fw_cfg]") {
  Fixture f;
  const auto directory = f.read_key(FwCfg::kFileDirectory, 4 + 2 * 64);
  CHECK(load_be<std::uint32_t>(&directory[0]) == 2);
  CHECK(load_be<std::uint32_t>(&directory[4]) == 4);
  CHECK(load_be<std::uint16_t>(&directory[8]) == 0x20);
  CHECK(std::string(reinterpret_cast<const char*>(&directory[12])) == "etc/ape");
  CHECK(load_be<std::uint16_t>(&directory[72]) == 0x21);
  CHECK(std::string(reinterpret_cast<const char*>(&directory[76])) == "etc/zebra");
  CHECK(f.read_key(0x21, 4) == ByteVector{9, 8, 7, 0});
}

TEST_CASE("fw_cfg_word_read_of_selector_returns_zero_and_consumes_nothing", "[fw_cfg]") {
  Fixture f;
  f.bus.write(0x510, 2, 0);
  CHECK(f.bus.read(0x510, 2) == 0);
  CHECK(f.bus.read(0x511, 1) == 'Q');
}

TEST_CASE("fw_cfg_dma_register_reads_as_signature", "[fw_cfg]") {
  Fixture f;
  CHECK(f.bus.read(0x514, 4) == 0x554D4551);
  CHECK(f.bus.read(0x518, 4) == 0x47464320);
  CHECK(f.bus.read(0x514, 8) == 0x47464320554D4551);
  CHECK(f.bus.read(0x515, 1) == 'E');
}

TEST_CASE("fw_cfg_dma_read_copies_and_pads_with_zeros", "[fw_cfg]") {
  Fixture f;
  std::fill_n(&f.ram[0x2000], 8, std::uint8_t{0xEE});
  CHECK(f.request(select_and(0x21, 2), 6, 0x2000) == 0);
  CHECK(ByteVector(&f.ram[0x2000], &f.ram[0x2008]) == ByteVector{9, 8, 7, 0, 0, 0, 0xEE, 0xEE});
}

TEST_CASE("fw_cfg_dma_64bit_register_access_starts_request", "[fw_cfg]") {
  Fixture f;
  store_be<std::uint32_t>(&f.ram[0x3000], select_and(0, 2));
  store_be<std::uint32_t>(&f.ram[0x3004], 4);
  store_be<std::uint64_t>(&f.ram[0x3008], 0x4000);
  f.bus.write(0x514, 8, std::byteswap(std::uint64_t{0x3000}));
  CHECK(ByteVector(&f.ram[0x4000], &f.ram[0x4004]) == ByteVector{'Q', 'E', 'M', 'U'});
  CHECK(load_be<std::uint32_t>(&f.ram[0x3000]) == 0);
}

TEST_CASE("fw_cfg_dma_skip_moves_on_without_copying", "[fw_cfg]") {
  Fixture f;
  CHECK(f.request(select_and(0x21, 4), 2, 0) == 0);
  CHECK(f.bus.read(0x511, 1) == 7);
}

TEST_CASE("fw_cfg_dma_write_changes_writable_file_until_reset", "[fw_cfg]") {
  Fixture f;
  f.ram[0x2000] = 0x55;
  CHECK(f.request(select_and(0x20, 4), 1, 0) == 0);
  CHECK(f.request(0x10, 1, 0x2000) == 0);
  CHECK(f.device.file("etc/ape")[1] == 0x55);
  f.device.reset();
  CHECK(f.device.file("etc/ape")[1] == 2);
}

TEST_CASE("fw_cfg_dma_write_refused_for_read_only_or_too_long", "[fw_cfg]") {
  Fixture f;
  CHECK(f.request(select_and(0x21, 0x10), 1, 0x2000) == 1);
  CHECK(f.request(select_and(0x20, 0x10), 5, 0x2000) == 1);
  CHECK(f.request(select_and(0x0F, 0x10), 1, 0x2000) == 1);
  CHECK(f.device.file("etc/ape")[0] == 1);
}

TEST_CASE("fw_cfg_dma_hostile_addresses_report_error", "[fw_cfg]") {
  Fixture f;
  CHECK(f.request(select_and(0x21, 2), 3, 0x100000) == 1);
  CHECK(f.request(select_and(0x21, 2), 0xFFFFFFFF, 0x2000) == 1);
  CHECK(f.request(select_and(0x21, 2), 0xFFFFFFFF, ~std::uint64_t{0} - 2) == 1);
  CHECK(f.request(select_and(0x20, 0x10), 4, ~std::uint64_t{0} - 1) == 1);
  f.bus.write(0x514, 8, ~std::uint64_t{0});  // the request itself outside RAM
  f.bus.write(0x514, 8, std::byteswap(std::uint64_t{0xFFFF8}));
  CHECK(f.bus.read(0x514, 4) == 0x554D4551);
}

TEST_CASE("fw_cfg_set_up_mistakes_are_refused", "[fw_cfg]") {
  Fixture f;
  CHECK(f.device.add_item(0x19, {}).error().code == ErrorCode::kInvalid);
  CHECK(f.device.add_item(0x20, {}).error().code == ErrorCode::kInvalid);
  CHECK(f.device.add_file("etc/ape", {}).error().code == ErrorCode::kExists);
  CHECK(f.device.add_file("", {}).error().code == ErrorCode::kInvalid);
  CHECK(f.device.add_file(std::string(56, 'x'), {}).error().code == ErrorCode::kInvalid);
  CHECK(f.device.add_file(std::string(55, 'x'), {}));
}

TEST_CASE("fw_cfg_reset_equals_fresh_object", "[fw_cfg]") {
  Fixture used;
  const Fixture fresh;
  used.bus.write(0x510, 2, 0x21);
  static_cast<void>(used.bus.read(0x511, 1));
  used.bus.write(0x514, 4, 0x12345678);
  CHECK(used.saved() != fresh.saved());
  used.device.reset();
  CHECK(used.saved() == fresh.saved());
}

TEST_CASE("fw_cfg_save_and_load_restores_position_and_written_files", "[fw_cfg]") {
  Fixture f;
  f.ram[0x2000] = 0x77;
  REQUIRE(f.request(select_and(0x20, 0x10), 1, 0x2000) == 0);
  f.bus.write(0x514, 4, std::byteswap(std::uint32_t{7}));
  const auto before = f.saved();
  f.device.reset();
  REQUIRE(f.device.load(StateReader(before)));
  CHECK(f.saved() == before);
  CHECK(f.device.file("etc/ape")[0] == 0x77);
  CHECK(f.bus.read(0x511, 1) == 2);
}

TEST_CASE("fw_cfg_load_of_foreign_state_changes_nothing", "[fw_cfg]") {
  Fixture f;
  std::vector<std::uint8_t> ram(4096);
  GuestMemory memory;
  memory.add(0, ram);
  FwCfg other(memory);
  REQUIRE(other.add_file("etc/ape", {1, 2, 3, 4, 5}, true));
  StateWriter writer;
  other.save(writer);
  const auto before = f.saved();
  CHECK(f.device.load(StateReader(writer.bytes())).error().code == ErrorCode::kCorrupt);
  auto cut = before;
  cut.pop_back();
  CHECK_FALSE(f.device.load(StateReader(cut)));
  CHECK(f.saved() == before);
}

TEST_CASE("fw_cfg_random_accesses_never_crash", "[fw_cfg]") {
  Fixture f;
  std::mt19937_64 random(1);
  constexpr unsigned kWidths[] = {1, 2, 4, 8};
  for (int i = 0; i < 20000; ++i) {
    const auto port = 0x510 + random() % 12;
    const auto width = kWidths[random() % 4];
    const auto value = random() & all_ones(width);
    // Requests with random descriptors in RAM, now and then.
    if (random() % 8 == 0) {
      static_cast<void>(f.request(static_cast<std::uint32_t>((random() % 0x24) << 16 | random() % 32),
                                  static_cast<std::uint32_t>(random() % 0x200000), random() % 0x180000));
    } else if (random() % 2 == 0) {
      f.bus.write(port, width, value);
    } else {
      CHECK(f.bus.read(port, width) <= all_ones(width));
    }
  }
  f.device.reset();
  CHECK(f.read_key(0, 4) == ByteVector{'Q', 'E', 'M', 'U'});
}

TEST_CASE_METHOD(Fixture, "file_given_another_content_has_its_size_in_the_directory", "[fw_cfg]") {
  device.set_file("etc/zebra", {5, 6, 7, 8, 9});
  device.set_file("etc/unknown", {1});
  const auto directory = read_key(0x19, 4 + 2 * 64);
  REQUIRE(load_be<std::uint32_t>(directory.data()) == 2);
  REQUIRE(load_be<std::uint32_t>(&directory[4 + 64]) == 5);
  REQUIRE(read_key(load_be<std::uint16_t>(&directory[4 + 64 + 4]), 6) == ByteVector{5, 6, 7, 8, 9, 0});
}

#include "block/qcow2/snapshot_table.hpp"

#include <fstream>

#include "block/qcow2/amend.hpp"
#include "block/qcow2/snapshots.hpp"
#include "block/qcow2/test_images.hpp"

using namespace whistler;
using namespace whistler::test;

namespace {

constexpr std::uint64_t kCountField = 60;
constexpr std::uint64_t kPlaceField = 64;
constexpr std::uint64_t kExtraSizeField = 36;           ///< of an entry
constexpr std::uint64_t kFirstTwo = 2 * (40 + 24 + 8);  ///< bytes of the entries "one" and "two"

/// A big-endian field of `Value`'s size.
template <typename Value>
void poke(const std::string& path, std::uint64_t offset, Value value) {
  std::array<std::uint8_t, sizeof value> bytes{};
  store_be<Value>(bytes.data(), value);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(offset));
  file.write(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  REQUIRE(file.good());
}

std::uint64_t table_of(const std::string& path) {
  std::array<std::uint8_t, 8> bytes{};
  std::ifstream file(path, std::ios::binary);
  file.seekg(kPlaceField);
  file.read(reinterpret_cast<char*>(bytes.data()), bytes.size());
  REQUIRE(file.good());
  return load_be<std::uint64_t>(bytes.data());
}

/// An image with the snapshots "one", "two" and "three", each of other data.
std::string image_with_snapshots(Ring& ring, const TemporaryDirectory& directory, std::uint32_t version = 3) {
  const auto path = directory.file("i.qcow2");
  create_image(ring, path, {.size = 1 << 20, .version = version});
  auto image = open_qcow2(ring, path);
  std::uint8_t fill = 1;
  for (const auto* name : {"one", "two", "three"}) {
    REQUIRE(write(ring, *image, 0, Bytes(200000, fill++)).has_value());
    const auto done =
        sync_wait(ring, qcow2::Snapshots(dynamic_cast<qcow2::Image&>(*image)).create({.name = name}));
    REQUIRE(done.has_value());
  }
  close(ring, image);
  require_clean(ring, path);
  return path;
}

std::vector<std::string> names(Ring& ring, const std::string& path) {
  auto image = open_qcow2(ring, path, true);
  const auto list = sync_wait(ring, qcow2::Snapshots(dynamic_cast<qcow2::Image&>(*image)).list());
  REQUIRE(list.has_value());
  std::vector<std::string> found;
  for (const auto& snapshot : *list) {
    found.push_back(snapshot.name);
  }
  close(ring, image);
  return found;
}

Error refusal(Ring& ring, const std::string& path) {
  const auto image = open_image(ring, {.path = path, .format = "qcow2", .read_only = true});
  REQUIRE(!image.has_value());
  return image.error();
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("too_much_extra_data_of_a_snapshot_is_refused_and_repaired", "[qcow2][snapshot]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = image_with_snapshots(*ring, directory);
  SECTION("of the last one, beyond the end of the file") {
    poke<std::uint32_t>(path, table_of(path) + kFirstTwo + kExtraSizeField, 0x10000);
    const auto error = refusal(*ring, path);
    CHECK(
        error.message.find("qcow2 snapshot 2 (byte 144 of the snapshot table): 65536 bytes of extra data") !=
        std::string::npos);
    CHECK(error.brief.starts_with("Too much extra metadata in snapshot table entry 2\n"));
    const auto report = check(*ring, path, qcow2::Repair::kAll);
    CHECK(report.corruptions == 0);
    CHECK(joined(report.messages).find("(65536 > 1024)") != std::string::npos);
    CHECK(names(*ring, path).size() == 3);  // where the last one's name lay cannot be known
  }
  SECTION("as much as can be said") {
    poke<std::uint32_t>(path, table_of(path) + kFirstTwo + kExtraSizeField, ~0U);
    CHECK(check(*ring, path, qcow2::Repair::kAll).corruptions == 0);
    CHECK(names(*ring, path).size() == 3);
  }
  SECTION("a little too much") {
    poke<std::uint32_t>(path, table_of(path) + kExtraSizeField, 1025);
    CHECK(check(*ring, path, qcow2::Repair::kAll).corruptions == 0);
  }
  require_clean(*ring, path);
}

TEST_CASE("a_check_without_repair_leaves_a_damaged_snapshot_table_alone", "[qcow2][snapshot]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = image_with_snapshots(*ring, directory);
  poke<std::uint32_t>(path, table_of(path) + kExtraSizeField, 0x10000);
  const auto before = file_content(path);
  for (const auto repair : {qcow2::Repair::kNone, qcow2::Repair::kLeaks}) {
    auto file = FileDevice::open(*ring, {.path = path, .read_only = false});
    REQUIRE(file.has_value());
    auto image = sync_wait(*ring, qcow2::Image::open(std::move(*file), {.for_repair = true}));
    REQUIRE(image.has_value());
    REQUIRE(sync_wait(*ring, (*image)->prepare()).has_value());
    const auto report = sync_wait(*ring, qcow2::check_image(**image, repair));
    REQUIRE(!report.has_value());  // above all no leak is found: all that snapshots hold would be one
    CHECK(report.error().brief.starts_with("ERROR failed to read the snapshot table: Too much extra"));
    REQUIRE(sync_wait(*ring, (*image)->close()).has_value());
  }
  CHECK(file_content(path) == before);
}

TEST_CASE("more_snapshots_than_allowed_are_refused_and_left_out", "[qcow2][snapshot]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = directory.file("i.qcow2");
  create_image(*ring, path, {.size = 1 << 20, .version = 2});
  constexpr std::uint64_t kTable = 1 << 20;
  REQUIRE(::truncate(path.c_str(), kTable + 40 * 70000) ==
          0);  // entries of zeroes are snapshots in version 2
  poke<std::uint64_t>(path, kPlaceField, kTable);
  poke<std::uint32_t>(path, kCountField, 70000);
  CHECK(refusal(*ring, path).brief == "Snapshot table too large");
  const auto report = check(*ring, path, qcow2::Repair::kAll);
  CHECK(joined(report.messages).find("Discarding 4464 overhanging snapshots\n") != std::string::npos);
  CHECK(report.corruptions == 0);
  CHECK(names(*ring, path).size() == 65536);
  CHECK(check(*ring, path).corruptions == 0);
}

TEST_CASE("a_snapshot_table_beyond_64_mib_is_refused_and_cut", "[qcow2][snapshot]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = directory.file("i.qcow2");
  create_image(*ring, path, {.size = 1 << 20});
  constexpr std::uint64_t kTable = 1 << 20;
  constexpr std::uint64_t kEntry = 40 + 16 + 65535 + 65535 + 2;
  constexpr std::uint64_t kFit = (64 << 20) / kEntry;
  REQUIRE(::truncate(path.c_str(), static_cast<off_t>(kTable + (kFit + 3) * kEntry)) == 0);
  for (std::uint64_t i = 0; i < kFit + 3; ++i) {
    poke<std::uint32_t>(path, kTable + i * kEntry + 12, 0xffff'ffff);  // sizes of id and name
    poke<std::uint32_t>(path, kTable + i * kEntry + kExtraSizeField, 16);
  }
  poke<std::uint64_t>(path, kPlaceField, kTable);
  poke<std::uint32_t>(path, kCountField, kFit + 3);
  CHECK(refusal(*ring, path).brief ==
        "Snapshot table is too big\nYou can force-remove all 3 overhanging snapshots with qemu-img check -r "
        "all");
  const auto report = check(*ring, path, qcow2::Repair::kAll);
  CHECK(joined(report.messages).find("Discarding 3 overhanging snapshots (snapshot table is too big)\n") !=
        std::string::npos);
  CHECK(report.corruptions == 0);
  CHECK(names(*ring, path).size() == kFit);
}

TEST_CASE("a_snapshot_for_which_the_table_has_no_room_is_refused", "[qcow2][snapshot]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = directory.file("i.qcow2");
  create_image(*ring, path, {.size = 1 << 20});
  std::vector<qcow2::Snapshot> list((64 << 20) / 65072);
  for (auto& snapshot : list) {
    snapshot = {.id = "1", .name = std::string(65000, 'x')};
  }
  const auto table = qcow2::encode_snapshot_table(list);
  constexpr std::uint64_t kTable = 1 << 20;
  REQUIRE(::truncate(path.c_str(), kTable) == 0);
  std::ofstream(path, std::ios::binary | std::ios::app)
      .write(reinterpret_cast<const char*>(table.data()), static_cast<std::streamsize>(table.size()));
  poke<std::uint64_t>(path, kPlaceField, kTable);
  poke<std::uint32_t>(path, kCountField, static_cast<std::uint32_t>(list.size()));
  REQUIRE(check(*ring, path, qcow2::Repair::kAll).corruptions == 0);
  auto image = open_qcow2(*ring, path);
  const auto done = sync_wait(
      *ring, qcow2::Snapshots(dynamic_cast<qcow2::Image&>(*image)).create({.name = std::string(65000, 'y')}));
  REQUIRE(!done.has_value());
  CHECK(done.error().code == ErrorCode::kNoSpace);
  close(*ring, image);
  CHECK(names(*ring, path).size() == list.size());
  require_clean(*ring, path);
}

TEST_CASE("short_snapshot_entries_of_version_2_are_completed", "[qcow2][snapshot]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = image_with_snapshots(*ring, directory, 2);
  // The entries' extra data becomes what lies behind it: id and name, of which the old ones are a part.
  const auto table = table_of(path);
  poke<std::uint32_t>(path, table + kExtraSizeField, 0);
  poke<std::uint32_t>(path, table + 12, (25U << 16) | 3);  // id: what was extra data, and the old id
  CHECK(check(*ring, path).corruptions == 0);
  SECTION("by an upgrade") {
    auto image = open_qcow2(*ring, path);
    REQUIRE(sync_wait(*ring, qcow2::Amender(dynamic_cast<qcow2::Image&>(*image)).upgrade()).has_value());
    close(*ring, image);
  }
  SECTION("by a repair") {
    poke<std::uint32_t>(path, 4, 3);
    poke<std::uint32_t>(path, 96, 4);     // refcount order
    poke<std::uint32_t>(path, 100, 104);  // header length
    const auto found = check(*ring, path);
    CHECK(found.corruptions == 1);
    CHECK(joined(found.messages) == "ERROR snapshot table entry 0 is incomplete\n");
    const auto report = check(*ring, path, qcow2::Repair::kAll);
    CHECK(report.corruptions_fixed == 1);
    CHECK(joined(report.messages) == "Repairing snapshot table entry 0 is incomplete\n");
  }
  CHECK(names(*ring, path)[1] == "two");
  require_clean(*ring, path);
}

TEST_CASE("a_snapshot_whose_l1_table_cannot_be_is_listed_but_not_used", "[qcow2][snapshot]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = image_with_snapshots(*ring, directory);
  poke<std::uint64_t>(path, table_of(path), 0x400200);
  CHECK(names(*ring, path) == Names{"one", "two", "three"});
  CHECK(joined(check(*ring, path).messages)
            .starts_with("ERROR snapshot 1 (one) l1_offset=0x400200: L1 table is not cluster aligned; "));
  auto image = open_qcow2(*ring, path);
  qcow2::Snapshots snapshots(dynamic_cast<qcow2::Image&>(*image));
  for (const auto& done :
       {sync_wait(*ring, snapshots.remove("one")), sync_wait(*ring, snapshots.apply("one"))}) {
    REQUIRE(!done.has_value());
    CHECK(done.error().brief == "Snapshot L1 table offset invalid");
  }
  REQUIRE(sync_wait(*ring, snapshots.apply("two")).has_value());
  CHECK(read(*ring, *image, 0, 1000) == Bytes(1000, 2));
  close(*ring, image);
  CHECK(names(*ring, path).size() == 3);  // not left marked as half changed
}

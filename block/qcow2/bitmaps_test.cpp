// Persistent dirty bitmaps: what they hold, what QEMU makes of them, and what crashes and errors leave.
#include "block/qcow2/bitmaps.hpp"

#include <sys/stat.h>

#include "block/create.hpp"
#include "block/qcow2/simulation.hpp"
#include "block/qcow2/snapshots.hpp"
#include "block/qcow2/test_images.hpp"

using namespace whistler;
using namespace whistler::test;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;

qcow2::Image& as_image(std::unique_ptr<BlockDevice>& device) { return dynamic_cast<qcow2::Image&>(*device); }

struct BitmapLab {
  TemporaryDirectory directory;
  std::unique_ptr<Ring> ring = make_ring();
  std::string path = directory.file("i.qcow2");
  std::unique_ptr<BlockDevice> device;

  explicit BitmapLab(qcow2::CreateOptions options = {.size = 10 * kMiB}) {
    create_image(*ring, path, options);
    open();
  }
  void open() { device = open_qcow2(*ring, path); }
  void reopen() {
    close();
    open();
  }
  void close() {
    whistler::test::close(*ring, device);
    require_clean(*ring, path);
  }
  qcow2::Bitmaps& bitmaps() { return as_image(device).bitmaps(); }
  Result<void> add(const std::string& name, std::uint64_t granularity = 0, bool enabled = true) {
    return sync_wait(*ring, bitmaps().add(name, granularity, enabled));
  }
  DirtyBits content(const std::string& name) {
    auto bits = sync_wait(*ring, bitmaps().content(name));
    INFO((bits ? std::string() : bits.error().message));
    REQUIRE(bits.has_value());
    return *bits;
  }
  /// The content of the file, which is closed then.
  Bytes with_two_bitmaps() {
    REQUIRE(add("a").has_value());
    REQUIRE(add("b").has_value());
    close();
    return file_content(path);
  }
  void write(std::uint64_t at, std::size_t bytes) {
    REQUIRE(whistler::test::write(*ring, *device, at, Bytes(bytes, 1)).has_value());
  }
};

}  // namespace

TEST_CASE("bitmaps_mark_writes_while_enabled_and_are_there_after_reopening", "[qcow2][bitmaps]") {
  BitmapLab lab;
  REQUIRE(lab.add("on", 65536).has_value());
  REQUIRE(lab.add("off", 4096, false).has_value());
  lab.write(3 * 65536 + 5, 65536);
  REQUIRE(sync_wait(*lab.ring, lab.device->write_zeroes(2 * kMiB, 65536)).has_value());
  REQUIRE(sync_wait(*lab.ring, lab.device->discard(3 * kMiB, 65536)).has_value());
  lab.reopen();
  const auto on = lab.content("on");
  CHECK(on.count() == 4 * 65536);
  CHECK(on.get(3 * 65536));
  CHECK(on.get(4 * 65536));
  CHECK(on.get(2 * kMiB));
  CHECK(on.get(3 * kMiB));
  CHECK(lab.content("off").count() == 0);
  const auto list = sync_wait(*lab.ring, lab.bitmaps().list());
  REQUIRE(list->size() == 2);
  CHECK((*list)[0].enabled);
  CHECK_FALSE((*list)[0].in_use);
  CHECK_FALSE((*list)[1].enabled);
  CHECK((*list)[1].granularity == 4096);
}

TEST_CASE("bitmaps_write_of_their_tables_and_directory_no_more_than_there_is", "[qcow2][bitmaps]") {
  BitmapLab lab({.size = 10 * kMiB, .cluster_size = 2 * kMiB});
  const auto host_bytes = [&] {
    struct stat status{};
    REQUIRE(::stat(lab.path.c_str(), &status) == 0);
    return static_cast<std::uint64_t>(status.st_blocks) * 512;
  };
  const auto before = host_bytes();
  for (const auto* name : {"a", "b", "c"}) {
    REQUIRE(lab.add(name).has_value());
    lab.reopen();
  }
  CHECK(host_bytes() - before < 128 * 1024);  // of seven clusters and more
  REQUIRE(sync_wait(*lab.ring, lab.bitmaps().list())->size() == 3);
}

TEST_CASE("bitmaps_change_by_every_command", "[qcow2][bitmaps]") {
  BitmapLab lab;
  REQUIRE(lab.add("a", 512).has_value());
  REQUIRE(lab.add("b").has_value());
  lab.write(0, 512);
  auto& bitmaps = lab.bitmaps();
  REQUIRE(sync_wait(*lab.ring, bitmaps.enable("a", false)).has_value());
  lab.write(kMiB, 512);
  CHECK(lab.content("a").count() == 512);
  CHECK(lab.content("b").count() == 2 * 65536);
  const auto source = lab.content("b");
  REQUIRE(sync_wait(*lab.ring, bitmaps.merge("a", source)).has_value());
  REQUIRE(sync_wait(*lab.ring, bitmaps.clear("b")).has_value());
  lab.reopen();
  CHECK(lab.content("a").count() == 2 * 65536);
  CHECK(lab.content("b").count() == 0);
  REQUIRE(sync_wait(*lab.ring, lab.bitmaps().remove("a")).has_value());
  REQUIRE(sync_wait(*lab.ring, lab.bitmaps().remove("b")).has_value());
  lab.reopen();
  CHECK(as_image(lab.device).header().find_extension(qcow2::kBitmapsExtension) == nullptr);
}

TEST_CASE("bitmaps_refuse_what_qemu_refuses_in_its_words", "[qcow2][bitmaps]") {
  BitmapLab lab;
  REQUIRE(lab.add("a").has_value());
  const auto message = [](const Result<void>& result) { return result ? "" : result.error().message; };
  CHECK(message(lab.add("a")) == "Bitmap already exists: a");
  CHECK(message(lab.add("")) == "Bitmap name cannot be empty");
  for (const std::uint64_t bad : {256ULL, 1000ULL, 1ULL << 32}) {
    CHECK(message(lab.add("c", bad)) == "Granularity must be power of 2 and at least 512");
  }
  CHECK(message(sync_wait(*lab.ring, lab.bitmaps().remove("c"))) == "Dirty bitmap 'c' not found");
  CHECK(
      message(lab.add(std::string(1024, 'n'))).ends_with(": Name length exceeds maximum (1023 characters)"));
  BitmapLab old({.size = kMiB, .version = 2});
  CHECK(message(old.add("a")).ends_with(": Cannot store dirty bitmaps in qcow2 v2 files"));
}

TEST_CASE("bitmaps_of_a_disk_without_bytes_are_refused", "[qcow2][bitmaps]") {
  BitmapLab lab({.size = 0});
  const auto added = lab.add("a");
  REQUIRE_FALSE(added.has_value());
  CHECK(added.error().message.find("the disk has no bytes to mark") != std::string::npos);
  REQUIRE(sync_wait(*lab.ring, lab.device->resize(kMiB)).has_value());
  REQUIRE(lab.add("a").has_value());
  const auto emptied = sync_wait(*lab.ring, lab.device->resize(0));
  CHECK_FALSE(emptied.has_value());
  lab.close();
}

TEST_CASE("bitmaps_say_in_use_on_disk_from_the_first_write_on", "[qcow2][bitmaps]") {
  BitmapLab lab;
  REQUIRE(lab.add("a").has_value());
  REQUIRE(lab.add("still", 0, false).has_value());
  lab.reopen();
  lab.write(0, 512);
  const auto torn = file_content(lab.path);
  lab.close();
  make_file(lab.path, torn);
  lab.open();
  CHECK(sync_wait(*lab.ring, lab.bitmaps().content("a")).error().message ==
        "Bitmap 'a' is inconsistent and cannot be used\n"
        "Try block-dirty-bitmap-remove to delete this bitmap from disk");
  CHECK(lab.content("still").count() == 0);
  lab.write(kMiB, 512);
  REQUIRE(sync_wait(*lab.ring, lab.bitmaps().remove("a")).has_value());
  lab.close();
}

TEST_CASE("bitmaps_go_along_when_the_disk_is_resized", "[qcow2][bitmaps]") {
  BitmapLab lab({.size = kMiB, .cluster_size = 512});
  REQUIRE(lab.add("a", 512).has_value());
  lab.write(kMiB - 512, 512);
  REQUIRE(sync_wait(*lab.ring, lab.device->resize(20 * kMiB)).has_value());
  lab.write(20 * kMiB - 512, 512);
  lab.reopen();
  const auto bits = lab.content("a");
  CHECK(bits.disk_bytes() == 20 * kMiB);
  CHECK(bits.get(kMiB - 512));
  CHECK(bits.get(20 * kMiB - 512));
  CHECK(bits.count() == 1024);
  REQUIRE(sync_wait(*lab.ring, lab.device->resize(kMiB / 2)).has_value());
  lab.reopen();
  CHECK(lab.content("a").count() == 0);
}

TEST_CASE("bitmaps_see_the_whole_disk_change_when_a_snapshot_is_applied", "[qcow2][bitmaps]") {
  BitmapLab lab;
  qcow2::Snapshots snapshots(as_image(lab.device));
  REQUIRE(sync_wait(*lab.ring, snapshots.create({})).has_value());
  REQUIRE(lab.add("a").has_value());
  REQUIRE(sync_wait(*lab.ring, snapshots.apply("1")).has_value());
  lab.reopen();
  CHECK(lab.content("a").count() == 10 * kMiB);
}

TEST_CASE("bitmaps_of_qemu_are_kept_and_ours_are_understood_by_it", "[qcow2][bitmaps][interop]") {
  if (!have_qemu_tools()) {
    return;
  }
  BitmapLab lab;
  lab.close();
  REQUIRE(run("qemu-img bitmap --add -g 4096 " + lab.path + " theirs").status == 0);
  REQUIRE(run("qemu-io -c 'write 1M 8k' " + lab.path).status == 0);
  lab.open();
  CHECK(lab.content("theirs").count() == 8192);
  lab.write(5 * kMiB, 4096);
  REQUIRE(lab.add("ours", 4096).has_value());
  lab.write(6 * kMiB, 4096);
  lab.close();
  REQUIRE(run("qemu-io -c 'write 7M 4k' " + lab.path).status == 0);
  const auto info = run("qemu-img info " + lab.path);
  CHECK(info.output.find("name: ours") != std::string::npos);
  CHECK(info.output.find("in-use") == std::string::npos);
  lab.open();
  CHECK(lab.content("theirs").count() == 8192 + 3 * 4096);
  CHECK(lab.content("ours").count() == 2 * 4096);
  lab.close();
}

TEST_CASE("bitmaps_that_qemu_opens_no_image_with_are_found_by_check", "[qcow2][bitmaps][hostile]") {
  BitmapLab lab;
  auto damaged = lab.with_two_bitmaps();
  const auto header = qcow2::parse_header(damaged, damaged.size(), "i");
  const auto extension = qcow2::bitmap_extension(*header);
  const auto directory = static_cast<std::size_t>(extension->directory_offset);
  enum Part { kTableEntries = 8, kFlags = 12, kType = 16, kGranularity = 17 };
  const auto part = GENERATE(kTableEntries, kFlags, kType, kGranularity);
  const auto field = directory + static_cast<std::size_t>(part);
  if (part == kTableEntries) {
    store_be<std::uint32_t>(&damaged[field], 0);
  } else if (part == kFlags) {
    store_be<std::uint32_t>(&damaged[field], 1 << 3);
  } else {
    damaged[field] = part == kType ? 2 : 8;
  }
  make_file(lab.path, damaged);
  CHECK(check(*lab.ring, lab.path).corruptions == 1);
  lab.open();
  const auto added = lab.add("c");
  REQUIRE_FALSE(added.has_value());
  CHECK(added.error().message.find("'a' of it doesn't satisfy the constraints") != std::string::npos);
  test::close(*lab.ring, lab.device);
}

TEST_CASE("bitmaps_directory_with_more_than_the_header_says_is_found_by_check", "[qcow2][bitmaps][hostile]") {
  BitmapLab lab;
  auto damaged = lab.with_two_bitmaps();
  const auto mark = GENERATE(std::size_t{0}, std::size_t{4});  // the number of bitmaps, the reserved field
  for (std::size_t at = 0; at + 4 < 4096; at += 4) {
    if (load_be<std::uint32_t>(&damaged[at]) == 0x23852875) {
      store_be<std::uint32_t>(&damaged[at + 8 + mark], 1);
    }
  }
  make_file(lab.path, damaged);
  CHECK(check(*lab.ring, lab.path).corruptions == 1);
}

TEST_CASE("bitmaps_with_a_damaged_directory_never_stop_the_disk_from_being_used",
          "[qcow2][bitmaps][hostile]") {
  BitmapLab lab;
  REQUIRE(lab.add("a").has_value());
  lab.close();
  const auto sound = file_content(lab.path);
  const std::string name = "a";
  const auto header = qcow2::parse_header(sound, sound.size(), "i");
  const auto directory = static_cast<std::size_t>(qcow2::bitmap_extension(*header)->directory_offset);
  const auto field = GENERATE(0, 8, 12, 16, 17, 18, 20);
  auto damaged = sound;
  std::fill_n(damaged.begin() + static_cast<std::ptrdiff_t>(directory) + field, 2, std::uint8_t{0xfe});
  make_file(lab.path, damaged);
  lab.open();
  REQUIRE(write(*lab.ring, *lab.device, 0, Bytes(512, 7)).has_value());
  test::close(*lab.ring, lab.device);
  CHECK(check(*lab.ring, lab.path).corruptions <= 1);
}

#include "block/formats/vdi.hpp"

#include "base/bytes.hpp"
#include "block/formats/test_images.hpp"

using namespace whistler;
using namespace whistler::test;
using formats::VdiImage;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;

Bytes make(Ring& ring, const formats::VdiCreateOptions& options) {
  MemoryBlockDevice file(0);
  REQUIRE(sync_wait(ring, formats::create_vdi(file, options)).has_value());
  return file.bytes();
}

std::string refused(Ring& ring, const Bytes& content) {
  return refusal(sync_wait(ring, VdiImage::open(memory_file(content))));
}

}  // namespace

TEST_CASE("vdi_new_image_reads_as_zeroes_and_keeps_what_is_written", "[vdi]") {
  const auto ring = make_ring();
  MemoryBlockDevice file(0);
  REQUIRE(sync_wait(*ring, formats::create_vdi(file, {.size = 10 * kMiB})).has_value());
  CHECK(file.size() == 1024);
  auto image = opened(sync_wait(*ring, VdiImage::open(memory_file(file.bytes()))));
  CHECK(image->size() == 10 * kMiB);
  CHECK_FALSE(image->read_only());
  CHECK(read(*ring, *image, 3 * kMiB, 5000) == Bytes(5000));
  const auto data = pattern(kMiB + 3000, 1);
  REQUIRE(write(*ring, *image, 5 * kMiB - 1000, data).has_value());
  CHECK(read(*ring, *image, 5 * kMiB - 1000, data.size()) == data);
  CHECK(read(*ring, *image, 4 * kMiB, 500) == Bytes(500));
  REQUIRE(sync_wait(*ring, image->flush()).has_value());
  const auto report = sync_wait(*ring, image->check());
  REQUIRE(report.has_value());
  CHECK(report->allocated == 3);
  CHECK(report->errors == 0);
  CHECK(report->end_offset == 1024 + 3 * kMiB);
}

TEST_CASE("vdi_block_status_tells_blocks_from_holes", "[vdi]") {
  const auto ring = make_ring();
  auto image = opened(sync_wait(*ring, VdiImage::open(memory_file(make(*ring, {.size = 10 * kMiB})))));
  REQUIRE(write(*ring, *image, 2 * kMiB, Bytes(2 * kMiB, 7)).has_value());
  const auto hole = sync_wait(*ring, image->block_status(0, 10 * kMiB));
  REQUIRE(hole.has_value());
  CHECK(hole->bytes == 2 * kMiB);
  CHECK(hole->zero);
  const auto data = sync_wait(*ring, image->block_status(2 * kMiB, 8 * kMiB));
  REQUIRE(data.has_value());
  CHECK(data->bytes == 2 * kMiB);
  CHECK(data->data);
  CHECK_FALSE(data->zero);
}

TEST_CASE("vdi_zeroes_are_written_without_taking_new_blocks", "[vdi]") {
  const auto ring = make_ring();
  auto image = opened(sync_wait(*ring, VdiImage::open(memory_file(make(*ring, {.size = 4 * kMiB})))));
  REQUIRE(write(*ring, *image, kMiB, Bytes(kMiB, 7)).has_value());
  REQUIRE(sync_wait(*ring, image->write_zeroes(500, 2 * kMiB)).has_value());
  CHECK(read(*ring, *image, 0, 2 * kMiB + 500) == Bytes(2 * kMiB + 500));
  REQUIRE(sync_wait(*ring, image->flush()).has_value());
  CHECK(sync_wait(*ring, image->check())->allocated == 1);
}

TEST_CASE("vdi_stale_count_in_the_header_does_not_hand_out_a_block_twice", "[vdi]") {
  const auto ring = make_ring();
  auto content = make(*ring, {.size = 4 * kMiB});
  store_le<std::uint32_t>(&content[512 + 4], 0);  // block 1 is the first in the file, but the count says 0
  content.resize(1024 + kMiB, 0x55);
  auto image = opened(sync_wait(*ring, VdiImage::open(memory_file(content))));
  REQUIRE(write(*ring, *image, 0, Bytes(512, 0x66)).has_value());
  CHECK(read(*ring, *image, kMiB, 512) == Bytes(512, 0x55));
  CHECK(read(*ring, *image, 0, 512) == Bytes(512, 0x66));
}

TEST_CASE("vdi_images_of_qemu_are_read_and_written_and_ours_by_qemu", "[vdi][qemu]") {
  if (!have_qemu_tools()) {
    WARN("qemu-img and qemu-io are not installed: not tested");
    return;
  }
  const bool fixed = GENERATE(false, true);
  const bool ours = GENERATE(false, true);
  const TemporaryDirectory directory;
  const auto path = directory.file("i.vdi");
  const auto ring = make_ring();
  if (ours) {
    auto file = FileDevice::create(*ring, {.path = path});
    REQUIRE(file.has_value());
    REQUIRE(sync_wait(*ring, formats::create_vdi(**file, {.size = 8 * kMiB, .fixed = fixed})).has_value());
    require_closed(*ring, **file);
  } else {
    qemu("qemu-img create -q -f vdi -o static=" + std::string(fixed ? "on" : "off") + " " + path + " 8M");
  }
  qemu("qemu-io -f vdi -c 'write -P 0x11 100k 3M' " + path);
  Bytes model(8 * kMiB);
  std::fill_n(model.begin() + 100 * 1024, 3 * kMiB, std::uint8_t{0x11});
  auto image = opened(sync_wait(*ring, VdiImage::open(open_file(*ring, path))));
  CHECK(read(*ring, *image, 0, model.size()) == model);
  const auto data = pattern(2 * kMiB, 3);
  REQUIRE(write(*ring, *image, 2 * kMiB + 12345, data).has_value());
  REQUIRE(write(*ring, *image, 7 * kMiB + 1, pattern(777, 4)).has_value());
  std::copy(data.begin(), data.end(), model.begin() + 2 * kMiB + 12345);
  const auto more = pattern(777, 4);
  std::copy(more.begin(), more.end(), model.begin() + 7 * kMiB + 1);
  require_closed(*ring, *image);
  qemu("qemu-img check -f vdi " + path);
  make_file(directory.file("model"), model);
  qemu("qemu-img compare -f vdi -F raw " + path + " " + directory.file("model"));
}

TEST_CASE("vdi_headers_that_cannot_be_are_refused", "[vdi][hostile]") {
  const auto ring = make_ring();
  const auto good = make(*ring, {.size = 4 * kMiB});
  const auto with = [&](std::size_t at, std::uint32_t value) {
    auto content = good;
    store_le<std::uint32_t>(&content[at], value);
    return refused(*ring, content);
  };
  CHECK(refused(*ring, {}) == "memory: Image not in VDI format (bad signature 00000000)");
  CHECK(with(64, 1) == "memory: Image not in VDI format (bad signature 00000001)");
  CHECK(with(68, 0x10002) == "memory: unsupported VDI image (version 1.2)");
  CHECK(with(76, 4) == "memory: unsupported VDI image (type 4 is neither dynamic nor fixed)");
  CHECK(with(340, 513) == "memory: unsupported VDI image (unaligned block map offset 0x201)");
  CHECK(
      with(340, 0) ==
      "memory: unsupported VDI image (the block map at offset 0x0 with 4 entries overlaps the header or the "
      "data at offset 0x400)");
  CHECK(with(344, 1025) == "memory: unsupported VDI image (unaligned data offset 0x401)");
  CHECK(with(344, 512) ==
        "memory: unsupported VDI image (the block map at offset 0x200 with 4 entries overlaps the header or "
        "the "
        "data at offset 0x200)");
  CHECK(with(360, 4096) == "memory: unsupported VDI image (sector size 4096 is not 512)");
  CHECK(with(372, 0x20000) ==
        "memory: Unsupported VDI image size (size is 0x2000000400000, max supported is 0x1fffff8000000)");
  CHECK(with(376, 65536) == "memory: unsupported VDI image (block size 65536 is not 1048576)");
  CHECK(with(380, 512) == "memory: unsupported VDI image (512 extra bytes before each block)");
  CHECK(with(384, 3) ==
        "memory: unsupported VDI image (disk size 4194304, image bitmap has room for 3145728)");
  CHECK(with(384, 0x1fffff81) ==
        "memory: unsupported VDI image (too many blocks 536870785, max is 536870784)");
  CHECK(with(424, 1) == "memory: unsupported VDI image (non-NULL link UUID)");
  CHECK(with(440, 1) == "memory: unsupported VDI image (non-NULL parent UUID)");
}

TEST_CASE("vdi_map_entries_that_cannot_be_are_errors_when_used", "[vdi][hostile]") {
  const auto ring = make_ring();
  auto content = make(*ring, {.size = 4 * kMiB});
  store_le<std::uint32_t>(&content[512], 4);
  store_le<std::uint32_t>(&content[516], 3);
  auto image = opened(sync_wait(*ring, VdiImage::open(memory_file(content))));
  CHECK(read(*ring, *image, 0, 1).error().message ==
        "memory: vdi block map entry 0 at offset 0x200 names block 4, but there are only 4");
  CHECK(read(*ring, *image, kMiB, 1).error().message ==
        "memory: vdi block at offset 0x300400 for disk offset 0x100000 is beyond the end of the file (1024 "
        "bytes)");
  CHECK(read(*ring, *image, 2 * kMiB, 1) == Bytes(1));
  const auto report = sync_wait(*ring, image->check());
  REQUIRE(report.has_value());
  CHECK(report->messages == std::vector<std::string>{"ERROR: block index 0 too large, is 4",
                                                     "ERROR: allocated blocks mismatch, is 1, should be 0"});
}

TEST_CASE("vdi_map_beyond_the_end_of_the_file_is_an_error_when_used", "[vdi][hostile]") {
  const auto ring = make_ring();
  auto content = make(*ring, {.size = 4 * kMiB});
  content.resize(512);
  auto image = opened(sync_wait(*ring, VdiImage::open(memory_file(content))));
  CHECK(read(*ring, *image, 0, 1).error().message ==
        "memory: vdi block map entry 0 at offset 0x200 is beyond the end of the file (512 bytes)");
  CHECK(write(*ring, *image, 0, Bytes(1)).error().code == ErrorCode::kCorrupt);
  CHECK(sync_wait(*ring, image->check()).error().code == ErrorCode::kCorrupt);
}

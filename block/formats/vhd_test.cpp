#include "block/formats/vhd.hpp"

#include "base/bytes.hpp"
#include "block/formats/test_images.hpp"

using namespace whistler;
using namespace whistler::test;
using formats::VhdImage;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kGiB = 1 << 30;

Bytes make(Ring& ring, const formats::VhdCreateOptions& options) {
  MemoryBlockDevice file(0);
  REQUIRE(sync_wait(ring, formats::create_vhd(file, options)).has_value());
  return file.bytes();
}

std::string refused(Ring& ring, const Bytes& content) {
  return refusal(sync_wait(ring, VhdImage::open(memory_file(content))));
}

/// Makes the checksum of the 512 bytes at `at` right again.
void seal(Bytes& content, std::size_t at) {
  store_be<std::uint32_t>(&content[at + 64], 0);
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < 512; ++i) {
    sum += content[at + i];
  }
  store_be<std::uint32_t>(&content[at + 64], ~sum);
}

}  // namespace

TEST_CASE("vhd_geometry_is_the_specification_s", "[vhd]") {
  using formats::vhd_geometry;
  CHECK(vhd_geometry(20480) == formats::VhdGeometry{301, 4, 17});
  CHECK(vhd_geometry(8388608) == formats::VhdGeometry{8322, 16, 63});
  CHECK(vhd_geometry(std::uint64_t{1} << 40) == formats::VhdGeometry{65535, 16, 255});
}

TEST_CASE("vhd_sizes_are_those_that_qemu_chooses", "[vhd][qemu]") {
  if (!have_qemu_tools()) {
    WARN("qemu-img and qemu-io are not installed: not tested");
    return;
  }
  const auto size = GENERATE(as<std::uint64_t>{}, 0, 512, 10 * kMiB, 4 * kGiB, 130 * kGiB, 2040 * kGiB);
  const bool force = GENERATE(false, true);
  const TemporaryDirectory directory;
  const auto path = directory.file("i.vhd");
  const auto ring = make_ring();
  qemu("qemu-img create -q -f vpc -o force_size=" + std::string(force ? "on" : "off") + " " + path + " " +
       std::to_string(size));
  auto theirs = file_content(path);
  auto ours = make(*ring, {.size = size, .force_size = force});
  REQUIRE(ours.size() == theirs.size());
  for (auto* content : {&ours, &theirs}) {
    for (const auto footer : {std::size_t{0}, content->size() - 512}) {
      std::fill_n(content->begin() + static_cast<std::ptrdiff_t>(footer) + 24, 4,
                  std::uint8_t{0});  // the time
      std::fill_n(content->begin() + static_cast<std::ptrdiff_t>(footer) + 64, 20,
                  std::uint8_t{0});  // checksum, UUID
    }
  }
  const bool equal = ours == theirs;
  CHECK(equal);
}

TEST_CASE("vhd_new_image_reads_as_zeroes_and_keeps_what_is_written", "[vhd]") {
  const auto ring = make_ring();
  const bool fixed = GENERATE(false, true);
  auto image = opened(sync_wait(
      *ring,
      VhdImage::open(memory_file(make(*ring, {.size = 10 * kMiB, .fixed = fixed, .force_size = true})))));
  CHECK(image->size() == 10 * kMiB);
  CHECK(image->fixed() == fixed);
  CHECK(read(*ring, *image, 3 * kMiB, 5000) == Bytes(5000));
  const auto data = pattern(kMiB + 3000, 1);
  REQUIRE(write(*ring, *image, 4 * kMiB - 1000, data).has_value());
  CHECK(read(*ring, *image, 4 * kMiB - 1000, data.size()) == data);
  CHECK(read(*ring, *image, 3 * kMiB, 500) == Bytes(500));
  REQUIRE(sync_wait(*ring, image->write_zeroes(4 * kMiB, 2000)).has_value());
  CHECK(read(*ring, *image, 4 * kMiB, 2000) == Bytes(2000));
  CHECK(write(*ring, *image, 10 * kMiB - 1, Bytes(2)).error().code == ErrorCode::kInvalid);
}

TEST_CASE("vhd_images_of_qemu_are_read_and_written_and_ours_by_qemu", "[vhd][qemu]") {
  if (!have_qemu_tools()) {
    WARN("qemu-img and qemu-io are not installed: not tested");
    return;
  }
  const bool fixed = GENERATE(false, true);
  const bool ours = GENERATE(false, true);
  const TemporaryDirectory directory;
  const auto path = directory.file("i.vhd");
  const auto ring = make_ring();
  if (ours) {
    auto file = FileDevice::create(*ring, {.path = path});
    REQUIRE(file.has_value());
    REQUIRE(
        sync_wait(*ring, formats::create_vhd(**file, {.size = 8 * kMiB, .fixed = fixed, .force_size = true}))
            .has_value());
    require_closed(*ring, **file);
  } else {
    qemu("qemu-img create -q -f vpc -o force_size=on,subformat=" + std::string(fixed ? "fixed" : "dynamic") +
         " " + path + " 8M");
  }
  qemu("qemu-io -f vpc -c 'write -P 0x11 100k 3M' " + path);
  Bytes model(8 * kMiB);
  std::fill_n(model.begin() + 100 * 1024, 3 * kMiB, std::uint8_t{0x11});
  auto image = opened(sync_wait(*ring, VhdImage::open(open_file(*ring, path))));
  CHECK(read(*ring, *image, 0, model.size()) == model);
  const auto data = pattern(2 * kMiB, 3);
  REQUIRE(write(*ring, *image, 2 * kMiB + 12345, data).has_value());
  REQUIRE(write(*ring, *image, 7 * kMiB + 1, pattern(777, 4)).has_value());
  std::copy(data.begin(), data.end(), model.begin() + 2 * kMiB + 12345);
  const auto more = pattern(777, 4);
  std::copy(more.begin(), more.end(), model.begin() + 7 * kMiB + 1);
  require_closed(*ring, *image);
  make_file(directory.file("model"), model);
  qemu("qemu-img compare -f vpc -F raw " + path + " " + directory.file("model"));
}

TEST_CASE("vhd_write_into_a_block_marks_its_sectors_as_used", "[vhd]") {
  const auto ring = make_ring();
  const TemporaryDirectory directory;
  const auto path = directory.file("i.vhd");
  auto content = make(*ring, {.size = 4 * kMiB, .force_size = true});
  const Bytes footer(content.end() - 512, content.end());
  const auto block = content.size() - 512;
  store_be<std::uint32_t>(&content[1536], static_cast<std::uint32_t>(block / 512));
  content.resize(block + 512 + 2 * kMiB);  // a block with an empty bitmap
  content.insert(content.end(), footer.begin(), footer.end());
  make_file(path, content);
  auto image = opened(sync_wait(*ring, VhdImage::open(open_file(*ring, path))));
  REQUIRE(write(*ring, *image, 5000, Bytes(10, 1)).has_value());
  require_closed(*ring, *image);
  const auto after = file_content(path);
  CHECK(std::all_of(after.begin() + static_cast<std::ptrdiff_t>(block),
                    after.begin() + static_cast<std::ptrdiff_t>(block) + 512,
                    [](std::uint8_t byte) { return byte == 0xff; }));
}

TEST_CASE("vhd_size_by_creator_geometry_or_field", "[vhd]") {
  const auto ring = make_ring();
  auto content = make(*ring, {.size = 10 * kMiB});  // rounded up to a geometry
  store_be<std::uint64_t>(&content[48], 10 * kMiB);
  seal(content, 0);
  const auto size = [&](formats::VhdSize how) {
    return opened(sync_wait(*ring, VhdImage::open(memory_file(content), how)))->size();
  };
  CHECK(size(formats::VhdSize::kByCreator) == 10514432);
  CHECK(size(formats::VhdSize::kGeometry) == 10514432);
  CHECK(size(formats::VhdSize::kCurrent) == 10 * kMiB);
  std::copy_n("win ", 4, &content[28]);
  seal(content, 0);
  CHECK(size(formats::VhdSize::kByCreator) == 10 * kMiB);
}

TEST_CASE("vhd_headers_that_cannot_be_are_refused", "[vhd][hostile]") {
  const auto ring = make_ring();
  const auto good = make(*ring, {.size = 10 * kMiB});
  const auto with = [&](std::size_t at, std::uint32_t value) {
    auto content = good;
    store_be<std::uint32_t>(&content[at], value);
    if (at < 512) {
      seal(content, 0);
    }
    return refused(*ring, content);
  };
  CHECK(refused(*ring, {}) == "memory: File too small for a VHD header");
  CHECK(refused(*ring, Bytes(511)) == "memory: invalid VPC image");
  CHECK(refused(*ring, Bytes(5000)) == "memory: invalid VPC image");
  auto damaged = good;
  damaged[56] ^= 1;
  CHECK(refused(*ring, damaged) == "memory: Incorrect header checksum");
  CHECK(with(60, 4) == "memory: vhd footer: differencing images are not supported");
  CHECK(with(60, 5) == "memory: vhd footer: the disk type 5 is none of fixed (2), dynamic (3)");
  CHECK(with(60, 2) ==
        "memory: vhd footer at offset 0x0: the fixed disk of 10514432 bytes does not fit in the file");
  CHECK(with(20, 3000) ==
        "memory: vhd dynamic header (1024 bytes at offset 0xbb8) is beyond the end of the file (2560 bytes)");
  CHECK(with(512, 0) == "memory: Invalid header magic");
  CHECK(with(528, 1).starts_with(
      "memory: vhd block table at offset 0x100000600 is beyond the end of the file"));
  CHECK(with(540, 5) == "memory: Page table too small");
  CHECK(with(540, 0xffffffff) == "memory: Max Table Entries too large (-1)");
  CHECK(
      with(540, 1000000) ==
      "memory: vhd block table (1000000 entries at offset 0x600) is beyond the end of the file (2560 bytes)");
  CHECK(with(544, 0x200001) == "memory: Invalid block size 2097153");
  CHECK(with(544, 0) == "memory: Invalid block size 0");
  CHECK(with(1536, 100) ==
        "memory: block-vpc: free_data_block_offset points after the end of file. The image has been "
        "truncated.");
}

TEST_CASE("vhd_block_in_the_header_is_an_error_when_used", "[vhd][hostile]") {
  const auto ring = make_ring();
  auto content = make(*ring, {.size = 10 * kMiB});
  store_be<std::uint32_t>(&content[1536], 0);
  content.resize(3 * kMiB);
  auto image = opened(sync_wait(*ring, VhdImage::open(memory_file(content))));
  CHECK(read(*ring, *image, 0, 1).error().message ==
        "memory: vhd block table entry 0 names offset 0x0, where the header is");
}

TEST_CASE("vhd_too_large_a_disk_is_not_made", "[vhd]") {
  const auto ring = make_ring();
  MemoryBlockDevice file(0);
  CHECK(sync_wait(*ring, formats::create_vhd(file, {.size = 2040 * kGiB + 1})).error().message ==
        "The image size is too large for file format 'vpc'");
  CHECK(file.size() == 0);
}

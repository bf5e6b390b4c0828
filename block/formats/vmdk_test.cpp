#include "block/formats/vmdk.hpp"

#include <zlib.h>

#include "base/bytes.hpp"
#include "block/formats/test_images.hpp"

using namespace whistler;
using namespace whistler::test;
using formats::VmdkImage;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;

/// A sparse image of 1 MiB in memory: directory at sector 1, table at 2, grain 3 (of 4 KiB) at sector 10.
Bytes sparse_image() {
  Bytes content(16 * 512);
  const auto put32 = [&](std::size_t at, std::uint32_t value) {
    store_le<std::uint32_t>(&content[at], value);
  };
  const auto put64 = [&](std::size_t at, std::uint64_t value) {
    store_le<std::uint64_t>(&content[at], value);
  };
  std::copy_n("KDMV", 4, content.begin());
  put32(4, 1);      // version
  put32(8, 3);      // flags
  put64(12, 2048);  // capacity
  put64(20, 8);     // grain
  put32(44, 512);   // entries of a table
  put64(56, 1);     // directory
  put64(64, 10);    // overhead
  put32(512, 2);    // the directory's only entry
  put32(1024 + 12, 10);
  std::fill(content.begin() + 10 * 512, content.end(), std::uint8_t{0});
  std::fill_n(content.begin() + 10 * 512, 6 * 512, std::uint8_t{0x77});
  return content;
}

/// The same with its grain compressed behind a marker.
Bytes compressed_image() {
  auto content = sparse_image();
  store_le<std::uint32_t>(&content[8], 0x30001);
  store_le<std::uint16_t>(&content[77], 1);
  const Bytes grain(4096, 0x66);
  auto bytes = static_cast<uLongf>(3000);
  store_le<std::uint64_t>(&content[5120], 24);  // the grain's first sector
  REQUIRE(compress(&content[5132], &bytes, grain.data(), static_cast<uLong>(grain.size())) == Z_OK);
  store_le<std::uint32_t>(&content[5128], static_cast<std::uint32_t>(bytes));
  return content;
}

Result<std::unique_ptr<VmdkImage>> open(Ring& ring, const Bytes& content) {
  NoSiblings siblings;
  return sync_wait(ring, VmdkImage::open(memory_file(content, true), siblings));
}

Bytes text(std::string_view extents, std::string_view type = "monolithicFlat") {
  const auto all = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"" +
                   std::string(type) + "\"\n" + std::string(extents) + "\n";
  return {all.begin(), all.end()};
}

std::string refused(Ring& ring, const Bytes& content) { return refusal(open(ring, content)); }

}  // namespace

TEST_CASE("vmdk_sparse_extent_has_grains_and_holes", "[vmdk]") {
  const auto ring = make_ring();
  auto content = sparse_image();
  content.resize(18 * 512, 0x77);
  auto image = opened(open(*ring, content));
  CHECK(image->size() == kMiB);
  CHECK(image->cluster_size() == 4096);
  CHECK(image->read_only());
  CHECK(image->descriptor().create_type == "monolithicSparse");
  CHECK(read(*ring, *image, 3 * 4096, 4096) == Bytes(4096, 0x77));
  CHECK(read(*ring, *image, 0, 4096) == Bytes(4096));
  const auto hole = sync_wait(*ring, image->block_status(0, kMiB));
  REQUIRE(hole.has_value());
  CHECK(hole->bytes == 3 * 4096);
  CHECK(hole->zero);
  CHECK_FALSE(hole->data);
}

TEST_CASE("vmdk_hole_shows_the_parent", "[vmdk]") {
  const auto ring = make_ring();
  auto image = opened(open(*ring, sparse_image()));
  auto parent = std::make_unique<MemoryBlockDevice>(5000);
  std::fill(parent->bytes().begin(), parent->bytes().end(), std::uint8_t{0x11});
  image->set_backing(std::move(parent));
  Bytes expected(6000, 0x11);
  std::fill(expected.begin() + 5000, expected.end(), std::uint8_t{0});
  CHECK(read(*ring, *image, 0, 6000) == expected);
}

TEST_CASE("vmdk_compressed_grain_is_inflated", "[vmdk]") {
  const auto ring = make_ring();
  auto image = opened(open(*ring, compressed_image()));
  CHECK(read(*ring, *image, 3 * 4096 + 100, 1000) == Bytes(1000, 0x66));
  CHECK(read(*ring, *image, 4 * 4096 - 10, 20) == [] {
    Bytes edge(20);
    std::fill_n(edge.begin(), 10, std::uint8_t{0x66});
    return edge;
  }());
}

TEST_CASE("vmdk_zero_grain_is_no_data", "[vmdk]") {
  const auto ring = make_ring();
  auto content = sparse_image();
  store_le<std::uint32_t>(&content[8], 3 | 4);
  store_le<std::uint32_t>(&content[1024], 1);
  auto image = opened(open(*ring, content));
  const auto status = sync_wait(*ring, image->block_status(0, kMiB));
  REQUIRE(status.has_value());
  CHECK(status->bytes == 4096);
  CHECK(status->zero);
  CHECK(status->data);
}

TEST_CASE("vmdk_images_of_every_kind_made_by_qemu_are_read", "[vmdk][qemu]") {
  if (!have_qemu_tools()) {
    WARN("qemu-img and qemu-io are not installed: not tested");
    return;
  }
  const auto kind =
      GENERATE(as<std::string>{}, "monolithicSparse", "monolithicSparse,zeroed_grain=on", "monolithicFlat",
               "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized");
  INFO(kind);
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  Bytes model(5 * kMiB + 512);
  const auto data = pattern(2 * kMiB, 5);
  std::copy(data.begin(), data.end(), model.begin() + 300000);
  std::fill_n(model.end() - 512, 512, std::uint8_t{0x99});
  make_file(directory.file("raw"), model);
  qemu("qemu-img convert -f raw -O vmdk -o subformat=" + kind + " " + directory.file("raw") + " " +
       directory.file("i.vmdk"));
  DirectoryOpener siblings(*ring, directory.file(""));
  auto image =
      opened(sync_wait(*ring, VmdkImage::open(open_file(*ring, directory.file("i.vmdk"), true), siblings)));
  CHECK(image->size() == model.size());
  CHECK(read(*ring, *image, 0, model.size()) == model);
  CHECK(read(*ring, *image, 300001, 70000) == Bytes(data.begin() + 1, data.begin() + 70001));
  require_closed(*ring, *image);
}

TEST_CASE("vmdk_extents_of_two_gigabytes_follow_each_other", "[vmdk][qemu]") {
  if (!have_qemu_tools()) {
    WARN("qemu-img and qemu-io are not installed: not tested");
    return;
  }
  const auto kind = GENERATE(as<std::string>{}, "twoGbMaxExtentSparse", "twoGbMaxExtentFlat");
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = directory.file("i.vmdk");
  qemu("qemu-img create -q -f vmdk -o subformat=" + kind + " " + path + " 5G");
  qemu("qemu-io -f vmdk -c 'write -P 0x21 2147483136 1k' -c 'write -P 0x22 4G 1k' " + path);
  DirectoryOpener siblings(*ring, directory.file(""));
  auto image = opened(sync_wait(*ring, VmdkImage::open(open_file(*ring, path, true), siblings)));
  CHECK(image->extents().size() == 3);
  CHECK(read(*ring, *image, 2147483136, 1024) == Bytes(1024, 0x21));
  CHECK(read(*ring, *image, std::uint64_t{4} << 30, 1024) == Bytes(1024, 0x22));
  CHECK(read(*ring, *image, std::uint64_t{3} << 30, 1024) == Bytes(1024));
  require_closed(*ring, *image);
}

TEST_CASE("vmdk_descriptor_is_recognized_behind_comments", "[vmdk]") {
  const auto is = [](std::string_view start) { return formats::is_vmdk_descriptor(start); };
  CHECK(is("# Disk DescriptorFile\r\nversion=1\r\n"));
  CHECK(is("\n\n# x\nversion=3\n"));
  CHECK_FALSE(is("version=4\n"));
  CHECK_FALSE(is("# only a comment"));
  CHECK_FALSE(is(""));
}

TEST_CASE("vmdk_descriptor_names_the_parent", "[vmdk]") {
  const auto parsed = formats::parse_vmdk_descriptor(
      "version=1\nCID=fffffffe\nparentCID=00000010\ncreateType=\"monolithicSparse\"\nparentFileNameHint=\"a "
      "b.vmdk\"\n"
      "RW 10 SPARSE \"x.vmdk\"\nRDONLY 20 ZERO\nRW 5 VMFS \"y.vmdk\"\n");
  REQUIRE(parsed.has_value());
  CHECK(parsed->cid == 0xfffffffe);
  CHECK(parsed->parent_cid == 0x10);
  CHECK(parsed->parent_name == "a b.vmdk");
  REQUIRE(parsed->extents.size() == 3);
  CHECK(parsed->extents[1].type == formats::VmdkExtentType::kZero);
  CHECK(parsed->extents[2].file == "y.vmdk");
}

TEST_CASE("vmdk_descriptors_that_cannot_be_are_refused", "[vmdk][hostile]") {
  const auto ring = make_ring();
  CHECK(refused(*ring, {}) == "memory: File is too small, not a valid image");
  CHECK(refused(*ring, Bytes(1000)) == "memory: invalid VMDK image descriptor");
  CHECK(refused(*ring, Bytes(2 * kMiB)) == "memory: invalid VMDK image descriptor");
  CHECK(refused(*ring, text("", "seSparse")) == "memory: Unsupported image type 'seSparse'");
  CHECK(refused(*ring, text("RW 12582912 VMFS \"dummy.vmdk\" 1")) ==
        "memory: Invalid extent line: RW 12582912 VMFS \"dummy.vmdk\" 1");
  CHECK(refused(*ring, text("RW 10 FLAT \"a\"")) == "memory: Invalid extent line: RW 10 FLAT \"a\"");
  CHECK(refused(*ring, text("RW 10 FLAT \"a\" -1")) == "memory: Invalid extent line: RW 10 FLAT \"a\" -1");
  CHECK(refused(*ring, text("RW 10 FLAT \"\" 0")) == "memory: Invalid extent line: RW 10 FLAT \"\" 0");
  CHECK(refused(*ring, text("RW 0 ZERO")) == "memory: Invalid extent line: RW 0 ZERO");
  CHECK(refused(*ring, text("RW 99999999999999999999 ZERO")) ==
        "memory: Invalid extent line: RW 99999999999999999999 ZERO");
  CHECK(refused(*ring, text("RW 10 SESPARSE \"a\"")) == "memory: Unsupported extent type 'SESPARSE'");
  CHECK(refused(*ring, text("NOACCESS 10 FLAT \"a\" 0")) ==
        "memory: vmdk descriptor: access to an extent is forbidden: NOACCESS 10 FLAT \"a\" 0");
  CHECK(refused(*ring, text("RW 10 FLAT \"/etc/passwd\" 0")) ==
        "refers to '/etc/passwd', which is not allowed here");
  CHECK(refused(*ring, text("CID=123456789")) ==
        "memory: vmdk descriptor: CID '123456789' is not a number of 32 bits");
}

TEST_CASE("vmdk_descriptor_of_more_extents_than_any_disk_has_is_refused", "[vmdk][hostile]") {
  const auto with = [](int extents) {
    std::string text =
        "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentFlat\"\n";
    for (int i = 0; i < extents; ++i) {
      text += "RW 16 ZERO\n";
    }
    return formats::parse_vmdk_descriptor(text);
  };
  CHECK(with(4096).has_value());
  const auto refused = with(4097);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().message == "vmdk descriptor: more than 4096 extents");
}

TEST_CASE("vmdk_headers_that_cannot_be_are_refused", "[vmdk][hostile]") {
  const auto ring = make_ring();
  const auto good = sparse_image();
  const auto with = [&](std::size_t at, std::uint64_t value, std::size_t bytes = 4) {
    auto content = good;
    store_little(&content[at], bytes, value);
    return refused(*ring, content);
  };
  const auto all = ~std::uint64_t{0};
  CHECK(with(4, 4) == "memory: Unsupported VMDK version 4");
  CHECK(with(20, all, 8) == "memory: Invalid granularity, image may be corrupt");
  CHECK(with(20, 0, 8) == "memory: Invalid granularity, image may be corrupt");
  CHECK(with(44, all) == "memory: L2 table size too big");
  CHECK(with(44, 0) == "memory: vmdk header: a grain table has no entries");
  CHECK(with(12, all, 8) == "memory: L1 size too big");
  CHECK(with(28, 100000, 8) ==
        "memory: vmdk descriptor at sector 100000 with 0 sectors is too large or beyond the end of the file "
        "(8192 "
        "bytes)");
  CHECK(with(56, 17, 8) ==
        "memory: vmdk grain directory at offset 0x2200 is beyond the end of the file (8192 bytes)");
  CHECK(with(56, all, 8) == "memory: Invalid footer");
  CHECK(with(64, 20, 8) == "memory: File truncated, expecting at least 10240 bytes");
  CHECK(with(77, 2, 2) == "memory: vmdk header: compression method 2 is not known");
  auto content = compressed_image();
  store_le<std::uint64_t>(&content[20], 0x100000);
  CHECK(refused(*ring, content) == "memory: vmdk header: compressed grains of 536870912 bytes are too large");
}

TEST_CASE("vmdk_tables_and_grains_that_cannot_be_are_errors_when_used", "[vmdk][hostile]") {
  const auto ring = make_ring();
  const auto error = [&](const Bytes& content) {
    auto image = opened(open(*ring, content));
    const auto got = read(*ring, *image, 3 * 4096, 4096);
    return got ? std::string("read") : got.error().message;
  };
  auto content = sparse_image();
  store_le<std::uint32_t>(&content[512], 0xffffffff);
  CHECK(error(content) ==
        "memory: vmdk grain directory or table at offset 0x0 has 2048 entries, none numbered 549755813763");
  content = sparse_image();
  store_le<std::uint32_t>(&content[1024 + 12], 100);
  CHECK(error(content) ==
        "memory: vmdk block at offset 0xc800 for disk offset 0x3000 is beyond the end of the file (8192 "
        "bytes)");
  content = compressed_image();
  CHECK(error(content) == "read");
  content[5140] ^= 0x55;
  CHECK(error(content) == "memory: vmdk grain at offset 0x1400: its compressed data is damaged");
  content = compressed_image();
  store_le<std::uint32_t>(&content[5128], 5000);
  CHECK(error(content) ==
        "memory: vmdk grain marker at offset 0x1400: 5000 bytes of data are none, too many or beyond the end "
        "of the "
        "file");
  content = compressed_image();
  content[5120] = 8;
  CHECK(error(content) ==
        "memory: vmdk grain marker at offset 0x1400: it is of sector 8, not of that at disk offset 0x3000");
}

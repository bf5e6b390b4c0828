#include "block/formats/vhdx.hpp"

#include "base/bytes.hpp"
#include "block/formats/test_images.hpp"

using namespace whistler;
using namespace whistler::test;
using formats::VhdxImage;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::size_t kKiB = 1024;
constexpr std::size_t kLogAt = kMiB;
constexpr std::size_t kMetadataAt = 2 * kMiB;
constexpr std::size_t kTableAt = 3 * kMiB;
constexpr std::size_t kBlockAt = 4 * kMiB;

void put_guid(std::uint8_t* to, std::string_view hex) {
  for (std::size_t i = 0; i < 16; ++i) {
    to[i] = static_cast<std::uint8_t>(std::stoul(std::string(hex.substr(2 * i, 2)), nullptr, 16));
  }
}

void seal(Bytes& content, std::size_t at, std::size_t bytes) {
  store_le<std::uint32_t>(&content[at + 4], 0);
  store_le<std::uint32_t>(&content[at + 4], formats::crc32c(&content[at], bytes));
}

void put_header(Bytes& content, std::size_t at, std::uint64_t sequence, bool log) {
  std::copy_n("head", 4, &content[at]);
  store_le<std::uint64_t>(&content[at + 8], sequence);
  std::fill_n(&content[at + 48], 16, log ? std::uint8_t{0x5a} : std::uint8_t{0});
  store_le<std::uint16_t>(&content[at + 66], 1);
  store_le<std::uint32_t>(&content[at + 68], kMiB);
  store_le<std::uint64_t>(&content[at + 72], kLogAt);
  seal(content, at, 4096);
}

void put_region(std::uint8_t* to, std::string_view guid, std::uint64_t offset) {
  put_guid(to, guid);
  store_le<std::uint64_t>(to + 16, offset);
  store_le<std::uint32_t>(to + 24, kMiB);
  store_le<std::uint32_t>(to + 28, 1);
}

void put_item(Bytes& content, std::size_t number, std::string_view guid, std::uint32_t offset,
              std::uint64_t value) {
  auto* entry = &content[kMetadataAt + 32 + number * 32];
  put_guid(entry, guid);
  store_le<std::uint32_t>(entry + 16, offset);
  store_le<std::uint32_t>(entry + 20, 8);
  store_le<std::uint32_t>(entry + 24, 4);
  store_le<std::uint64_t>(&content[kMetadataAt + offset], value);
}

/// A disk of 8 MiB in blocks of 1 MiB, the fourth of which is in the file.
Bytes make(bool log = false) {
  Bytes content(5 * kMiB);
  std::copy_n("vhdxfile", 8, content.begin());
  put_header(content, 64 * kKiB, 7, log);
  put_header(content, 128 * kKiB, 6, false);
  for (const auto at : {192 * kKiB, 256 * kKiB}) {
    std::copy_n("regi", 4, &content[at]);
    store_le<std::uint32_t>(&content[at + 8], 2);
    put_region(&content[at + 16], "6677c22d23f600429d64115e9bfd4a08", kTableAt);
    put_region(&content[at + 48], "06a27c8b90479a4bb8fe575f050f886e", kMetadataAt);
    seal(content, at, 64 * kKiB);
  }
  std::copy_n("metadata", 8, &content[kMetadataAt]);
  store_le<std::uint16_t>(&content[kMetadataAt + 10], 3);
  put_item(content, 0, "3767a1ca36fa434db3b633f0aa44e76b", 65536, kMiB);
  put_item(content, 1, "2442a52f1bcd7648b2115dbed83bf4b8", 65544, 8 * kMiB);
  put_item(content, 2, "1dbf41816fa90947ba47f233a8faab5f", 65552, 512);
  store_le<std::uint64_t>(&content[kTableAt + 3 * 8], kBlockAt | 6);
  std::fill(content.begin() + kBlockAt, content.end(), std::uint8_t{0x44});
  return content;
}

/// One log entry at `at` that puts `table_entry` as the third of the table, by way of a sector of the table.
void put_log_entry(Bytes& content, std::size_t at, std::uint64_t sequence, std::uint32_t tail,
                   std::uint64_t table_entry) {
  auto* entry = &content[kLogAt + at];
  std::copy_n("loge", 4, entry);
  store_le<std::uint32_t>(entry + 8, 8192);
  store_le<std::uint32_t>(entry + 12, tail);
  store_le<std::uint64_t>(entry + 16, sequence);
  store_le<std::uint32_t>(entry + 24, 2);
  std::fill_n(entry + 32, 16, std::uint8_t{0x5a});
  store_le<std::uint64_t>(entry + 48, 5 * kMiB);
  store_le<std::uint64_t>(entry + 56, 6 * kMiB);
  std::copy_n("zero", 4, entry + 64);
  store_le<std::uint64_t>(entry + 72, 4096);
  store_le<std::uint64_t>(entry + 80, kBlockAt);
  store_le<std::uint64_t>(entry + 88, sequence);
  std::copy_n("desc", 4, entry + 96);
  store_le<std::uint64_t>(entry + 112, kTableAt);
  store_le<std::uint64_t>(entry + 120, sequence);
  auto* data = entry + 4096;
  std::copy_n("data", 4, data);
  store_le<std::uint64_t>(data + 2 * 8, table_entry);
  store_le<std::uint64_t>(data + 3 * 8, kBlockAt | 6);
  store_le<std::uint32_t>(data + 4092, static_cast<std::uint32_t>(sequence));
  seal(content, kLogAt + at, 8192);
}

Result<std::unique_ptr<VhdxImage>> open(Ring& ring, const Bytes& content, bool read_only = true) {
  return sync_wait(ring, VhdxImage::open(memory_file(content, read_only)));
}

std::string refused(Ring& ring, const Bytes& content) { return refusal(open(ring, content)); }

}  // namespace

TEST_CASE("vhdx_crc32c_is_castagnoli", "[vhdx]") { CHECK(formats::crc32c("123456789", 9) == 0xe3069283); }

TEST_CASE("vhdx_blocks_are_read", "[vhdx]") {
  const auto ring = make_ring();
  auto image = opened(open(*ring, make()));
  CHECK(image->size() == 8 * kMiB);
  CHECK(image->cluster_size() == kMiB);
  CHECK(read(*ring, *image, 3 * kMiB - 10, 20) == [] {
    Bytes edge(20, 0x44);
    std::fill_n(edge.begin(), 10, std::uint8_t{0});
    return edge;
  }());
  CHECK(write(*ring, *image, 0, Bytes(1)).error().code == ErrorCode::kPermission);
}

TEST_CASE("vhdx_log_is_replayed_in_memory_for_a_reader", "[vhdx]") {
  const auto ring = make_ring();
  auto content = make(true);
  put_log_entry(content, 0, 20, 0, (kBlockAt + kMiB) | 6);
  auto file = std::make_unique<MemoryBlockDevice>(content.size(), true);
  file->bytes() = content;
  auto* bytes = &file->bytes();
  auto image = opened(sync_wait(*ring, VhdxImage::open(std::move(file))));
  CHECK_FALSE(image->log_replayed());
  CHECK(read(*ring, *image, 3 * kMiB, 4096) == Bytes(4096));           // by the zero descriptor
  CHECK(read(*ring, *image, 3 * kMiB + 4096, 10) == Bytes(10, 0x44));  // as before
  CHECK(read(*ring, *image, 2 * kMiB, 10) == Bytes(10));  // by the new table entry: beyond the old file
  const auto status = sync_wait(*ring, image->block_status(2 * kMiB, kMiB));
  CHECK(status->data);
  CHECK_FALSE(status->zero);
  CHECK(*bytes == content);
}

TEST_CASE("vhdx_log_is_carried_out_on_a_writable_file", "[vhdx]") {
  const auto ring = make_ring();
  const TemporaryDirectory directory;
  const auto path = directory.file("i.vhdx");
  auto content = make(true);
  put_log_entry(content, 8192, 21, 0, (kBlockAt + kMiB) | 6);
  put_log_entry(content, 0, 20, 0, 0);
  make_file(path, content);
  auto image = opened(sync_wait(*ring, VhdxImage::open(open_file(*ring, path))));
  CHECK(image->log_replayed());
  require_closed(*ring, *image);
  CHECK(file_content(path).size() == 6 * kMiB);
  image =
      opened(sync_wait(*ring, VhdxImage::open(open_file(*ring, path, true), formats::VhdxDirtyLog::kRefuse)));
  CHECK(read(*ring, *image, 3 * kMiB, 4096) == Bytes(4096));
  CHECK(sync_wait(*ring, image->block_status(2 * kMiB, kMiB))->data);
  require_closed(*ring, *image);
}

TEST_CASE("vhdx_log_is_refused_for_a_reader_who_says_so", "[vhdx]") {
  const auto ring = make_ring();
  auto content = make(true);
  put_log_entry(content, 0, 20, 0, 0);
  CHECK(refusal(
            sync_wait(*ring, VhdxImage::open(memory_file(content, true), formats::VhdxDirtyLog::kRefuse))) ==
        "memory: VHDX image file 'memory' opened read-only, but contains a log that needs to be replayed\n"
        "To replay the log, run:\nqemu-img check -r all 'memory'");
}

TEST_CASE("vhdx_newest_valid_sequence_wins_and_a_torn_entry_ends_it", "[vhdx]") {
  const auto ring = make_ring();
  auto content = make(true);
  put_log_entry(content, 0, 20, 0, kBlockAt | 6);
  put_log_entry(content, 8192, 21, 0, 0);
  content[kLogAt + 8192 + 5000] ^= 1;          // torn: only the first counts
  put_log_entry(content, 65536, 5, 65536, 0);  // an old one
  auto image = opened(open(*ring, content));
  CHECK(sync_wait(*ring, image->block_status(2 * kMiB, kMiB))->zero == false);
}

TEST_CASE("vhdx_log_wraps_around_the_end", "[vhdx]") {
  const auto ring = make_ring();
  auto content = make(true);
  put_log_entry(content, kMiB - 8192, 20, kMiB - 8192, 0);
  put_log_entry(content, 0, 21, kMiB - 8192, kBlockAt | 6);
  auto image = opened(open(*ring, content));
  CHECK(sync_wait(*ring, image->block_status(2 * kMiB, kMiB))->zero == false);
}

TEST_CASE("vhdx_images_of_qemu_are_read", "[vhdx][qemu]") {
  if (!have_qemu_tools()) {
    WARN("qemu-img and qemu-io are not installed: not tested");
    return;
  }
  const auto options = GENERATE(as<std::string>{}, "subformat=dynamic", "subformat=fixed",
                                "subformat=dynamic,block_size=1M", "subformat=dynamic,block_state_zero=off");
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  Bytes model(9 * kMiB);
  const auto data = pattern(2 * kMiB, 5);
  std::copy(data.begin(), data.end(), model.begin() + 300000);
  make_file(directory.file("raw"), model);
  const auto path = directory.file("i.vhdx");
  qemu("qemu-img convert -f raw -O vhdx -o " + options + " " + directory.file("raw") + " " + path);
  auto image = opened(sync_wait(*ring, VhdxImage::open(open_file(*ring, path, true))));
  CHECK(read(*ring, *image, 0, model.size()) == model);
  require_closed(*ring, *image);
}

TEST_CASE("vhdx_structures_that_cannot_be_are_refused", "[vhdx][hostile]") {
  const auto ring = make_ring();
  CHECK(refused(*ring, {}) ==
        "memory: vhdx file identifier at offset 0: the signature 'vhdxfile' is missing");
  auto content = make();
  content.resize(70000);
  CHECK(refused(*ring, content) ==
        "memory: vhdx header (4096 bytes at offset 0x20000) is beyond the end of the file (70000 bytes)");
  content = make();
  content[64 * kKiB + 100] ^= 1;
  CHECK(refused(*ring, content) == "opened");
  content[128 * kKiB + 100] ^= 1;
  CHECK(refused(*ring, content) == "memory: vhdx headers at offsets 0x10000 and 0x20000: neither is valid");
  content = make();
  content[192 * kKiB + 100] ^= 1;
  CHECK(refused(*ring, content) == "opened");
  content[256 * kKiB + 100] ^= 1;
  CHECK(refused(*ring, content) ==
        "memory: vhdx region table at offset 0x30000: the signature, the checksum or the number of entries "
        "is wrong");
}

TEST_CASE("vhdx_regions_that_cannot_be_are_refused", "[vhdx][hostile]") {
  const auto ring = make_ring();
  const auto with = [&](std::size_t at, std::uint64_t value, std::size_t bytes) {
    auto content = make();
    for (const auto table : {192 * kKiB, 256 * kKiB}) {
      store_little(&content[table + at], bytes, value);
      seal(content, table, 64 * kKiB);
    }
    return refused(*ring, content);
  };
  CHECK(with(32, 5 * kMiB, 8) ==
        "memory: vhdx region table at offset 0x30000: region 2dc27766-f623-4200-9d64115e9bfd4a08 (1048576 "
        "bytes at "
        "offset 0x500000) is not in the file (5242880 bytes)");
  CHECK(with(16, 1, 1) ==
        "memory: vhdx region table at offset 0x30000: the required region "
        "2dc27701-f623-4200-9d64115e9bfd4a08 is not "
        "known");
  CHECK(with(8, 1, 4) ==
        "memory: vhdx region table at offset 0x30000: the block allocation table or the metadata region is "
        "missing");
  CHECK(with(8, 5000, 4) ==
        "memory: vhdx region table at offset 0x30000: the signature, the checksum or the number of entries "
        "is wrong");
}

TEST_CASE("vhdx_metadata_that_cannot_be_is_refused", "[vhdx][hostile]") {
  const auto ring = make_ring();
  const auto with = [&](std::size_t at, std::uint64_t value, std::size_t bytes) {
    auto content = make();
    store_little(&content[kMetadataAt + at], bytes, value);
    return refused(*ring, content);
  };
  const std::string at = "memory: vhdx metadata at offset 0x200000: ";
  CHECK(with(0, 0, 1) ==
        "memory: vhdx metadata table at offset 0x200000: the signature, the length or the number of entries "
        "is wrong");
  CHECK(
      with(48, 0x100000, 4) ==
      "memory: vhdx metadata table at offset 0x200000: item caa16737-fa36-4d43-b3b633f0aa44e76b (8 bytes at "
      "0x100000) is not in the region of 1048576 bytes");
  CHECK(with(32, 0, 1) ==
        "memory: vhdx metadata at offset 0x210000: the required item caa16700-fa36-4d43-b3b633f0aa44e76b is "
        "not known");
  CHECK(with(65536, 3 * kMiB, 4) ==
        at + "a block size of 3145728 is not a power of two between 1 MiB and 256 MiB");
  CHECK(with(65540, 2, 4) == at + "differencing images are not supported");
  CHECK(with(65544, std::uint64_t{65} << 40, 8) ==
        at + "a disk size of 71468255805440 is too large or not a multiple of the sector size");
  CHECK(with(65544, std::uint64_t{1} << 40, 8) ==
        "memory: vhdx block allocation table at offset 0x300000: 1048576 bytes are too few for the 1048831 "
        "entries of "
        "a disk of 1099511627776 bytes");
  CHECK(with(65552, 1024, 4) == at + "a logical sector size of 1024 is neither 512 nor 4096");
}

TEST_CASE("vhdx_logs_that_cannot_be_are_refused", "[vhdx][hostile]") {
  const auto ring = make_ring();
  const std::string at = "memory: vhdx log (1048576 bytes at offset 0x100000): ";
  CHECK(refused(*ring, make(true)) ==
        at + "it has no valid sequence of entries, but the header says that it must be replayed");
  auto content = make(true);
  put_log_entry(content, 0, 20, 0, 0);
  store_le<std::uint64_t>(&content[kLogAt + 80], 100);
  seal(content, kLogAt, 8192);
  CHECK(refused(*ring, content) == at + "the entry at 0x0 contradicts itself");
  content = make(true);
  put_log_entry(content, 0, 20, 0, 0);
  content.resize(5 * kMiB - 4096);
  CHECK(refused(*ring, content) ==
        at + "the entry at 0x0 needs a file of 5242880 bytes, but the file was cut to 5238784");
  content = make(true);
  store_le<std::uint32_t>(&content[64 * kKiB + 68], 0xfffff000);
  seal(content, 64 * kKiB, 4096);
  CHECK(refused(*ring, content) ==
        "memory: vhdx log (4294963200 bytes at offset 0x100000): its place or length is not allowed");
}

TEST_CASE("vhdx_table_entries_that_cannot_be_are_errors_when_used", "[vhdx][hostile]") {
  const auto ring = make_ring();
  auto content = make();
  store_le<std::uint64_t>(&content[kTableAt], 7);
  store_le<std::uint64_t>(&content[kTableAt + 8], 6);
  store_le<std::uint64_t>(&content[kTableAt + 16], (std::uint64_t{1} << 50) | 6);
  auto image = opened(open(*ring, content));
  CHECK(read(*ring, *image, 0, 1).error().message ==
        "memory: vhdx block allocation table entry 0 at offset 0x300000: state 7 is not allowed in an image "
        "without a "
        "parent");
  CHECK(read(*ring, *image, kMiB, 1).error().message ==
        "memory: vhdx block allocation table entry 1 at offset 0x300008 names the headers of the file");
  CHECK(read(*ring, *image, 2 * kMiB, 1).error().message ==
        "memory: vhdx block at offset 0x4000000000000 for disk offset 0x200000 is beyond the end of the file "
        "(5242880 "
        "bytes)");
}

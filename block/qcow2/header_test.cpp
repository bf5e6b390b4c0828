#include "block/qcow2/header.hpp"

#include <catch2/catch.hpp>
#include <cstring>
#include <random>

using namespace whistler;
using namespace whistler::qcow2;

namespace {

constexpr std::uint64_t kFileSize = 1 << 20;

Header valid() {
  Header header;
  header.size = 10 << 20;
  header.l1_size = 1;
  header.l1_table_offset = 0x30000;
  header.refcount_table_offset = 0x10000;
  header.refcount_table_clusters = 1;
  return header;
}

std::vector<std::uint8_t> encoded(Header header) {
  auto bytes = encode_header(header);
  REQUIRE(bytes.has_value());
  bytes->resize(65536);
  return *bytes;
}

std::string error_of(const std::vector<std::uint8_t>& bytes) {
  const auto parsed = parse_header(bytes, kFileSize, "x.qcow2");
  REQUIRE_FALSE(parsed.has_value());
  return parsed.error().message;
}

/// The error after `change` was made to the fields of a valid header.
template <typename Change>
std::string error_after(Change change) {
  auto bytes = encoded(valid());
  DiskHeader disk;
  std::memcpy(&disk, bytes.data(), sizeof disk);
  change(disk);
  std::memcpy(bytes.data(), &disk, sizeof disk);
  return error_of(bytes);
}

}  // namespace

TEST_CASE("header_survives_encoding_with_unknown_extensions", "[qcow2]") {
  auto header = valid();
  header.backing_file = "../base.qcow2";
  header.set_extension_text(kBackingFormatExtension, "qcow2");
  header.extensions.push_back({0x12345678, {1, 2, 3}});
  const auto parsed = parse_header(encoded(header), kFileSize, "x");
  REQUIRE(parsed.has_value());
  CHECK(parsed->backing_file == "../base.qcow2");
  CHECK(parsed->backing_format() == "qcow2");
  REQUIRE(parsed->find_extension(0x12345678) != nullptr);
  CHECK(parsed->find_extension(0x12345678)->data == std::vector<std::uint8_t>{1, 2, 3});
  CHECK(parsed->size == 10 << 20);
}

TEST_CASE("header_with_unknown_incompatible_feature_is_refused_by_its_name", "[qcow2]") {
  auto header = valid();
  header.incompatible = 1ULL << 40 | 1ULL << 41;
  auto names = feature_names();
  names.data[1] = 40;
  header.extensions.push_back(names);
  const auto parsed = parse_header(encoded(header), kFileSize, "x.qcow2");
  REQUIRE_FALSE(parsed.has_value());
  CHECK(parsed.error().code == ErrorCode::kUnsupported);
  CHECK(parsed.error().message ==
        "x.qcow2: the image needs qcow2 features this program does not have: dirty bit (bit 40), bit 41");
}

TEST_CASE("header_field_out_of_range_is_named_with_its_value", "[qcow2]") {
  CHECK(error_after([](DiskHeader& h) { h.magic = 1; }) ==
        "x.qcow2: is not a qcow2 image (it does not begin with 'QFI\\xfb')");
  CHECK(error_after([](DiskHeader& h) { h.version = 4; }) == "x.qcow2: qcow2 version 4 is neither 2 nor 3");
  CHECK(error_after([](DiskHeader& h) { h.cluster_bits = 8; }) ==
        "x.qcow2: qcow2 header: cluster bits 8 are not between 9 and 21");
  CHECK(error_after([](DiskHeader& h) { h.cluster_bits = 0xffffffff; }).find("cluster bits 4294967295") !=
        std::string::npos);
  CHECK(error_after([](DiskHeader& h) { h.header_length = 100; }).find("header length 100") !=
        std::string::npos);
  CHECK(error_after([](DiskHeader& h) { h.refcount_order = 7; }).find("refcount order 7") !=
        std::string::npos);
  CHECK(error_after([](DiskHeader& h) { h.size = ~0ULL; }).find("more than any L1 table can map") !=
        std::string::npos);
  CHECK(error_after([](DiskHeader& h) { h.l1_size = 0x7fffffff; }).find("2147483647 entries") !=
        std::string::npos);
  CHECK(error_after([](DiskHeader& h) { h.l1_table_offset = 0x30001; }).find("not at a cluster boundary") !=
        std::string::npos);
  CHECK(error_after([](DiskHeader& h) {
          h.l1_table_offset = ~0xffffULL;
        }).find("beyond the end of the file") != std::string::npos);
  CHECK(error_after([](DiskHeader& h) { h.l1_table_offset = 0; }).find("at offset 0") != std::string::npos);
  CHECK(error_after([](DiskHeader& h) { h.refcount_table_clusters = 0; }).find("no refcount table") !=
        std::string::npos);
  CHECK(error_after([](DiskHeader& h) { h.refcount_table_clusters = ~0U; }).find("more than the allowed") !=
        std::string::npos);
  CHECK(error_after([](DiskHeader& h) { h.nb_snapshots = 70000; }).find("70000 snapshots") !=
        std::string::npos);
  CHECK(error_after([](DiskHeader& h) { h.crypt_method = 2; }).find("Missing CRYPTO header") !=
        std::string::npos);
  CHECK(error_after([](DiskHeader& h) { h.crypt_method = 3; }).find("encryption method 3") !=
        std::string::npos);
  CHECK(error_after([](DiskHeader& h) { h.compression_type = 1; }).find("contradict") != std::string::npos);
  CHECK(error_after([](DiskHeader& h) { h.backing_file_offset = 100; }).find("backing file name") !=
        std::string::npos);
  CHECK(error_after([](DiskHeader& h) {
          h.backing_file_offset = 0xfff0;
          h.backing_file_size = 100;
        }).find("backing file name") != std::string::npos);
}

TEST_CASE("header_cut_short_or_of_random_bytes_is_an_error_never_a_crash", "[qcow2]") {
  const auto whole = encoded(valid());
  for (std::size_t length = 0; length < 600; ++length) {
    const std::vector<std::uint8_t> part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
    static_cast<void>(parse_header(part, length, "x"));
  }
  std::mt19937 random(1);
  int refused = 0;
  for (int round = 0; round < 20000; ++round) {
    auto bytes = whole;
    bytes.resize(1024);
    for (int flips = 0; flips < 3; ++flips) {
      bytes[8 + random() % 200] = static_cast<std::uint8_t>(random());
    }
    refused += parse_header(bytes, kFileSize, "x").has_value() ? 0 : 1;
  }
  CHECK(refused > 1000);
}

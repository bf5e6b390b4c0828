#include "block/raw.hpp"

#include "block/open.hpp"
#include "block/test_support.hpp"

using namespace whistler;
using namespace whistler::test;

TEST_CASE("raw_size_is_rounded_up_to_a_sector_and_the_rest_reads_zero", "[raw]") {
  const TemporaryDirectory directory;
  make_file(directory.file("odd"), Bytes(1000, 5));
  const auto ring = make_ring();
  auto device = open_image(*ring, {.path = directory.file("odd"), .format = "raw"});
  REQUIRE(device.has_value());
  CHECK((*device)->size() == 1024);
  const auto tail = read(*ring, **device, 512, 512);
  REQUIRE(tail.has_value());
  CHECK((*tail)[487] == 5);
  CHECK((*tail)[488] == 0);
  CHECK(write(*ring, **device, 512, Bytes(512, 9)).has_value());
  CHECK(file_content(directory.file("odd")).size() == 1024);
}

TEST_CASE("raw_refuses_requests_beyond_its_end_and_writes_to_read_only", "[raw]") {
  const TemporaryDirectory directory;
  make_file(directory.file("f"), Bytes(1024, 5));
  const auto ring = make_ring();
  auto device = open_image(*ring, {.path = directory.file("f"), .format = "raw", .read_only = true});
  REQUIRE(device.has_value());
  CHECK(read(*ring, **device, 1000, 100).error().code == ErrorCode::kInvalid);
  CHECK(read(*ring, **device, ~0ULL, 1).error().code == ErrorCode::kInvalid);
  CHECK(write(*ring, **device, 0, Bytes(1)).error().code == ErrorCode::kPermission);
}

TEST_CASE("open_image_without_a_known_format_is_refused", "[raw]") {
  const TemporaryDirectory directory;
  make_file(directory.file("f"), Bytes(1024, 5));
  const auto ring = make_ring();
  CHECK(open_image(*ring, {.path = directory.file("f"), .format = ""}).error().code == ErrorCode::kInvalid);
}

TEST_CASE("detect_zeroes_unmap_gives_zero_writes_back_to_the_host", "[raw]") {
  const TemporaryDirectory directory;
  make_file(directory.file("f"), Bytes(1 << 20, 5));
  const auto ring = make_ring();
  auto device = open_image(
      *ring, {.path = directory.file("f"), .format = "raw", .detect_zeroes = DetectZeroes::kUnmap});
  REQUIRE(device.has_value());
  REQUIRE(write(*ring, **device, 0, Bytes(1 << 20)).has_value());
  const auto status = sync_wait(*ring, (*device)->block_status(0, 1 << 20));
  REQUIRE(status.has_value());
  CHECK(status->zero);
  CHECK(status->bytes == 1 << 20);
}

TEST_CASE("raw_image_under_o_direct_has_data_up_to_the_end_of_the_last_sector", "[raw]") {
  const TemporaryDirectory directory;
  make_file(directory.file("f"), Bytes((1 << 16) - 1, 5));
  const auto ring = make_ring();
  auto device = open_image(*ring, {.path = directory.file("f"), .format = "raw", .cache = CacheMode::kNone});
  REQUIRE(device.has_value());
  CHECK((*device)->size() == 1 << 16);
  const auto status = sync_wait(*ring, (*device)->block_status(4096, (1 << 16) - 4096));
  REQUIRE(status.has_value());
  CHECK(status->data);
  CHECK(status->bytes == (1 << 16) - 4096);
}

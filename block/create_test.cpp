#include "block/create.hpp"

#include "block/open.hpp"
#include "block/qcow2/test_images.hpp"

using namespace whistler;
using namespace whistler::test;

TEST_CASE("create_overlay_takes_the_size_of_its_backing_file", "[create]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  REQUIRE(create_image(*ring, {.path = directory.file("base.raw"), .format = "raw", .size = 3 << 20})
              .has_value());
  const NewImage overlay{.path = directory.file("top.qcow2"),
                         .format = "qcow2",
                         .qcow2 = {.backing_file = "base.raw", .backing_format = "raw"}};
  REQUIRE(create_image(*ring, overlay).has_value());
  auto image = open_qcow2(*ring, overlay.path);
  CHECK(image->size() == 3 << 20);
  close(*ring, image);
  require_clean(*ring, overlay.path);
}

TEST_CASE("create_that_is_refused_leaves_the_old_file_alone", "[create]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = directory.file("i");
  make_file(path, Bytes(100, 1));
  const auto refused = [&](const NewImage& image) { return create_image(*ring, image).error().code; };
  CHECK(refused({.path = path, .format = "vmdk", .size = 1 << 20}) == ErrorCode::kInvalid);
  CHECK(refused({.path = path, .format = "raw"}) == ErrorCode::kInvalid);
  CHECK(refused({.path = path, .format = "qcow2"}) == ErrorCode::kInvalid);
  CHECK(refused({.path = path, .format = "qcow2", .size = 1 << 20, .qcow2 = {.cluster_size = 1000}}) ==
        ErrorCode::kInvalid);
  CHECK(refused({.path = path, .format = "qcow2", .size = ~0ULL}) == ErrorCode::kInvalid);
  CHECK(refused(
            {.path = path, .format = "qcow2", .qcow2 = {.backing_file = "none", .backing_format = "raw"}}) ==
        ErrorCode::kNotFound);
  const auto user = FileDevice::open(*ring, {.path = path});
  REQUIRE(user.has_value());
  CHECK(refused({.path = path, .format = "qcow2", .size = 1 << 20}) == ErrorCode::kBusy);
  CHECK(file_content(path) == Bytes(100, 1));
}

TEST_CASE("create_preallocates_as_asked_and_the_disk_reads_as_zeroes", "[create]") {
  using enum Preallocation;
  const auto mode = GENERATE(kMetadata, kFalloc, kFull);
  const auto cluster_size = GENERATE(512ULL, 65536ULL);
  const auto external = GENERATE(false, true);
  constexpr std::uint64_t kSize = 1024 * 1024 + 512;
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  std::optional<std::string> data_file;
  if (external) {
    data_file = directory.file("i.data");  // QEMU takes it relative to where it runs
  }
  const NewImage wanted{.path = directory.file("i.qcow2"),
                        .format = "qcow2",
                        .size = kSize,
                        .qcow2 = {.cluster_size = cluster_size,
                                  .data_file = data_file,
                                  .data_file_raw = external,
                                  .preallocation = mode}};
  REQUIRE(create_image(*ring, wanted).has_value());
  require_clean(*ring, wanted.path);
  const auto data = directory.file(external ? "i.data" : "i.qcow2");
  {
    const auto used = FileDevice::open(*ring, {.path = data, .read_only = true});
    CHECK((*used)->size() >= kSize);
    CHECK(((*used)->allocated_bytes() >= kSize) == (mode != kMetadata));
  }
  auto image = open_qcow2(*ring, wanted.path);
  CHECK(sync_wait(*ring, image->block_status(kSize - 512, 512))->data);
  CHECK(read(*ring, *image, 0, kSize) == Bytes(kSize));
  REQUIRE(write(*ring, *image, 1000, pattern(200000, 1)).has_value());
  CHECK(read(*ring, *image, 1000, 200000) == pattern(200000, 1));
  // Grown, and the new part preallocated too.
  REQUIRE(sync_wait(*ring, image->resize(2 * kSize)).has_value());
  REQUIRE(sync_wait(*ring, image->preallocate(kSize, kSize, mode)).has_value());
  CHECK(read(*ring, *image, kSize, kSize) == Bytes(kSize));
  close(*ring, image);
  require_clean(*ring, wanted.path);
}

TEST_CASE("create_without_subclusters_does_not_preallocate_over_a_backing_file", "[create]") {
  CHECK(qcow2::check_options({.size = 1 << 20,
                              .backing_file = "b",
                              .backing_format = "raw",
                              .preallocation = Preallocation::kMetadata})
            .error()
            .message ==
        "Backing file and preallocation can only be used at the same time if extended_l2 is enabled");
}

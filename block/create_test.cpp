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

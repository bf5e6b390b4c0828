// qcow2 images for tests: made by our engine or by qemu-img, opened, checked by both.
#pragma once

#include "block/open.hpp"
#include "block/qcow2/check.hpp"
#include "block/qcow2/create.hpp"
#include "block/qcow2/image.hpp"
#include "block/test_support.hpp"

namespace whistler::test {

inline void create_image(Ring& ring, const std::string& path, const qcow2::CreateOptions& options) {
  auto file = FileDevice::create(ring, {.path = path});
  REQUIRE(file.has_value());
  auto created = sync_wait(ring, qcow2::create(**file, options));
  INFO((created ? std::string() : created.error().message));
  REQUIRE(created.has_value());
  REQUIRE(sync_wait(ring, (*file)->close()).has_value());
}

inline std::unique_ptr<BlockDevice> open_qcow2(Ring& ring, const std::string& path, bool read_only = false) {
  auto image = open_image(ring, {.path = path, .format = "qcow2", .read_only = read_only});
  INFO((image ? std::string() : image.error().message));
  REQUIRE(image.has_value());
  return std::move(*image);
}

inline void close(Ring& ring, std::unique_ptr<BlockDevice>& device) {
  REQUIRE(sync_wait(ring, device->close()).has_value());
  device.reset();
}

/// What our check says of a closed image.
inline qcow2::CheckReport check(Ring& ring, const std::string& path,
                                qcow2::Repair repair = qcow2::Repair::kNone) {
  const bool read_only = repair == qcow2::Repair::kNone;
  auto file = FileDevice::open(ring, {.path = path, .read_only = read_only});
  REQUIRE(file.has_value());
  auto image =
      sync_wait(ring, qcow2::Image::open(std::move(*file), {.read_only = read_only, .for_repair = true}));
  REQUIRE(image.has_value());
  REQUIRE(sync_wait(ring, (*image)->prepare()).has_value());
  auto report = sync_wait(ring, qcow2::check_image(**image, repair));
  INFO((report ? std::string() : report.error().message));
  REQUIRE(report.has_value());
  REQUIRE(sync_wait(ring, (*image)->close()).has_value());
  return *report;
}

inline std::string joined(const std::vector<std::string>& lines) {
  std::string all;
  for (const auto& line : lines) {
    all += line + "\n";
  }
  return all;
}

/// Both checkers find nothing wrong.
inline void require_clean(Ring& ring, const std::string& path) {
  const auto report = check(ring, path);
  INFO(joined(report.messages));
  REQUIRE(report.corruptions == 0);
  REQUIRE(report.leaks == 0);
  if (have_qemu_tools()) {
    const auto qemu = run("qemu-img check " + path);
    INFO(qemu.output);
    REQUIRE(qemu.status == 0);
  }
}

}  // namespace whistler::test

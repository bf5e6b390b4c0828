// Images of the foreign formats for tests, on files and in memory.
#pragma once

#include "block/file.hpp"
#include "block/formats/vdi.hpp"
#include "block/formats/vhd.hpp"
#include "block/formats/vhdx.hpp"
#include "block/formats/vmdk.hpp"
#include "block/memory.hpp"
#include "block/test_support.hpp"

namespace whistler::test {

inline std::unique_ptr<BlockDevice> open_file(Ring& ring, const std::string& path, bool read_only = false) {
  auto file = FileDevice::open(ring, {.path = path, .read_only = read_only});
  INFO((file ? std::string() : file.error().message));
  REQUIRE(file.has_value());
  return std::move(*file);
}

inline std::unique_ptr<BlockDevice> memory_file(const Bytes& content, bool read_only = false) {
  auto file = std::make_unique<MemoryBlockDevice>(content.size(), read_only);
  file->bytes() = content;
  return file;
}

/// Names are files of one directory.
class DirectoryOpener final : public formats::SiblingOpener {
 public:
  DirectoryOpener(Ring& ring, std::string directory) : ring_(ring), directory_(std::move(directory)) {}
  [[nodiscard]] Task<Result<std::unique_ptr<BlockDevice>>> open_sibling(std::string name) override {
    auto file = FileDevice::open(ring_, {.path = directory_ + "/" + name, .read_only = true});
    if (!file) {
      co_return std::unexpected(file.error());
    }
    co_return std::unique_ptr<BlockDevice>(std::move(*file));
  }

 private:
  Ring& ring_;
  std::string directory_;
};

/// No further files.
class NoSiblings final : public formats::SiblingOpener {
 public:
  [[nodiscard]] Task<Result<std::unique_ptr<BlockDevice>>> open_sibling(std::string name) override {
    co_return fail(ErrorCode::kPermission, "refers to '" + name + "', which is not allowed here");
  }
};

template <typename T>
std::unique_ptr<T> opened(Result<std::unique_ptr<T>> image) {
  INFO((image ? std::string() : image.error().message));
  REQUIRE(image.has_value());
  return std::move(*image);
}

template <typename T>
std::string refusal(const Result<std::unique_ptr<T>>& image) {
  return image ? "opened" : image.error().message;
}

inline void qemu(const std::string& command) {
  const auto done = run(command);
  INFO(command << "\n" << done.output);
  REQUIRE(done.status == 0);
}

inline void require_closed(Ring& ring, BlockDevice& device) {
  const auto closed = sync_wait(ring, device.close());
  INFO((closed ? std::string() : closed.error().message));
  REQUIRE(closed.has_value());
}

}  // namespace whistler::test

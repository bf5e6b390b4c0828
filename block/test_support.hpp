// What the block tests share: a directory that goes away, requests as plain calls, other programs as oracles.
#pragma once

#include <sys/wait.h>

#include <array>
#include <catch2/catch.hpp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "block/block_device.hpp"
#include "block/uring/ring.hpp"

namespace whistler::test {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "whistler-block-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  [[nodiscard]] std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

inline std::unique_ptr<Ring> make_ring() {
  auto ring = Ring::create();
  REQUIRE(ring.has_value());
  return std::move(*ring);
}

using Bytes = std::vector<std::uint8_t>;

/// Bytes that differ from place to place and from seed to seed.
inline Bytes pattern(std::size_t count, std::uint32_t seed) {
  Bytes bytes(count);
  std::uint32_t state = seed * 2654435761U + 12345;
  for (auto& byte : bytes) {
    state = state * 1664525U + 1013904223U;
    byte = static_cast<std::uint8_t>(state >> 24);
  }
  return bytes;
}

inline Result<void> write(Ring& ring, BlockDevice& device, std::uint64_t offset, const Bytes& bytes,
                          WriteFlags flags = {}) {
  const iovec vec{const_cast<std::uint8_t*>(bytes.data()), bytes.size()};
  return sync_wait(ring, device.writev(offset, {&vec, 1}, flags));
}

inline Result<Bytes> read(Ring& ring, BlockDevice& device, std::uint64_t offset, std::size_t count) {
  Bytes bytes(count, 0xee);
  const iovec vec{bytes.data(), bytes.size()};
  auto result = sync_wait(ring, device.readv(offset, {&vec, 1}));
  if (!result) {
    return std::unexpected(result.error());
  }
  return bytes;
}

inline Bytes file_content(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(stream), {});
}

inline void make_file(const std::string& path, const Bytes& content) {
  std::ofstream stream(path, std::ios::binary);
  stream.write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
}

struct CommandResult {
  int status;  ///< exit status, or -1
  std::string output;
};

/// Runs a shell command, its standard output and error together.
inline CommandResult run(const std::string& command) {
  std::FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) {
    return {-1, ""};
  }
  std::string output;
  std::array<char, 4096> buffer{};
  while (const auto count = std::fread(buffer.data(), 1, buffer.size(), pipe)) {
    output.append(buffer.data(), count);
  }
  const int status = ::pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, output};
}

/// Whether QEMU's tools are there to be asked.
inline bool have_qemu_tools() { return run("qemu-img --version && qemu-io --version").status == 0; }

}  // namespace whistler::test

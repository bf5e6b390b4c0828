// A VHDX image in a short form: where its structures lie is fixed, what they say is the input, and checksums
// are right.
//
// Input: 128 bytes of header, 128 of region table, 1024 of metadata, 512 of the block table, then the log;
// the first byte says whether the file may be written.
#include <array>

#include "base/bytes.hpp"
#include "block/formats/vhdx.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

constexpr std::size_t kKiB = 1024;
constexpr std::size_t kMiB = 1024 * kKiB;

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t bytes) : rest_(data, bytes) {}
  void take(std::vector<std::uint8_t>& content, std::size_t at, std::size_t bytes) {
    const auto count = std::min(bytes, rest_.size());
    std::copy_n(rest_.begin(), count, content.begin() + static_cast<std::ptrdiff_t>(at));
    rest_ = rest_.subspan(count);
  }

 private:
  std::span<const std::uint8_t> rest_;
};

void seal(std::vector<std::uint8_t>& content, std::size_t at, std::size_t bytes) {
  if (at + bytes <= content.size()) {
    whistler::store_le<std::uint32_t>(&content[at + 4], 0);
    whistler::store_le<std::uint32_t>(&content[at + 4], whistler::formats::crc32c(&content[at], bytes));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  using namespace whistler;
  if (bytes == 0) {
    return 0;
  }
  std::vector<std::uint8_t> content(4 * kMiB + 64 * kKiB);
  Input input(data + 1, bytes - 1);
  std::copy_n("vhdxfile", 8, content.begin());
  input.take(content, 64 * kKiB, 128);
  input.take(content, 192 * kKiB, 128);
  input.take(content, 2 * kMiB, 512);
  input.take(content, 2 * kMiB + 64 * kKiB, 512);
  input.take(content, 3 * kMiB, 512);
  input.take(content, kMiB, 64 * kKiB);
  seal(content, 64 * kKiB, 4096);
  seal(content, 192 * kKiB, 64 * kKiB);
  for (std::size_t at = kMiB; at < kMiB + 64 * kKiB; at += 4096) {
    if (load_le<std::uint32_t>(&content[at]) == 0x65676f6c) {
      seal(content, at, load_le<std::uint32_t>(&content[at + 8]));
    }
  }
  auto image = fuzz::now(formats::VhdxImage::open(std::make_unique<fuzz::File>(content, (data[0] & 1) != 0)));
  if (image) {
    fuzz::use(**image);
  }
  return 0;
}

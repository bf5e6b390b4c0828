// Documentation: Portable Network Graphics (PNG) Specification (Third Edition), W3C, chapters 5 and 11.
#include "vmm/plan/animation.hpp"

#include <zlib.h>

#include <algorithm>
#include <string_view>

#include "base/bytes.hpp"
#include "vmm/png_encoder.hpp"

namespace whistler::plan {
namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::size_t kSignature = 8;  // bytes at the start of a file
constexpr std::size_t kChunkHead = 8;  // length and kind
constexpr std::size_t kChunkTail = 4;  // checksum
constexpr std::uint16_t kDelay = 500;  // milliseconds
constexpr std::uint16_t kLastDelay = 2000;

template <typename T>
void append(Bytes& to, std::type_identity_t<T> value) {
  to.resize(to.size() + sizeof(T));
  store_be<T>(&to[to.size() - sizeof(T)], value);
}

void append_chunk(Bytes& to, std::string_view kind, std::span<const std::uint8_t> data) {
  append<std::uint32_t>(to, static_cast<std::uint32_t>(data.size()));
  const auto start = to.size();
  to.insert(to.end(), kind.begin(), kind.end());
  to.insert(to.end(), data.begin(), data.end());
  const auto sum = ::crc32(0, &to[start], static_cast<unsigned>(to.size() - start));
  append<std::uint32_t>(to, static_cast<std::uint32_t>(sum));
}

/// The data of all chunks of that kind in a PNG of our own making, one behind the other.
Bytes chunks_of(const Bytes& png, std::string_view kind) {
  Bytes data;
  for (std::size_t at = kSignature; at + kChunkHead + kChunkTail <= png.size();) {
    const auto length = load_be<std::uint32_t>(&png[at]);
    if (std::equal(kind.begin(), kind.end(), &png[at + 4])) {
      const auto* start = &png[at + kChunkHead];
      data.insert(data.end(), start, start + length);
    }
    at += kChunkHead + length + kChunkTail;
  }
  return data;
}

/// The picture on a black ground of that size.
Result<Bytes> encode(const Picture& picture, unsigned width, unsigned height) {
  Bytes rgb(std::size_t{width} * height * 3);
  for (unsigned y = 0; y < picture.height; ++y) {
    for (unsigned x = 0; x < picture.width; ++x) {
      std::copy_n(picture.at(x, y).begin(), 3, &rgb[(std::size_t{y} * width + x) * 3]);
    }
  }
  return encode_png(width, height, rgb);
}

Bytes frame_control(std::uint32_t sequence, unsigned width, unsigned height, std::uint16_t delay) {
  Bytes control;
  append<std::uint32_t>(control, sequence);
  for (const auto value : {width, height, 0U, 0U}) {
    append<std::uint32_t>(control, value);
  }
  append<std::uint16_t>(control, delay);
  append<std::uint16_t>(control, 1000);
  append<std::uint16_t>(control, 0);  // stays until the next one, which covers all of it
  return control;
}

}  // namespace

Result<Bytes> animated_png(std::span<const Picture> frames) {
  unsigned width = 0;
  unsigned height = 0;
  for (const auto& frame : frames) {
    width = std::max(width, frame.width);
    height = std::max(height, frame.height);
  }
  Bytes file;
  std::uint32_t sequence = 0;
  for (std::size_t i = 0; i < frames.size(); ++i) {
    const auto png = encode(frames[i], width, height);
    if (!png) {
      return std::unexpected(png.error());
    }
    if (i == 0) {
      file.assign(png->begin(), png->begin() + kSignature);
      append_chunk(file, "IHDR", chunks_of(*png, "IHDR"));
      Bytes animation;
      append<std::uint32_t>(animation, static_cast<std::uint32_t>(frames.size()));
      append<std::uint32_t>(animation, 0);  // without end
      append_chunk(file, "acTL", animation);
    }
    const auto delay = i + 1 == frames.size() ? kLastDelay : kDelay;
    append_chunk(file, "fcTL", frame_control(sequence++, width, height, delay));
    const auto pixels = chunks_of(*png, "IDAT");
    if (i == 0) {
      append_chunk(file, "IDAT", pixels);
    } else {
      Bytes data;
      append<std::uint32_t>(data, sequence++);
      data.insert(data.end(), pixels.begin(), pixels.end());
      append_chunk(file, "fdAT", data);
    }
  }
  append_chunk(file, "IEND", {});
  return file;
}

}  // namespace whistler::plan

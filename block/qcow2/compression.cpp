#include "block/qcow2/compression.hpp"

#include <zlib.h>
#include <zstd.h>

namespace whistler::qcow2 {

namespace {

/// The format has raw deflate data with a window of 4 KiB.
constexpr int kWindowBits = -12;

bool inflate_cluster(std::span<const std::uint8_t> from, std::span<std::uint8_t> to) {
  z_stream stream{};
  if (inflateInit2(&stream, kWindowBits) != Z_OK) {
    return false;
  }
  stream.next_in = const_cast<std::uint8_t*>(from.data());
  stream.avail_in = static_cast<unsigned>(from.size());
  stream.next_out = to.data();
  stream.avail_out = static_cast<unsigned>(to.size());
  const int status = inflate(&stream, Z_FINISH);
  const bool complete = stream.avail_out == 0 && (status == Z_STREAM_END || status == Z_BUF_ERROR);
  inflateEnd(&stream);
  return complete;
}

bool unzstd_cluster(std::span<const std::uint8_t> from, std::span<std::uint8_t> to) {
  ZSTD_DCtx* context = ZSTD_createDCtx();
  if (context == nullptr) {
    return false;
  }
  ZSTD_inBuffer input{from.data(), from.size(), 0};
  ZSTD_outBuffer output{to.data(), to.size(), 0};
  std::size_t status = 1;
  while (output.pos < output.size && status != 0) {
    const auto before = input.pos + output.pos;
    status = ZSTD_decompressStream(context, &output, &input);
    if (ZSTD_isError(status) != 0 || input.pos + output.pos == before) {
      break;
    }
  }
  ZSTD_freeDCtx(context);
  return output.pos == output.size;
}

std::vector<std::uint8_t> deflate_cluster(std::span<const std::uint8_t> from) {
  z_stream stream{};
  if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kWindowBits, 9, Z_DEFAULT_STRATEGY) != Z_OK) {
    return {};
  }
  std::vector<std::uint8_t> out(from.size());
  stream.next_in = const_cast<std::uint8_t*>(from.data());
  stream.avail_in = static_cast<unsigned>(from.size());
  stream.next_out = out.data();
  stream.avail_out = static_cast<unsigned>(out.size() - 1);
  const int status = deflate(&stream, Z_FINISH);
  out.resize(status == Z_STREAM_END ? stream.total_out : 0);
  deflateEnd(&stream);
  return out;
}

}  // namespace

bool decompress_cluster(Compression method, std::span<const std::uint8_t> from, std::span<std::uint8_t> to) {
  return method == Compression::kZstd ? unzstd_cluster(from, to) : inflate_cluster(from, to);
}

std::vector<std::uint8_t> compress_cluster(Compression method, std::span<const std::uint8_t> from) {
  if (method == Compression::kZlib) {
    return deflate_cluster(from);
  }
  std::vector<std::uint8_t> out(from.size() - 1);
  const auto bytes = ZSTD_compress(out.data(), out.size(), from.data(), from.size(), ZSTD_CLEVEL_DEFAULT);
  out.resize(ZSTD_isError(bytes) != 0 ? 0 : bytes);
  return out;
}

}  // namespace whistler::qcow2

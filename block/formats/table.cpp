#include "block/formats/table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/bytes.hpp"

namespace whistler::formats {

std::uint64_t Table::decode(const std::uint8_t* at) const {
  if (shape_.order == Order::kBig) {
    return shape_.entry_bytes == 8 ? load_be<std::uint64_t>(at) : load_be<std::uint32_t>(at);
  }
  return load_little(at, shape_.entry_bytes);
}

void Table::encode(std::uint8_t* at, std::uint64_t value) const {
  if (shape_.order == Order::kLittle) {
    store_little(at, shape_.entry_bytes, value);
  } else if (shape_.entry_bytes == 8) {
    store_be<std::uint64_t>(at, value);
  } else {
    store_be<std::uint32_t>(at, static_cast<std::uint32_t>(value));
  }
}

Task<Result<std::uint64_t>> Table::get(std::uint64_t index) {
  if (index >= shape_.entries) {
    co_return fail(ErrorCode::kCorrupt,
                   fmt::format("{}: {} at offset {:#x} has {} entries, none numbered {}", file_.name(),
                               shape_.what, shape_.offset, shape_.entries, index));
  }
  const auto at = index * shape_.entry_bytes;
  const auto number = at / kPageBytes;
  for (;;) {
    if (const auto found = pages_.find(number); found != pages_.end()) {
      co_return decode(found->second.data() + at % kPageBytes);
    }
    const auto page_at = shape_.offset + number * kPageBytes;
    const auto size = file_.size();
    if (size < shape_.entry_bytes || shape_.offset + at > size - shape_.entry_bytes) {
      co_return fail(ErrorCode::kCorrupt,
                     fmt::format("{}: {} entry {} at offset {:#x} is beyond the end of the file ({} bytes)",
                                 file_.name(), shape_.what, index, shape_.offset + at, size));
    }
    const auto changes = changes_;
    Page page{};
    const auto wanted =
        std::min({kPageBytes, shape_.entries * shape_.entry_bytes - number * kPageBytes, size - page_at});
    const iovec vec{page.data(), static_cast<std::size_t>(wanted)};
    auto read = co_await file_.readv(page_at, {&vec, 1});
    if (!read) {
      co_return std::unexpected(read.error());
    }
    if (changes != changes_) {
      continue;
    }
    if (pages_.size() >= kMaxPages) {
      pages_.clear();
    }
    // The tail of a page cut short by the end of the file must be asked for again once the file has grown.
    if (wanted < kPageBytes && page_at + wanted == size) {
      co_return decode(page.data() + at % kPageBytes);
    }
    pages_.emplace(number, page);
  }
}

Task<Result<std::optional<std::uint64_t>>> Table::highest(std::uint64_t count, std::uint64_t limit) {
  constexpr std::uint64_t kPiece = 1 << 20;
  const auto total = count * shape_.entry_bytes;
  if (count > shape_.entries || shape_.offset > file_.size() || total > file_.size() - shape_.offset) {
    co_return fail(ErrorCode::kCorrupt,
                   fmt::format("{}: {} ({} entries at offset {:#x}) is beyond the end of the file ({} bytes)",
                               file_.name(), shape_.what, count, shape_.offset, file_.size()));
  }
  std::vector<std::uint8_t> piece;
  std::optional<std::uint64_t> found;
  for (std::uint64_t done = 0; done < total; done += piece.size()) {
    piece.resize(std::min(kPiece, total - done));
    const iovec vec{piece.data(), piece.size()};
    auto read = co_await file_.readv(shape_.offset + done, {&vec, 1});
    if (!read) {
      co_return std::unexpected(read.error());
    }
    for (std::size_t at = 0; at < piece.size(); at += shape_.entry_bytes) {
      const auto value = decode(&piece[at]);
      if (value < limit && (!found || value > *found)) {
        found = value;
      }
    }
  }
  co_return found;
}

Task<Result<void>> Table::set(std::uint64_t index, std::uint64_t value) {
  std::array<std::uint8_t, 8> entry{};
  encode(entry.data(), value);
  const auto at = index * shape_.entry_bytes;
  const auto number = at / kPageBytes;
  const iovec vec{entry.data(), shape_.entry_bytes};
  ++changes_;
  auto written = co_await file_.writev(shape_.offset + at, {&vec, 1});
  ++changes_;
  if (!written) {
    pages_.erase(number);
  } else if (const auto found = pages_.find(number); found != pages_.end()) {
    std::copy_n(entry.data(), shape_.entry_bytes, found->second.data() + at % kPageBytes);
  }
  co_return written;
}

}  // namespace whistler::formats

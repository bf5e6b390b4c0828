#include "block/formats/vhdx_log.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>

#include "base/bytes.hpp"
#include "block/formats/image.hpp"
#include "block/iovec.hpp"
#include "block/request.hpp"

namespace whistler::formats {

namespace {

/// A writer that follows the specification has a log of 1 MiB or some.
constexpr std::uint64_t kMaxLogBytes = 64 << 20;
constexpr std::uint64_t kMaxFileBytes = std::uint64_t{1} << 62;
constexpr std::uint32_t kEntrySignature = 0x65676f6c;       // "loge"
constexpr std::uint32_t kZeroSignature = 0x6f72657a;        // "zero"
constexpr std::uint32_t kDescriptorSignature = 0x63736564;  // "desc"
constexpr std::uint32_t kDataSignature = 0x61746164;        // "data"

struct EntryHeader {
  Le<std::uint32_t> signature;
  Le<std::uint32_t> checksum;
  Le<std::uint32_t> length;
  Le<std::uint32_t> tail;
  Le<std::uint64_t> sequence;
  Le<std::uint32_t> descriptors;
  Le<std::uint32_t> reserved;
  VhdxGuid guid{};
  Le<std::uint64_t> flushed_end;
  Le<std::uint64_t> last_end;
};
static_assert(sizeof(EntryHeader) == 64);

struct Descriptor {
  Le<std::uint32_t> signature;
  Le<std::uint32_t> trailing;  ///< data: the last 4 bytes of the sector
  Le<std::uint64_t> leading;   ///< data: the first 8 bytes; zero: the length
  Le<std::uint64_t> offset;
  Le<std::uint64_t> sequence;
};
static_assert(sizeof(Descriptor) == 32);

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t value = 0; value < table.size(); ++value) {
    auto crc = value;
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc & 1) != 0 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
    }
    table[value] = crc;
  }
  return table;
}

/// What the search for the newest sequence needs to know of an entry.
struct Summary {
  std::uint64_t length = 0;  ///< 0: there is no valid entry here
  std::uint64_t sequence = 0;
  std::uint32_t tail = 0;
};

/// The log in memory: a ring.
class Log {
 public:
  Log(std::vector<std::uint8_t> bytes, const VhdxGuid& guid) : bytes_(std::move(bytes)), guid_(guid) {
    for (std::uint64_t at = 0; at < size(); at += kVhdxSector) {
      Summary summary;
      if (const auto found = entry(at)) {
        EntryHeader header;
        std::memcpy(&header, found->data(), sizeof header);
        summary = {found->size(), header.sequence, header.tail};
      }
      summaries_.push_back(summary);
    }
  }

  [[nodiscard]] std::uint64_t size() const { return bytes_.size(); }
  [[nodiscard]] const Summary& summary(std::uint64_t offset) const {
    return summaries_[offset / kVhdxSector];
  }
  /// The entry at `offset`, in one piece, or nothing if there is no valid one.
  [[nodiscard]] std::optional<std::vector<std::uint8_t>> entry(std::uint64_t offset) const;

 private:
  std::vector<std::uint8_t> bytes_;
  VhdxGuid guid_;
  std::vector<Summary> summaries_;
  /// Entries within entries, which no honest writer makes, could turn the checksums into endless work.
  static constexpr std::uint64_t kMaxRounds = 8;
  mutable std::uint64_t checked_bytes_ = 0;
};

EntryHeader header_of(const std::vector<std::uint8_t>& entry) {
  EntryHeader header;
  std::memcpy(&header, entry.data(), sizeof header);
  return header;
}

std::uint64_t descriptor_area(const EntryHeader& header) {
  return align_up(sizeof header + std::uint64_t{header.descriptors} * sizeof(Descriptor), kVhdxSector);
}

std::optional<std::vector<std::uint8_t>> Log::entry(std::uint64_t offset) const {
  EntryHeader header;
  std::memcpy(&header, &bytes_[offset], sizeof header);
  const std::uint64_t length = header.length;
  if (header.signature != kEntrySignature || header.guid != guid_ || length == 0 ||
      length % kVhdxSector != 0 || length > size() || header.tail % kVhdxSector != 0 ||
      header.tail >= size() || header.sequence == 0 || descriptor_area(header) > length) {
    return std::nullopt;
  }
  if (checked_bytes_ + length > kMaxRounds * size()) {
    return std::nullopt;
  }
  checked_bytes_ += length;
  std::vector<std::uint8_t> entry(length);
  const auto first = std::min(length, size() - offset);
  std::memcpy(entry.data(), &bytes_[offset], first);
  std::memcpy(entry.data() + first, bytes_.data(), length - first);
  store_le<std::uint32_t>(&entry[4], 0);
  if (crc32c(entry.data(), entry.size()) != header.checksum) {
    return std::nullopt;
  }
  return entry;
}

struct Sequence {
  std::vector<std::uint64_t> offsets;  ///< of the entries, from the first to the head
  std::uint64_t head_sequence = 0;
};

/// The newest run of entries that follow each other and whose head names one of them as its tail: it begins
/// there.
std::optional<Sequence> find_sequence(const Log& log) {
  std::optional<Sequence> best;
  for (std::uint64_t start = 0; start < log.size();) {
    Sequence run;
    auto at = start;
    std::uint32_t tail = 0;
    std::uint64_t covered = 0;
    while (covered < log.size()) {
      const auto& entry = log.summary(at);
      if (entry.length == 0 || (!run.offsets.empty() && entry.sequence != run.head_sequence + 1)) {
        break;
      }
      run.offsets.push_back(at);
      run.head_sequence = entry.sequence;
      tail = entry.tail;
      covered += entry.length;
      at = (at + entry.length) % log.size();
    }
    const auto first = std::find(run.offsets.begin(), run.offsets.end(), tail);
    const bool valid = first != run.offsets.end();
    if (valid && (!best || run.head_sequence > best->head_sequence)) {
      best = Sequence{{first, run.offsets.end()}, run.head_sequence};
    }
    // Past the run, or, if it has wrapped, to the end; an invalid run may hide one that begins in it.
    start = valid && at > start ? at : start + kVhdxSector;
  }
  return best;
}

/// Adds what one entry changes. False if it contradicts itself.
bool add_entry(const std::vector<std::uint8_t>& entry, VhdxChanges& changes) {
  const auto header = header_of(entry);
  std::uint64_t data_at = descriptor_area(header);
  for (std::uint32_t number = 0; number < header.descriptors; ++number) {
    Descriptor descriptor;
    std::memcpy(&descriptor, &entry[sizeof header + number * sizeof descriptor], sizeof descriptor);
    const std::uint64_t offset = descriptor.offset;
    if (descriptor.sequence != header.sequence || offset % kVhdxSector != 0 || offset > kMaxFileBytes) {
      return false;
    }
    if (descriptor.signature == kZeroSignature) {
      const std::uint64_t length = descriptor.leading;
      if (length % kVhdxSector != 0 || length > kMaxFileBytes) {
        return false;
      }
      changes.put_zeroes(offset, length);
      continue;
    }
    if (descriptor.signature != kDescriptorSignature || data_at + kVhdxSector > entry.size()) {
      return false;
    }
    const auto* data = &entry[data_at];
    const auto sequence = std::uint64_t{load_le<std::uint32_t>(data + 4)} << 32 |
                          load_le<std::uint32_t>(data + kVhdxSector - 4);
    if (load_le<std::uint32_t>(data) != kDataSignature || sequence != header.sequence) {
      return false;
    }
    VhdxChanges::Sector sector;
    store_le<std::uint64_t>(sector.data(), descriptor.leading);
    std::copy_n(data + 8, kVhdxSector - 12, sector.data() + 8);
    store_le<std::uint32_t>(sector.data() + kVhdxSector - 4, descriptor.trailing);
    changes.put(offset, sector);
    data_at += kVhdxSector;
  }
  return true;
}

/// Reads through changes that are not in the file.
class Overlay final : public BlockDevice {
 public:
  Overlay(std::unique_ptr<BlockDevice> file, VhdxChanges changes)
      : file_(std::move(file)), changes_(std::move(changes)) {}

  [[nodiscard]] std::uint64_t size() const override { return std::max(file_->size(), changes_.end()); }
  [[nodiscard]] bool read_only() const override { return true; }
  [[nodiscard]] std::string name() const override { return file_->name(); }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override {
    const auto bytes = iovec_bytes(to);
    if (auto ok = check_request(*this, offset, bytes, false); !ok) {
      co_return ok;
    }
    std::vector<std::uint8_t> content;
    constexpr std::uint64_t kPiece = 1 << 20;
    for (std::uint64_t done = 0; done < bytes; done += content.size()) {
      content.assign(std::min(kPiece, bytes - done), 0);
      const auto at = offset + done;
      const auto there = at < file_->size() ? std::min<std::uint64_t>(content.size(), file_->size() - at) : 0;
      const iovec vec{content.data(), static_cast<std::size_t>(there)};
      auto read = co_await file_->readv(std::min(at, file_->size()), {&vec, 1});
      if (!read) {
        co_return read;
      }
      changes_.apply(at, content);
      copy_to_iovec(to, done, content);
    }
    co_return Result<void>{};
  }
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t, IoVec, WriteFlags) override { return refuse(); }
  [[nodiscard]] Task<Result<void>> flush() override { co_return Result<void>{}; }
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t, std::uint64_t) override { return refuse(); }
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t, std::uint64_t, ZeroFlags) override {
    return refuse();
  }
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t, std::uint64_t bytes) override {
    co_return BlockStatus{.bytes = bytes, .data = true};
  }
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t) override { return refuse(); }
  [[nodiscard]] Task<Result<void>> close() override { return file_->close(); }

 private:
  [[nodiscard]] Task<Result<void>> refuse() const {
    co_return fail(ErrorCode::kPermission, fmt::format("{}: is open read-only", name()));
  }

  std::unique_ptr<BlockDevice> file_;
  VhdxChanges changes_;
};

}  // namespace

std::uint32_t crc32c(const void* data, std::size_t bytes, std::uint32_t seed) {
  static constexpr auto kTable = make_crc_table();
  auto crc = ~seed;
  for (const auto* at = static_cast<const std::uint8_t*>(data); bytes > 0; --bytes) {
    crc = crc >> 8 ^ kTable[(crc ^ *at++) & 0xff];
  }
  return ~crc;
}

void VhdxChanges::put_zeroes(std::uint64_t offset, std::uint64_t bytes) {
  if (bytes == 0) {
    return;
  }
  auto begin = offset;
  auto end = offset + bytes;
  sectors_.erase(sectors_.lower_bound(begin), sectors_.lower_bound(end));
  auto at = zeroes_.upper_bound(begin);
  if (at != zeroes_.begin() && std::prev(at)->second >= begin) {
    --at;
  }
  while (at != zeroes_.end() && at->first <= end) {
    begin = std::min(begin, at->first);
    end = std::max(end, at->second);
    at = zeroes_.erase(at);
  }
  zeroes_[begin] = end;
}

void VhdxChanges::apply(std::uint64_t offset, std::span<std::uint8_t> bytes) const {
  const auto end = offset + bytes.size();
  auto zero = zeroes_.upper_bound(offset);
  if (zero != zeroes_.begin()) {
    --zero;
  }
  for (; zero != zeroes_.end() && zero->first < end; ++zero) {
    const auto from = std::max(zero->first, offset);
    const auto to = std::min(zero->second, end);
    if (from < to) {
      std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(from - offset),
                bytes.begin() + static_cast<std::ptrdiff_t>(to - offset), std::uint8_t{0});
    }
  }
  for (auto sector = sectors_.lower_bound(align_down(offset, kVhdxSector));
       sector != sectors_.end() && sector->first < end; ++sector) {
    const auto from = std::max(sector->first, offset);
    const auto to = std::min(sector->first + kVhdxSector, end);
    std::copy_n(sector->second.data() + (from - sector->first), to - from, bytes.data() + (from - offset));
  }
}

Task<Result<void>> VhdxChanges::write_to(BlockDevice& file) const {
  // What the file grows by is zero already: a false length in the log costs no space.
  const auto before = file.size();
  if (before < end_) {
    auto grown = co_await file.resize(end_);
    if (!grown) {
      co_return grown;
    }
  }
  for (const auto& [begin, end] : zeroes_) {
    const auto inside = std::min(end, before);
    if (begin >= inside) {
      continue;
    }
    auto written = co_await file.write_zeroes(begin, inside - begin);
    if (!written) {
      co_return written;
    }
  }
  for (const auto& [offset, sector] : sectors_) {
    auto written = co_await write_bytes(file, offset, sector.data(), sector.size());
    if (!written) {
      co_return written;
    }
  }
  auto flushed = co_await file.flush();
  co_return flushed;
}

Task<Result<VhdxChanges>> read_vhdx_log(BlockDevice& file, std::uint64_t offset, std::uint64_t bytes,
                                        VhdxGuid guid) {
  const auto corrupt = [&](std::string_view why) {
    return fail(ErrorCode::kCorrupt,
                fmt::format("{}: vhdx log ({} bytes at offset {:#x}): {}", file.name(), bytes, offset, why));
  };
  if (bytes == 0 || bytes % kVhdxSector != 0 || bytes > kMaxLogBytes || offset < (1 << 20)) {
    co_return corrupt("its place or length is not allowed");
  }
  if (offset > file.size() || bytes > file.size() - offset) {
    co_return corrupt(fmt::format("it is beyond the end of the file ({} bytes)", file.size()));
  }
  std::vector<std::uint8_t> content(bytes);
  auto read = co_await read_structure(file, "vhdx log", offset, content.data(), content.size());
  if (!read) {
    co_return std::unexpected(read.error());
  }
  const Log log(std::move(content), guid);
  const auto sequence = find_sequence(log);
  if (!sequence) {
    co_return corrupt("it has no valid sequence of entries, but the header says that it must be replayed");
  }
  VhdxChanges changes;
  for (const auto at : sequence->offsets) {
    const auto entry = log.entry(at);
    if (!entry) {
      co_return corrupt("its entries lie within each other");
    }
    const auto header = header_of(*entry);
    if (header.flushed_end > file.size() || header.last_end > kMaxFileBytes) {
      co_return corrupt(fmt::format("the entry at {:#x} needs a file of {} bytes, but the file was cut to {}",
                                    at, std::uint64_t{header.flushed_end}, file.size()));
    }
    if (!add_entry(*entry, changes)) {
      co_return corrupt(fmt::format("the entry at {:#x} contradicts itself", at));
    }
    changes.set_end(std::max(file.size(), std::uint64_t{header.last_end}));
  }
  co_return changes;
}

std::unique_ptr<BlockDevice> overlay_changes(std::unique_ptr<BlockDevice> file, VhdxChanges changes) {
  return std::make_unique<Overlay>(std::move(file), std::move(changes));
}

}  // namespace whistler::formats

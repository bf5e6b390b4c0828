#include "block/qcow2/simulation.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "block/iovec.hpp"
#include "block/qcow2/bitmaps.hpp"
#include "block/qcow2/image.hpp"
#include "block/qcow2/snapshots.hpp"

namespace whistler::test {

namespace {
constexpr Event kNever = std::numeric_limits<Event>::max();
constexpr std::size_t kSector = 512;
constexpr std::uint64_t kLargestFile = 256 * 1024 * 1024;
}  // namespace

Task<Result<void>> SimulatedDisk::readv(std::uint64_t offset, IoVec to) {
  co_await scheduler_.turn();
  const auto bytes = iovec_bytes(to);
  const auto there = offset < content_.size() ? std::min<std::uint64_t>(bytes, content_.size() - offset) : 0;
  copy_to_iovec(to, 0, {content_.data() + (there != 0 ? offset : 0), static_cast<std::size_t>(there)});
  zero_iovec(to, there, bytes - there);
  co_return Result<void>{};
}

void SimulatedDisk::apply(Bytes& content, std::uint64_t offset, std::span<const std::uint8_t> bytes) {
  content.resize(std::max<std::size_t>(content.size(), static_cast<std::size_t>(offset) + bytes.size()));
  std::copy(bytes.begin(), bytes.end(), content.begin() + static_cast<std::ptrdiff_t>(offset));
}

Task<Result<void>> SimulatedDisk::writev(std::uint64_t offset, IoVec from, WriteFlags) {
  if (offset > kLargestFile || iovec_bytes(from) > kLargestFile - offset) {
    co_return fail_errno(EFBIG, fmt::format("simulated: cannot write at offset {}", offset));
  }
  if (!logging_) {
    Bytes bytes(iovec_bytes(from));
    copy_from_iovec(bytes, from, 0);
    co_await scheduler_.turn();
    apply(content_, offset, bytes);
    co_return Result<void>{};
  }
  const auto index = writes_.size();
  LoggedWrite entry{
      .offset = offset, .bytes = Bytes(iovec_bytes(from)), .begun = scheduler_.next_event(), .ended = kNever};
  copy_from_iovec(entry.bytes, from, 0);
  writes_.push_back(std::move(entry));
  co_await scheduler_.turn();
  auto& write = writes_[index];
  apply(content_, offset, write.bytes);
  write.ended = scheduler_.next_event();
  co_return Result<void>{};
}

Task<Result<void>> SimulatedDisk::flush() {
  const auto begun = scheduler_.next_event();
  co_await scheduler_.turn();
  flushes_.push_back({begun, scheduler_.next_event()});
  co_return Result<void>{};
}

Task<Result<void>> SimulatedDisk::discard(std::uint64_t offset, std::uint64_t bytes) {
  if (offset >= content_.size()) {
    co_return Result<void>{};
  }
  auto result = co_await write_zeroes(offset, std::min<std::uint64_t>(bytes, content_.size() - offset));
  co_return result;
}

Task<Result<void>> SimulatedDisk::write_zeroes(std::uint64_t offset, std::uint64_t bytes, ZeroFlags) {
  Bytes zeroes(static_cast<std::size_t>(bytes));
  const iovec vec{zeroes.data(), zeroes.size()};
  auto result = co_await writev(offset, {&vec, 1});
  co_return result;
}

Task<Result<BlockStatus>> SimulatedDisk::block_status(std::uint64_t, std::uint64_t bytes) {
  co_return BlockStatus{bytes, true, false};
}

Task<Result<void>> SimulatedDisk::resize(std::uint64_t bytes) {
  content_.resize(static_cast<std::size_t>(bytes));
  if (logging_) {
    const auto now = scheduler_.next_event();
    writes_.push_back({.offset = bytes, .bytes = {}, .begun = now, .ended = now, .resize = true});
  }
  co_return Result<void>{};
}

Task<Result<void>> SimulatedDisk::close() { co_return Result<void>{}; }

void SimulatedDisk::start_log() {
  logging_ = true;
  initial_ = content_;
  writes_.clear();
  flushes_.clear();
}

Bytes SimulatedDisk::after_cut(Event when, Random& random) const {
  Event vouched = 0;  // writes that ended before this are durable
  for (const auto& flush : flushes_) {
    if (flush.ended <= when) {
      vouched = std::max(vouched, flush.begun);
    }
  }
  auto order = std::vector<const LoggedWrite*>();
  for (const auto& write : writes_) {
    if (write.begun <= when) {
      order.push_back(&write);
    }
  }
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return a->ended != b->ended ? a->ended < b->ended : a->begun < b->begun;
  });
  Bytes content;
  content.reserve(std::max(content_.size(), initial_.size()));
  content = initial_;
  // Once nothing, once everything, else each unsynced sector by chance, with a chance of its own for each
  // cut.
  const auto percent = std::array<std::uint64_t, 5>{0, 100, 50, 10, 90}[below(random, 5)];
  for (const auto* write : order) {
    if (write->resize) {
      if (write->ended < vouched || below(random, 100) < percent) {
        content.resize(static_cast<std::size_t>(write->offset));
      }
      continue;
    }
    if (write->ended < vouched) {
      apply(content, write->offset, write->bytes);
      continue;
    }
    const bool whole_writes = below(random, 2) == 0;
    bool take = below(random, 100) < percent;
    for (std::uint64_t at = 0; at < write->bytes.size();) {
      const auto end = std::min<std::uint64_t>(
          write->bytes.size(), (write->offset + at) / kSector * kSector + kSector - write->offset);
      if (!whole_writes) {
        take = below(random, 100) < percent;
      }
      if (take) {
        apply(content, write->offset + at,
              std::span(write->bytes)
                  .subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(end - at)));
      }
      at = end;
    }
  }
  return content;
}

GuestModel::GuestModel(std::vector<Tag> initial) : versions_(initial.size()) {
  for (std::size_t i = 0; i < initial.size(); ++i) {
    versions_[i].push_back({initial[i], 0, 0, true});
  }
}

Bytes GuestModel::sector_content(Tag tag) {
  Bytes bytes(kSectorBytes);
  for (std::size_t at = 0; at < kSectorBytes; at += sizeof tag) {
    std::memcpy(&bytes[at], &tag, sizeof tag);
  }
  return bytes;
}

std::optional<GuestModel::Tag> GuestModel::tag_of(std::span<const std::uint8_t> sector) {
  Tag first = 0;
  std::memcpy(&first, sector.data(), sizeof first);
  // Shifted by one tag it is itself: every tag is the same.
  const auto same = std::memcmp(sector.data(), &sector[sizeof first], kSectorBytes - sizeof first) == 0;
  return same ? std::optional(first) : std::nullopt;
}

std::size_t GuestModel::begin_change(std::uint64_t sector, std::uint64_t count, Tag tag, Event begun) {
  Change change{sector, count, {}};
  for (std::uint64_t i = 0; i < count; ++i) {
    auto& versions = versions_[sector + i];
    change.positions.push_back(versions.size());
    versions.push_back({tag, begun, kNever, false});
  }
  changes_.push_back(std::move(change));
  return changes_.size() - 1;
}

void GuestModel::end_change(std::size_t index, Event ended, bool replaces) {
  const auto& change = changes_[index];
  for (std::uint64_t i = 0; i < change.count; ++i) {
    auto& version = versions_[change.sector + i][change.positions[i]];
    version.replaces = replaces;
    version.ended = ended;
  }
}

Event GuestModel::vouched(std::optional<Event> cut) const {
  Event vouched = cut ? 0 : kNever;
  for (const auto& flush : flushes_) {
    if (cut && flush.ended <= *cut) {
      vouched = std::max(vouched, flush.begun);
    }
  }
  return vouched;
}

bool GuestModel::allowed_since(std::uint64_t sector, Tag tag, std::optional<Event> cut, Event vouched) const {
  // From the newest back to the one that no older can shine through.
  const auto& versions = versions_[sector];
  for (auto version = versions.rbegin(); version != versions.rend(); ++version) {
    if (cut && version->begun > *cut) {
      continue;
    }
    if (version->tag == tag) {
      return true;
    }
    if (version->replaces && version->ended < vouched) {
      return false;
    }
  }
  return false;
}

std::string Workload::run() {
  for (unsigned started = 0; started < options_.requests && complaint_.empty(); ++started) {
    while (in_flight_ >= options_.depth) {
      scheduler_.run_once(true);
    }
    ++in_flight_;
    spawn(request(), [this] { --in_flight_; });
    for (auto turns = below(random_, 4); turns > 0; --turns) {
      scheduler_.run_once(true);
    }
  }
  while (in_flight_ != 0) {
    scheduler_.run_once(true);
  }
  return complaint_;
}

Task<void> Workload::request() {
  auto* image = dynamic_cast<qcow2::Image*>(&device_);
  if (image != nullptr && below(random_, 100) < options_.administration_percent) {
    co_await administer(*image);
    co_return;
  }
  const auto kind = below(random_, 100);
  if (kind < options_.flush_percent) {
    co_await flush();
    co_return;
  }
  auto sector = below(random_, model_.sectors());
  auto count = 1 + below(random_, std::min<std::uint64_t>(options_.max_sectors, model_.sectors() - sector));
  const bool compressed = image != nullptr && below(random_, 100) < options_.compressed_percent;
  if (compressed) {
    const auto cluster = (std::uint64_t{1} << image->header().cluster_bits) / kSector;
    sector = sector / cluster * cluster;
    count = std::min(cluster, model_.sectors() - sector);
    if (count != cluster) {
      co_return;
    }
  }
  for (const auto& [first, end] : busy_) {
    if (first < sector + count && sector < end) {
      co_return;  // overlaps: what such requests leave is not defined
    }
  }
  busy_.emplace(sector, sector + count);
  if (compressed) {
    co_await write_compressed(*image, sector, count);
    busy_.erase(sector);
    co_return;
  }
  auto limit = options_.flush_percent + options_.discard_percent;
  if (kind < limit) {
    co_await zero(sector, count, true);
  } else if (kind < (limit += options_.zero_percent)) {
    co_await zero(sector, count, false);
  } else if (kind < limit + options_.read_percent) {
    co_await read(sector, count);
  } else {
    co_await write(sector, count);
  }
  busy_.erase(sector);
}

void Workload::complain(std::string what) {
  if (complaint_.empty()) {
    complaint_ = std::move(what);
  }
}

void Workload::note_result(const Result<void>& result) {
  if (!result) {
    ++errors_;
    if (!options_.errors_expected || result.error().code == ErrorCode::kCorrupt) {
      complain(result.error().message);
    }
  }
}

Task<void> Workload::write(std::uint64_t sector, std::uint64_t count) {
  const auto tag = model_.next_tag();
  Bytes data;
  const auto one = GuestModel::sector_content(tag);
  for (std::uint64_t i = 0; i < count; ++i) {
    data.insert(data.end(), one.begin(), one.end());
  }
  const auto change = model_.begin_change(sector, count, tag, scheduler_.next_event());
  const iovec vec{data.data(), data.size()};
  auto result = co_await device_.writev(sector * kSector, {&vec, 1});
  model_.end_change(change, scheduler_.next_event(), result.has_value());
  note_result(result);
}

Task<void> Workload::write_compressed(qcow2::Image& image, std::uint64_t sector, std::uint64_t count) {
  const auto tag = model_.next_tag();
  Bytes data;
  const auto one = GuestModel::sector_content(tag);
  for (std::uint64_t i = 0; i < count; ++i) {
    data.insert(data.end(), one.begin(), one.end());
  }
  const auto change = model_.begin_change(sector, count, tag, scheduler_.next_event());
  const iovec vec{data.data(), data.size()};
  auto result = co_await image.write_compressed(sector * kSector, {&vec, 1});
  model_.end_change(change, scheduler_.next_event(), result.has_value());
  note_result(result);
}

/// One at a time; none of it changes what the guest sees of its disk.
Task<void> Workload::administer(qcow2::Image& image) {
  if (std::exchange(administering_, true)) {
    co_return;
  }
  const auto disk = model_.sectors() * kSector;
  Result<void> result;
  qcow2::Snapshots snapshots(image);
  switch (below(random_, 6)) {
    case 0: {
      qcow2::Snapshot snapshot;
      result = co_await snapshots.create(std::move(snapshot));
      break;
    }
    case 1: {
      auto list = co_await snapshots.list();
      if (!list) {
        result = std::unexpected(list.error());
      } else if (!list->empty()) {
        auto id = list->front().id;
        result = co_await snapshots.remove(std::move(id));
      }
      break;
    }
    case 2: {
      const auto longer = disk + below(random_, 100) * 4096;
      result = co_await image.resize(longer);
      break;
    }
    case 3: result = co_await image.resize(disk); break;
    default: {
      if (image.header().version < 3) {
        break;
      }
      std::string bitmap = "b";
      if (bitmap_exists_) {
        result = co_await image.bitmaps().remove(std::move(bitmap));
      } else {
        result = co_await image.bitmaps().add(std::move(bitmap), 4096, true);
      }
      bitmap_exists_ = bitmap_exists_ != result.has_value();
    }
  }
  // Refcounts of few bits cannot count snapshots: that is said, and nothing happens.
  if (!result && result.error().code == ErrorCode::kUnsupported) {
    result = {};
  }
  note_result(result);
  administering_ = false;
}

Task<void> Workload::zero(std::uint64_t sector, std::uint64_t count, bool discard) {
  const auto change = model_.begin_change(sector, count, 0, scheduler_.next_event());
  Result<void> result;
  if (discard) {
    result = co_await device_.discard(sector * kSector, count * kSector);
  } else {
    const bool may_unmap = below(random_, 2) == 0;
    result = co_await device_.write_zeroes(sector * kSector, count * kSector, {.may_unmap = may_unmap});
  }
  model_.end_change(change, scheduler_.next_event(), result.has_value() && !discard);
  note_result(result);
}

Task<void> Workload::read(std::uint64_t sector, std::uint64_t count) {
  Bytes data(static_cast<std::size_t>(count * kSector));
  const iovec vec{data.data(), data.size()};
  auto result = co_await device_.readv(sector * kSector, {&vec, 1});
  note_result(result);
  for (std::uint64_t i = 0; result && i < count; ++i) {
    const auto tag =
        GuestModel::tag_of(std::span(data).subspan(static_cast<std::size_t>(i * kSector), kSector));
    if (!tag || !model_.allowed(sector + i, *tag, std::nullopt)) {
      complain(
          fmt::format("sector {} reads as {}", sector + i, tag ? fmt::format("{:#x}", *tag) : "a torn one"));
    }
  }
}

Task<void> Workload::flush() {
  const auto begun = scheduler_.next_event();
  auto result = co_await device_.flush();
  if (result) {
    model_.flushed(begun, scheduler_.next_event());
  }
  note_result(result);
}

std::string compare_with_model(Executor& executor, BlockDevice& device, const GuestModel& model,
                               std::optional<Event> cut) {
  constexpr std::uint64_t kChunk = 128;
  const auto vouched = model.vouched(cut);
  Bytes data(kChunk * kSector);
  for (std::uint64_t sector = 0; sector < model.sectors(); sector += kChunk) {
    const auto count = std::min(kChunk, model.sectors() - sector);
    const iovec vec{data.data(), static_cast<std::size_t>(count * kSector)};
    const auto result = sync_wait(executor, device.readv(sector * kSector, {&vec, 1}));
    if (!result) {
      return result.error().message;
    }
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto tag =
          GuestModel::tag_of(std::span(data).subspan(static_cast<std::size_t>(i * kSector), kSector));
      if (!tag || !model.allowed_since(sector + i, *tag, cut, vouched)) {
        return fmt::format("sector {} holds {}", sector + i, tag ? fmt::format("{:#x}", *tag) : "a torn one");
      }
    }
  }
  return "";
}

}  // namespace whistler::test

#include "devices/core/bus.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/bytes.hpp"
#include "base/log.hpp"

namespace whistler {

Result<void> Bus::map(const BusRange& range, IoHandler& handler, std::string_view owner) {
  if (range.length == 0 || range.base + (range.length - 1) < range.base) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{}: {} asks for an empty or wrapping range at {:#x}", name_, owner, range.base));
  }
  const auto after =
      std::ranges::upper_bound(mappings_, range.base, {}, [](const Mapping& m) { return m.range.base; });
  const auto overlaps = [&](const Mapping& other) {
    return other.range.base <= range.base + (range.length - 1) &&
           range.base <= other.range.base + (other.range.length - 1);
  };
  const Mapping* taken = nullptr;
  if (after != mappings_.end() && overlaps(*after)) {
    taken = &*after;
  } else if (after != mappings_.begin() && overlaps(*std::prev(after))) {
    taken = &*std::prev(after);
  }
  if (taken != nullptr) {
    return fail(ErrorCode::kExists, fmt::format("{}: {} at {:#x} overlaps {} at {:#x}", name_, owner,
                                                range.base, taken->owner, taken->range.base));
  }
  mappings_.insert(after, Mapping{range, &handler, std::string(owner)});
  return {};
}

void Bus::unmap(const IoHandler& handler) {
  std::erase_if(mappings_, [&](const Mapping& m) { return m.handler == &handler; });
}

Bus::Mapping* Bus::find(std::uint64_t address) {
  auto after =
      std::ranges::upper_bound(mappings_, address, {}, [](const Mapping& m) { return m.range.base; });
  if (after == mappings_.begin()) {
    return nullptr;
  }
  --after;
  return address - after->range.base < after->range.length ? &*after : nullptr;
}

std::uint64_t Bus::read(std::uint64_t address, unsigned width) {
  std::uint64_t value = 0;
  for (unsigned done = 0; done < width;) {
    Mapping* mapping = find(address + done);
    unsigned piece = 1;
    std::uint64_t part = 0xFF;
    if (mapping != nullptr) {
      piece = std::min(width - done, mapping->range.max_width);
      ++mapping->reads;  // first: the handler may change the mappings
      part = mapping->handler->read(address + done - mapping->range.base + mapping->range.offset, piece) &
             all_ones(piece);
    } else {
      ++unclaimed_;
      log_once(LogLevel::kDebug, fmt::format("{} r {:x}", name_, address),
               fmt::format("{}: nobody answers a read of {:#x}", name_, address));
    }
    value |= part << (8 * done);
    done += piece;
  }
  return value;
}

void Bus::write(std::uint64_t address, unsigned width, std::uint64_t value) {
  for (unsigned done = 0; done < width;) {
    Mapping* mapping = find(address + done);
    unsigned piece = 1;
    if (mapping != nullptr) {
      piece = std::min(width - done, mapping->range.max_width);
      ++mapping->writes;
      mapping->handler->write(address + done - mapping->range.base + mapping->range.offset, piece,
                              (value >> (8 * done)) & all_ones(piece));
    } else {
      ++unclaimed_;
      log_once(LogLevel::kDebug, fmt::format("{} w {:x}", name_, address),
               fmt::format("{}: nobody takes a write of {:#x}", name_, address));
    }
    done += piece;
  }
}

Bus::Mapping* Bus::find_whole(std::uint64_t address, unsigned width) {
  Mapping* const mapping = find(address);
  return mapping != nullptr && width <= mapping->range.max_width ? mapping : nullptr;
}

void Bus::read_many(std::uint64_t address, unsigned width, std::span<std::uint8_t> data) {
  if (Mapping* const mapping = find_whole(address, width); mapping != nullptr) {
    mapping->reads += data.size() / width;
    mapping->handler->read_many(address - mapping->range.base + mapping->range.offset, width, data);
    return;
  }
  for (; data.size() >= width; data = data.subspan(width)) {
    store_little(data.data(), width, read(address, width));
  }
}

void Bus::write_many(std::uint64_t address, unsigned width, std::span<const std::uint8_t> data) {
  if (Mapping* const mapping = find_whole(address, width); mapping != nullptr) {
    mapping->writes += data.size() / width;
    mapping->handler->write_many(address - mapping->range.base + mapping->range.offset, width, data);
    return;
  }
  for (; data.size() >= width; data = data.subspan(width)) {
    write(address, width, load_little(data.data(), width));
  }
}

std::vector<Bus::Usage> Bus::usage() const {
  std::vector<Usage> rows;
  rows.reserve(mappings_.size());
  for (const auto& m : mappings_) {
    rows.push_back({m.owner, m.range.base, m.range.length, m.reads, m.writes});
  }
  return rows;
}

}  // namespace whistler

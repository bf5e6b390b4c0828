#include "block/qcow2_options.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <utility>

namespace whistler {

namespace {

constexpr std::uint64_t kMinEntryBytes = 512;
constexpr std::uint64_t kUsualEntryBytes = 4096;
constexpr std::uint64_t kUsualL2CacheBytes = 32 * 1024 * 1024;
constexpr std::uint64_t kMinRefcountTables = 4;
constexpr std::uint64_t kMaxTables = std::numeric_limits<std::int32_t>::max();

constexpr std::array<std::string_view, 13> kSwitches = {"lazy-refcounts",
                                                        "pass-discard-request",
                                                        "pass-discard-snapshot",
                                                        "pass-discard-other",
                                                        "overlap-check.main-header",
                                                        "overlap-check.active-l1",
                                                        "overlap-check.active-l2",
                                                        "overlap-check.refcount-table",
                                                        "overlap-check.refcount-block",
                                                        "overlap-check.snapshot-table",
                                                        "overlap-check.inactive-l1",
                                                        "overlap-check.inactive-l2",
                                                        "overlap-check.bitmap-directory"};
constexpr std::array<std::string_view, 7> kValues = {
    "cache-size",           "l2-cache-size", "refcount-cache-size",   "l2-cache-entry-size",
    "cache-clean-interval", "overlap-check", "overlap-check.template"};

std::unexpected<Error> refuse(std::string text) { return fail(ErrorCode::kInvalid, std::move(text)); }

bool is_switch(std::string_view key) { return std::ranges::find(kSwitches, key) != kSwitches.end(); }

/// In a "json:" name the checks may be an object of their own.
void flatten_overlap_checks(Options& options) {
  const auto found = options.find("overlap-check");
  if (found == options.end() || !found->is_object()) {
    return;
  }
  const Options nested = *found;
  options.erase(found);
  for (const auto& [key, value] : nested.items()) {
    options["overlap-check." + key] = value;
  }
}

Result<void> check_overlap_options(const Options& options) {
  const auto plain = option_text(options, "overlap-check");
  const auto chosen = option_text(options, "overlap-check.template");
  if (plain && chosen && *plain != *chosen) {
    return refuse(
        fmt::format("Conflicting values for qcow2 options 'overlap-check' ('{}') and "
                    "'overlap-check.template' ('{}')",
                    *plain, *chosen));
  }
  const auto value = plain ? *plain : chosen.value_or("cached");
  if (value != "none" && value != "constant" && value != "cached" && value != "all") {
    return refuse(
        fmt::format("Unsupported value '{}' for qcow2 option 'overlap-check'. Allowed are any of the "
                    "following: none, constant, cached, all",
                    value));
  }
  return {};
}

Result<void> check_clean_interval(const Options& options) {
  const auto seconds = option_number(options, "cache-clean-interval");
  if (!seconds) {
    return std::unexpected(seconds.error());
  }
  if (*seconds && **seconds > std::numeric_limits<std::uint32_t>::max()) {
    return refuse("Cache clean interval too big");
  }
  return {};
}

}  // namespace

std::uint64_t Qcow2Options::memory_for_l2() const {
  if (l2_cache_bytes || !cache_bytes) {
    return l2_cache_bytes.value_or(0);
  }
  return *cache_bytes - std::min(*cache_bytes, refcount_cache_bytes.value_or(0));
}

bool is_qcow2_option(std::string_view key) {
  return is_switch(key) || std::ranges::find(kValues, key) != kValues.end();
}

Result<Qcow2Options> take_qcow2_options(Options& options) {
  flatten_overlap_checks(options);
  Qcow2Options taken;
  for (const auto& item : options.items()) {
    if (is_switch(item.key())) {
      const auto on = option_flag(options, item.key(), false);
      if (!on) {
        return std::unexpected(on.error());
      }
      if (item.key() == "lazy-refcounts") {
        taken.lazy_refcounts = *on;
      } else if (item.key() == "pass-discard-request") {
        taken.pass_discard_request = *on;
      }
    }
  }
  for (const auto& [key, into] :
       {std::pair("cache-size", &taken.cache_bytes), std::pair("l2-cache-size", &taken.l2_cache_bytes),
        std::pair("refcount-cache-size", &taken.refcount_cache_bytes),
        std::pair("l2-cache-entry-size", &taken.l2_entry_bytes)}) {
    const auto bytes = option_size(options, key);
    if (!bytes) {
      return std::unexpected(bytes.error());
    }
    *into = *bytes;
  }
  if (taken.cache_bytes && taken.l2_cache_bytes && taken.refcount_cache_bytes) {
    return refuse("cache-size, l2-cache-size and refcount-cache-size may not be set at the same time");
  }
  if (taken.cache_bytes && taken.l2_cache_bytes.value_or(0) > *taken.cache_bytes) {
    return refuse("l2-cache-size may not exceed cache-size");
  }
  if (taken.cache_bytes && taken.refcount_cache_bytes.value_or(0) > *taken.cache_bytes) {
    return refuse("refcount-cache-size may not exceed cache-size");
  }
  if (auto ok = check_clean_interval(options); !ok) {
    return std::unexpected(ok.error());
  }
  if (auto ok = check_overlap_options(options); !ok) {
    return std::unexpected(ok.error());
  }
  std::erase_if(options.get_ref<Options::object_t&>(),
                [](const auto& item) { return is_qcow2_option(item.first); });
  return taken;
}

Result<void> check_qcow2_options(const Qcow2Options& options, const qcow2::Header& header) {
  const auto geometry = header.geometry();
  const auto cluster = geometry.cluster_size();
  const auto entry = options.l2_entry_bytes.value_or(std::min(cluster, kUsualEntryBytes));
  if (entry < kMinEntryBytes || entry > cluster || !std::has_single_bit(entry)) {
    return refuse(
        fmt::format("L2 cache entry size must be a power of two between {} and the cluster size ({})",
                    kMinEntryBytes, cluster));
  }
  // More than the tables of the whole disk is never used, however much is allowed.
  const auto largest = geometry.clusters_for(geometry.clusters_for(header.size) * geometry.l2_entry_bytes())
                       << geometry.cluster_bits;
  auto l2 = std::min(largest, options.l2_cache_bytes.value_or(kUsualL2CacheBytes));
  auto counts = options.refcount_cache_bytes.value_or(kMinRefcountTables * cluster);
  if (options.cache_bytes && options.l2_cache_bytes) {
    counts = *options.cache_bytes - l2;
  } else if (options.cache_bytes) {
    l2 = std::min(largest, options.memory_for_l2());
    counts = options.refcount_cache_bytes.value_or(*options.cache_bytes - l2);
  }
  if (l2 / entry > kMaxTables) {
    return refuse("L2 cache size too big");
  }
  if (counts / cluster > kMaxTables) {
    return refuse("Refcount cache size too big");
  }
  if (options.lazy_refcounts.value_or(false) && header.version < 3) {
    return refuse("Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level");
  }
  return {};
}

void join_options(Options& options, Options before) {
  auto& old = before.get_ref<Options::object_t&>();
  if (options.contains("overlap-check") || options.contains("overlap-check.template")) {
    std::erase_if(old, [](const auto& item) { return item.first.starts_with("overlap-check"); });
  }
  const bool new_total = options.contains("cache-size");
  if (new_total) {
    old.erase("l2-cache-size");
    old.erase("refcount-cache-size");
  }
  for (auto& [key, value] : old) {
    const auto own = options.find(key);
    if (own == options.end()) {
      options[key] = std::move(value);
    } else if (own->is_object() && value.is_object()) {
      join_options(*own, std::move(value));
    }
  }
  if (!new_total && options.contains("l2-cache-size") && options.contains("refcount-cache-size")) {
    options.erase("cache-size");
  }
}

}  // namespace whistler

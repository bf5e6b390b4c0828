// The options of an open qcow2 image: those that are no property of the file and may change while it is open.
#pragma once

#include <cstdint>
#include <optional>

#include "base/result.hpp"
#include "block/node_options.hpp"
#include "block/qcow2/header.hpp"

namespace whistler {

/// As they were given; what was not has no value.
struct Qcow2Options {
  std::optional<bool> lazy_refcounts = {};
  std::optional<bool> pass_discard_request = {};
  std::optional<std::uint64_t> cache_bytes = {};  ///< L2 tables and refcounts together
  std::optional<std::uint64_t> l2_cache_bytes = {};
  std::optional<std::uint64_t> refcount_cache_bytes = {};
  std::optional<std::uint64_t> l2_entry_bytes = {};

  /// Memory for L2 tables; 0: whatever suits the image.
  [[nodiscard]] std::uint64_t memory_for_l2() const;
};

/// Takes them out of `options`. Errors, here and below, are in QEMU's words.
///
/// Missing: overlap-check and cache-clean-interval are read but change nothing. Tables are always guarded
/// against writes of data, and memory is given back as tables fall out of use.
[[nodiscard]] Result<Qcow2Options> take_qcow2_options(Options& options);

/// Whether an image with that header can work with them.
[[nodiscard]] Result<void> check_qcow2_options(const Qcow2Options& options, const qcow2::Header& header);

/// Gives `options` (a node's tree, of reopen) what it does not say itself from `before`, the tree the node
/// was opened with. A new template of overlap checks drops all old ones, a new size of the whole cache its
/// parts.
void join_options(Options& options, Options before);

/// Whether `key` names an option above.
[[nodiscard]] bool is_qcow2_option(std::string_view key);

}  // namespace whistler

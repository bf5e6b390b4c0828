// Makes new, empty qcow2 images.
#pragma once

#include <optional>
#include <string>

#include "block/block_device.hpp"
#include "block/crypto/luks.hpp"
#include "block/qcow2/header.hpp"

namespace whistler::qcow2 {

/// How the guest data of a new image is to be encrypted.
struct EncryptionOptions {
  CryptMethod method = CryptMethod::kLuks;
  crypto::Secret password = {};
  crypto::LuksOptions luks = {};
};

struct CreateOptions {
  std::uint64_t size = 0;  ///< of the disk; rounded up to a sector
  unsigned version = 3;
  std::uint64_t cluster_size = 65536;  ///< a power of two, 512 to 2 MiB
  unsigned refcount_bits = 16;         ///< a power of two, 1 to 64
  bool lazy_refcounts = false;
  bool extended_l2 = false;
  Compression compression = Compression::kZlib;
  std::optional<std::string> backing_file = {};
  std::optional<std::string> backing_format = {};
  std::optional<std::string> data_file = {};
  bool data_file_raw = false;
  std::optional<EncryptionOptions> encryption = {};
  /// Done by create_image(), once the empty image is there. A raw data file makes kOff mean kMetadata, so
  /// that other programs may write to it.
  Preallocation preallocation = Preallocation::kOff;
  [[nodiscard]] Preallocation effective_preallocation() const {
    return preallocation == Preallocation::kOff && data_file_raw ? Preallocation::kMetadata : preallocation;
  }
};

/// Where the tables of a new image go: header, refcount table, refcount blocks, L1 table, LUKS header, each
/// whole clusters.
struct Layout {
  std::uint64_t table_clusters = 0;
  std::uint64_t blocks = 0;
  std::uint64_t l1_entries = 0;
  std::uint64_t l1_clusters = 0;
  std::uint64_t crypto_clusters = 0;
  [[nodiscard]] constexpr std::uint64_t blocks_first() const { return 1 + table_clusters; }
  [[nodiscard]] constexpr std::uint64_t l1_first() const { return blocks_first() + blocks; }
  [[nodiscard]] constexpr std::uint64_t crypto_first() const { return l1_first() + l1_clusters; }
  [[nodiscard]] constexpr std::uint64_t total() const { return crypto_first() + crypto_clusters; }
};
[[nodiscard]] constexpr Layout plan_layout(const Geometry& geometry, std::uint64_t size,
                                           std::uint64_t crypto_bytes = 0) {
  Layout layout{.table_clusters = 1, .blocks = 1, .l1_entries = geometry.l1_entries_for(size)};
  layout.l1_clusters = geometry.clusters_for(layout.l1_entries * 8);
  layout.crypto_clusters = geometry.clusters_for(crypto_bytes);
  for (;;) {
    const auto blocks =
        (layout.total() + geometry.refcounts_per_block() - 1) >> geometry.refcount_block_bits();
    const auto tables = geometry.clusters_for(blocks * 8);
    if (blocks <= layout.blocks && tables <= layout.table_clusters) {
      return layout;
    }
    layout.blocks = blocks;
    layout.table_clusters = tables;
  }
}

/// kInvalid, saying why, for options that do not go together or a disk too large for them.
[[nodiscard]] Result<void> check_options(const CreateOptions& options);

/// Writes an empty image into `file`, which must be empty. kInvalid, saying why, for options that do not go
/// together.
[[nodiscard]] Task<Result<void>> create(BlockDevice& file, CreateOptions options);

}  // namespace whistler::qcow2

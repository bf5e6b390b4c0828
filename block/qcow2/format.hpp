// The qcow2 format as arithmetic: constants, header, table entries, address computations. No I/O, no state.
// Source: QEMU's public specification, docs/interop/qcow2.txt.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/bytes.hpp"

namespace whistler::qcow2 {

inline constexpr std::uint32_t kMagic = 0x514649fb;  // "QFI\xfb"
inline constexpr unsigned kMinClusterBits = 9;
inline constexpr unsigned kMaxClusterBits = 21;
inline constexpr unsigned kMinExtendedL2ClusterBits = 14;
inline constexpr unsigned kSubclusters = 32;
inline constexpr unsigned kMaxRefcountOrder = 6;
inline constexpr std::uint64_t kMaxL1Bytes = 32 * 1024 * 1024;
inline constexpr std::uint64_t kMaxRefcountTableBytes = 8 * 1024 * 1024;
inline constexpr std::uint32_t kMaxSnapshots = 65536;
inline constexpr std::uint64_t kMaxSnapshotTableBytes = 64 * 1024 * 1024;
inline constexpr std::uint32_t kMaxBackingNameBytes = 1023;
inline constexpr std::uint64_t kMaxHostOffset = (std::uint64_t{1} << 56) - 1;
/// What a torn write cannot split.
inline constexpr std::uint64_t kSector = 512;

// Incompatible features: who does not know one must not open the image.
inline constexpr std::uint64_t kDirty = 1 << 0;
inline constexpr std::uint64_t kCorruptBit = 1 << 1;
inline constexpr std::uint64_t kExternalData = 1 << 2;
inline constexpr std::uint64_t kCompressionType = 1 << 3;
inline constexpr std::uint64_t kExtendedL2 = 1 << 4;
inline constexpr std::uint64_t kKnownIncompatible =
    kDirty | kCorruptBit | kExternalData | kCompressionType | kExtendedL2;
// Compatible features: who does not know one may ignore it.
inline constexpr std::uint64_t kLazyRefcounts = 1 << 0;
// Autoclear features: who does not know one clears it when writing.
inline constexpr std::uint64_t kBitmapsValid = 1 << 0;
inline constexpr std::uint64_t kRawExternalData = 1 << 1;

enum class Compression : std::uint8_t { kZlib = 0, kZstd = 1 };

/// How guest data is encrypted (the header's crypt_method).
enum class CryptMethod : std::uint8_t {
  kNone = 0,
  kAes = 1,   ///< QEMU's old scheme: AES-128-CBC, by guest sector, the key the password itself
  kLuks = 2,  ///< as a LUKS header in the image says, by host sector
};
/// The most clusters' worth of bytes a LUKS header may take.
inline constexpr std::uint64_t kMaxCryptoHeaderBytes = 16 * 1024 * 1024;

enum ExtensionType : std::uint32_t {
  kEndOfExtensions = 0,
  kBackingFormatExtension = 0xe2792aca,
  kFeatureNamesExtension = 0x6803f857,
  kBitmapsExtension = 0x23852875,
  kCryptoExtension = 0x0537be77,
  kDataFileExtension = 0x44415441,
};

/// The header as it lies in the file; version 2 ends before `incompatible_features`.
struct DiskHeader {
  Be<std::uint32_t> magic;
  Be<std::uint32_t> version;
  Be<std::uint64_t> backing_file_offset;
  Be<std::uint32_t> backing_file_size;
  Be<std::uint32_t> cluster_bits;
  Be<std::uint64_t> size;
  Be<std::uint32_t> crypt_method;
  Be<std::uint32_t> l1_size;
  Be<std::uint64_t> l1_table_offset;
  Be<std::uint64_t> refcount_table_offset;
  Be<std::uint32_t> refcount_table_clusters;
  Be<std::uint32_t> nb_snapshots;
  Be<std::uint64_t> snapshots_offset;
  Be<std::uint64_t> incompatible_features;
  Be<std::uint64_t> compatible_features;
  Be<std::uint64_t> autoclear_features;
  Be<std::uint32_t> refcount_order;
  Be<std::uint32_t> header_length;
  std::uint8_t compression_type = 0;
  std::uint8_t padding[7] = {};
};
static_assert(sizeof(DiskHeader) == 112);
inline constexpr std::size_t kHeaderV2Bytes = 72;
inline constexpr std::size_t kHeaderV3Bytes = 104;

/// One snapshot's fixed part; extra data, id and name follow.
struct DiskSnapshot {
  Be<std::uint64_t> l1_table_offset;
  Be<std::uint32_t> l1_size;
  Be<std::uint16_t> id_size;
  Be<std::uint16_t> name_size;
  Be<std::uint32_t> date_seconds;
  Be<std::uint32_t> date_nanoseconds;
  Be<std::uint64_t> vm_clock_nanoseconds;
  Be<std::uint32_t> vm_state_size;
  Be<std::uint32_t> extra_data_size;
};
static_assert(sizeof(DiskSnapshot) == 40);

// Bits of L1, L2 and refcount table entries.
inline constexpr std::uint64_t kCopied = std::uint64_t{1}
                                         << 63;  ///< refcount is exactly 1: may be written in place
inline constexpr std::uint64_t kCompressedFlag = std::uint64_t{1} << 62;
inline constexpr std::uint64_t kZeroFlag = 1;
inline constexpr std::uint64_t kOffsetMask = 0x00ff'ffff'ffff'fe00;
inline constexpr std::uint64_t kL1Reserved = 0x7f00'0000'0000'01ff;
inline constexpr std::uint64_t kRefcountTableReserved = 0x1ff;

/// An L2 entry; `bitmap` is used only with extended L2: bits 0-31 allocated, bits 32-63 reads as zeroes.
struct L2Entry {
  std::uint64_t value = 0;
  std::uint64_t bitmap = 0;
  bool operator==(const L2Entry&) const = default;
};

/// Where the content of a cluster, or subcluster, is.
enum class Kind : std::uint8_t {
  kUnallocated,  ///< in the backing file, or zeroes
  kZero,         ///< reads as zeroes
  kData,         ///< in its host cluster
  kCompressed,
  kInvalid,  ///< the entry contradicts the format
};

/// A piece of a mapping. `host` is set for kData, and for kUnallocated and kZero whose host cluster is
/// reserved.
struct Mapping {
  Kind kind = Kind::kUnallocated;
  std::optional<std::uint64_t> host = {};  ///< host offset of the cluster
  bool operator==(const Mapping&) const = default;
};

/// Where a compressed cluster lies: the bytes [offset, offset + bytes), the last ones perhaps padding.
struct CompressedExtent {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

/// The sizes that follow from the header, and the address arithmetic.
struct Geometry {
  unsigned cluster_bits = 16;
  unsigned refcount_order = 4;
  unsigned version = 3;
  bool extended_l2 = false;
  bool external_data = false;

  [[nodiscard]] constexpr std::uint64_t cluster_size() const { return std::uint64_t{1} << cluster_bits; }
  [[nodiscard]] constexpr std::uint64_t in_cluster(std::uint64_t offset) const {
    return offset & (cluster_size() - 1);
  }
  [[nodiscard]] constexpr std::uint64_t cluster_start(std::uint64_t offset) const {
    return align_down(offset, cluster_size());
  }
  [[nodiscard]] constexpr std::uint64_t cluster_end(std::uint64_t offset) const {
    return align_up(offset, cluster_size());
  }
  [[nodiscard]] constexpr std::uint64_t clusters_for(std::uint64_t bytes) const {
    return (bytes >> cluster_bits) + (in_cluster(bytes) != 0 ? 1 : 0);
  }

  [[nodiscard]] constexpr unsigned l2_entry_bytes() const { return extended_l2 ? 16 : 8; }
  [[nodiscard]] constexpr unsigned l2_bits() const { return cluster_bits - (extended_l2 ? 4 : 3); }
  [[nodiscard]] constexpr std::uint64_t l2_entries() const { return std::uint64_t{1} << l2_bits(); }
  /// Guest bytes one L2 table maps.
  [[nodiscard]] constexpr std::uint64_t l2_coverage() const {
    return std::uint64_t{1} << (l2_bits() + cluster_bits);
  }
  [[nodiscard]] constexpr std::uint64_t l1_index(std::uint64_t offset) const {
    return offset >> (l2_bits() + cluster_bits);
  }
  [[nodiscard]] constexpr std::uint64_t l2_index(std::uint64_t offset) const {
    return (offset >> cluster_bits) & (l2_entries() - 1);
  }
  /// L1 entries a disk of `size` bytes needs.
  [[nodiscard]] constexpr std::uint64_t l1_entries_for(std::uint64_t size) const {
    return l1_index(size) + ((size & (l2_coverage() - 1)) != 0 ? 1 : 0);
  }

  [[nodiscard]] constexpr std::uint64_t subcluster_size() const {
    return extended_l2 ? cluster_size() / kSubclusters : cluster_size();
  }
  [[nodiscard]] constexpr unsigned subcluster_index(std::uint64_t offset) const {
    return static_cast<unsigned>(in_cluster(offset) / subcluster_size());
  }

  [[nodiscard]] constexpr unsigned refcount_bits() const { return 1U << refcount_order; }
  [[nodiscard]] constexpr std::uint64_t max_refcount() const {
    return refcount_order == 6 ? ~std::uint64_t{0} : (std::uint64_t{1} << refcount_bits()) - 1;
  }
  /// Clusters whose refcounts one refcount block holds, as a power of two.
  [[nodiscard]] constexpr unsigned refcount_block_bits() const { return cluster_bits + 3 - refcount_order; }
  [[nodiscard]] constexpr std::uint64_t refcounts_per_block() const {
    return std::uint64_t{1} << refcount_block_bits();
  }

  /// The host cluster of an uncompressed entry, if it has one. In an external data file, offset 0 is as good
  /// as any.
  [[nodiscard]] constexpr std::optional<std::uint64_t> host_of(L2Entry entry) const {
    const auto offset = entry.value & kOffsetMask;
    if (offset != 0 || (external_data && (entry.value & kCopied) != 0)) {
      return offset;
    }
    return std::nullopt;
  }

  /// What `entry` says about one of its subclusters (0 without extended L2).
  [[nodiscard]] constexpr Mapping classify(L2Entry entry, unsigned subcluster) const {
    if ((entry.value & kCompressedFlag) != 0) {
      return {external_data ? Kind::kInvalid : Kind::kCompressed};
    }
    const auto host = host_of(entry);
    if (host && in_cluster(*host) != 0) {
      return {Kind::kInvalid};
    }
    bool allocated = host.has_value();
    bool zero = version >= 3 && (entry.value & kZeroFlag) != 0;
    if (extended_l2) {
      allocated = (entry.bitmap >> subcluster & 1) != 0;
      const bool reserved_bit = zero;
      zero = (entry.bitmap >> (kSubclusters + subcluster) & 1) != 0;
      if (reserved_bit || (allocated && (zero || !host))) {
        return {Kind::kInvalid};
      }
    }
    if (zero) {
      return {Kind::kZero, host};
    }
    return {allocated ? Kind::kData : Kind::kUnallocated, host};
  }

  [[nodiscard]] constexpr CompressedExtent compressed_extent(std::uint64_t entry) const {
    const unsigned offset_bits = 62 - (cluster_bits - 8);
    const auto offset = entry & ((std::uint64_t{1} << offset_bits) - 1);
    const auto sectors = bits(entry, offset_bits, cluster_bits - 8) + 1;
    return {offset, sectors * kSector - (offset & (kSector - 1))};
  }
  /// The entry of a compressed cluster of `bytes` bytes at `offset`.
  [[nodiscard]] constexpr std::uint64_t compressed_entry(std::uint64_t offset, std::uint64_t bytes) const {
    const unsigned offset_bits = 62 - (cluster_bits - 8);
    const auto sectors = (offset + bytes - 1) / kSector - offset / kSector;  // beyond the first
    return kCompressedFlag | sectors << offset_bits | offset;
  }
};

inline L2Entry load_l2(const std::uint8_t* table, std::uint64_t index, const Geometry& geometry) {
  const auto* at = table + index * geometry.l2_entry_bytes();
  return {load_be<std::uint64_t>(at), geometry.extended_l2 ? load_be<std::uint64_t>(at + 8) : 0};
}
inline void store_l2(std::uint8_t* table, std::uint64_t index, const Geometry& geometry, L2Entry entry) {
  auto* at = table + index * geometry.l2_entry_bytes();
  store_be<std::uint64_t>(at, entry.value);
  if (geometry.extended_l2) {
    store_be<std::uint64_t>(at + 8, entry.bitmap);
  }
}

/// Refcount number `index` of a block (or a slice of one), 1 << order bits wide. Widths under a byte are
/// packed from the lowest bit up.
[[nodiscard]] inline std::uint64_t load_refcount(const std::uint8_t* block, std::uint64_t index,
                                                 unsigned order) {
  switch (order) {
    case 3: return block[index];
    case 4: return load_be<std::uint16_t>(block + index * 2);
    case 5: return load_be<std::uint32_t>(block + index * 4);
    case 6: return load_be<std::uint64_t>(block + index * 8);
    default: {
      const auto bit = index << order;
      return bits<std::uint64_t>(block[bit / 8], static_cast<unsigned>(bit % 8), 1U << order);
    }
  }
}
inline void store_refcount(std::uint8_t* block, std::uint64_t index, unsigned order, std::uint64_t value) {
  switch (order) {
    case 3: block[index] = static_cast<std::uint8_t>(value); break;
    case 4: store_be<std::uint16_t>(block + index * 2, static_cast<std::uint16_t>(value)); break;
    case 5: store_be<std::uint32_t>(block + index * 4, static_cast<std::uint32_t>(value)); break;
    case 6: store_be<std::uint64_t>(block + index * 8, value); break;
    default: {
      const auto bit = index << order;
      const auto shift = static_cast<unsigned>(bit % 8);
      const auto mask = ((1U << (1U << order)) - 1) << shift;
      auto& byte = block[bit / 8];
      byte = static_cast<std::uint8_t>((byte & ~mask) | (static_cast<unsigned>(value) << shift & mask));
    }
  }
}

/// Where refcount blocks and, if the table must grow, a new table go when `extra` clusters are appended
/// behind everything: from the first cluster on that no block covers, blocks first, then the table, then the
/// extra clusters. Where small clusters make many blocks, some come in advance: each growth has to wait for
/// the disk. Their entries share a sector, so that they are on the disk together, or not at all.
struct RefcountGrowth {
  std::uint64_t first_cluster = 0;
  std::uint64_t blocks = 0;          ///< new refcount blocks, for table entries first_block and up
  std::uint64_t table_clusters = 0;  ///< 0: the table has room
  std::uint64_t first_block = 0;
  [[nodiscard]] constexpr std::uint64_t table_first() const { return first_cluster + blocks; }
  [[nodiscard]] constexpr std::uint64_t extra_first() const { return table_first() + table_clusters; }
};

/// `used_blocks`: table entries up to the last one in use; `table_entries`: the table's length.
[[nodiscard]] constexpr RefcountGrowth plan_refcount_growth(const Geometry& geometry,
                                                            std::uint64_t used_blocks,
                                                            std::uint64_t table_entries,
                                                            std::uint64_t extra) {
  constexpr std::uint64_t kAtOnce = 64 * 1024;  // bytes
  constexpr std::uint64_t kSectorEntries = 512 / 8;
  const auto in_advance = std::min(
      {used_blocks / 16, kAtOnce >> geometry.cluster_bits, kSectorEntries - used_blocks % kSectorEntries});
  RefcountGrowth plan{.first_cluster = used_blocks << geometry.refcount_block_bits(),
                      .blocks = std::max<std::uint64_t>(1, in_advance),
                      .first_block = used_blocks};
  const auto entries_per_cluster = geometry.cluster_size() / 8;
  for (;;) {
    const auto needed_entries = used_blocks + plan.blocks;
    if (needed_entries > table_entries) {
      // Half as much again, so that a growing image does not move its table often.
      const auto entries = needed_entries + needed_entries / 2;
      plan.table_clusters = (entries + entries_per_cluster - 1) / entries_per_cluster;
    }
    const auto clusters = plan.blocks + plan.table_clusters + extra;
    const auto blocks = (clusters + geometry.refcounts_per_block() - 1) >> geometry.refcount_block_bits();
    if (blocks <= plan.blocks) {
      return plan;
    }
    plan.blocks = blocks;
  }
}

}  // namespace whistler::qcow2

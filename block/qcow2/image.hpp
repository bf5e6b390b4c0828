// A qcow2 image as a block device.
//
// Concurrency: requests run together; a RangeLock on guest clusters makes two wait for each other only where
// they touch the same cluster and one of them changes its mapping. Allocation and moving of L2 tables are
// short critical sections.
//
// Write order (see writeback.cpp for the barriers): data is written first and linked in memory when it is
// there; a flush then makes durable 1. data, refcounts and new tables, 2. L2 and L1 entries, 3. after which
// clusters that lost their last reference may be used again. A crash at any point leaves, at worst, clusters
// nobody uses.
//
// Encryption is of guest data only, where it is read from and written to its host cluster (encryption.cpp).
//
// Missing: a disk made smaller keeps the length of its L1 table and of its refcount table.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/async.hpp"
#include "block/block_device.hpp"
#include "block/crypto/luks.hpp"
#include "block/iovec.hpp"
#include "block/qcow2/header.hpp"
#include "block/qcow2/refcounts.hpp"
#include "block/qcow2/slice_cache.hpp"
#include "block/qcow2/surroundings.hpp"
#include "block/range_lock.hpp"

namespace whistler::qcow2 {

struct ImageOptions {
  bool read_only = false;
  /// Memory for L2 slices; 0: as much as the whole disk needs, up to kMaxAutomaticCache.
  std::uint64_t metadata_cache_bytes = 0;
  /// Hand discarded clusters back to the host.
  bool discard = true;
  /// Of those that `discard` lets through: give the space back to the host, or only forget the clusters.
  bool pass_discards = true;
  /// Refcounts may stay behind, as long as the dirty bit says so: not as the header has it, but so.
  std::optional<bool> lazy_refcounts = {};
  /// Let a read-only open pass an image marked corrupt, and a writable one too (for repair).
  bool for_repair = false;
  /// Only metadata is wanted: an external data file need not be there.
  bool no_io = false;
};

class Bitmaps;

class Image final : public BlockDevice {
 public:
  static constexpr std::uint64_t kMaxAutomaticCache = 32 * 1024 * 1024;

  /// Reads and checks the header and the L1 table. The image may be used after prepare().
  [[nodiscard]] static Task<Result<std::unique_ptr<Image>>> open(std::unique_ptr<BlockDevice> file,
                                                                 ImageOptions options);

  ~Image() override;
  [[nodiscard]] const Header& header() const { return header_; }
  /// Where the file will grow next, in bytes: behind all clusters that have ever been used.
  [[nodiscard]] std::uint64_t growth_begin() const {
    return refcounts_->never_used() << geometry_.cluster_bits;
  }
  /// Guest bytes that one cached slice of an L2 table maps.
  [[nodiscard]] std::uint64_t slice_coverage() const { return entries_in_slice() * geometry_.cluster_size(); }
  /// What unallocated clusters show; without one they are zeroes.
  void set_backing(std::unique_ptr<BlockDevice> backing) { backing_ = std::move(backing); }
  [[nodiscard]] BlockDevice* backing() const { return backing_.get(); }
  /// Takes it away; what it showed are zeroes from now on.
  [[nodiscard]] std::unique_ptr<BlockDevice> take_backing() { return std::move(backing_); }
  void set_data_file(std::unique_ptr<BlockDevice> data_file) { data_file_ = std::move(data_file); }
  [[nodiscard]] bool encrypted() const { return header_.crypt_method != CryptMethod::kNone; }
  /// The LUKS header, if the encryption is LUKS.
  [[nodiscard]] const crypto::LuksHeader* luks_header() const { return luks_ ? &luks_->header() : nullptr; }
  /// Makes the content of an encrypted image accessible. Without it guest data is neither read nor written;
  /// everything else works. kPermission for a wrong password (old AES cannot tell).
  [[nodiscard]] Task<Result<void>> unlock(const crypto::Secret& password, Ring* ring = nullptr,
                                          Stop* stop = nullptr);
  /// Adds or erases LUKS keys.
  [[nodiscard]] Task<Result<void>> amend_encryption(crypto::LuksAmend change);
  /// The last step of opening: loads what writing needs, repairs refcounts a crash left behind (dirty bit),
  /// and clears what this program does not keep up to date (autoclear features).
  [[nodiscard]] Task<Result<void>> prepare();

  [[nodiscard]] std::uint64_t size() const override { return header_.size; }
  [[nodiscard]] bool read_only() const override { return options_.read_only || corrupt_; }
  [[nodiscard]] std::string name() const override { return file_->name(); }
  [[nodiscard]] BlockDevice* backing() override { return backing_.get(); }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override;
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags = {}) override;
  [[nodiscard]] Task<Result<void>> flush() override;
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags = {}) override;
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t bytes) override;
  /// Gives every unallocated guest cluster of the range a host cluster. Where a backing file shows through,
  /// only subclusters allow that; without them such clusters stay as they are.
  [[nodiscard]] Task<Result<void>> preallocate(std::uint64_t offset, std::uint64_t bytes,
                                               Preallocation mode) override;
  [[nodiscard]] Task<Result<void>> set_read_only(bool read_only) override;
  [[nodiscard]] Task<Result<void>> close() override;

  /// Writes one cluster compressed (`offset` at its start; all of it, or up to the end of the disk), or as it
  /// is if that would not make it smaller. For converting; what a guest writes is not compressed.
  [[nodiscard]] Task<Result<void>> write_compressed(std::uint64_t offset, IoVec from);
  /// The same for data that was compressed elsewhere, in threads, by compress_cluster() of a whole cluster.
  [[nodiscard]] Task<Result<void>> write_packed(std::uint64_t offset, std::span<const std::uint8_t> packed);

  /// Where in the guest's address space the state of a machine begins: behind the disk, at a table's start.
  [[nodiscard]] std::uint64_t vm_state_offset() const;
  /// `offset` counts from there. What was never written reads as zeroes; writing makes the L1 table longer.
  [[nodiscard]] Task<Result<void>> read_vm_state(std::uint64_t offset, IoVec to);
  [[nodiscard]] Task<Result<void>> write_vm_state(std::uint64_t offset, IoVec from);
  /// Forgets everything this layer holds: what lies below shows again. For commit.
  [[nodiscard]] Task<Result<void>> make_empty();
  /// Changes the name of the backing file in the header, and its format; the open backing file stays as it
  /// is. kNoSpace if the header cannot take it.
  [[nodiscard]] Task<Result<void>> change_backing_file(std::optional<std::string> name,
                                                       std::optional<std::string> format);
  /// Shows, on an image open read-only, the snapshot of that id and name (empty: any). kNotFound.
  [[nodiscard]] Task<Result<void>> show_snapshot(std::string id, std::string name);
  /// Writes out everything and cuts the file off behind the last cluster in use.
  [[nodiscard]] Task<Result<void>> trim_end();
  /// A stretch of the disk with one kind of mapping; `host` where it has a place in the file of its own.
  struct Extent {
    Kind kind = Kind::kUnallocated;
    std::uint64_t bytes = 0;
    std::optional<std::uint64_t> host = {};
  };
  [[nodiscard]] Task<Result<Extent>> extent_at(std::uint64_t offset, std::uint64_t bytes);

  /// The persistent dirty bitmaps.
  [[nodiscard]] Bitmaps& bitmaps() { return *bitmaps_; }

  [[nodiscard]] const CacheStatistics& l2_statistics() const { return l2_cache_->statistics(); }

 private:
  friend class Amender;
  friend class Bitmaps;
  friend class Checker;
  friend class Compactor;
  friend class Snapshots;

  /// A stretch of guest bytes with one kind of mapping, contiguous in the file if it is data.
  struct Run {
    Kind kind = Kind::kUnallocated;
    std::uint64_t host = 0;  ///< kData: offset of the first byte
    std::uint64_t bytes = 0;
    bool copied = false;
    std::uint64_t compressed = 0;  ///< kCompressedFlag: the entry
  };
  /// A cluster one of whose references is gone from memory; counted down when it is gone from disk.
  struct PendingFree {
    std::uint64_t cluster = 0;
    bool discard = false;
  };
  struct L1Sector {
    std::uint64_t number = 0;
    std::vector<std::uint8_t> bytes;
  };
  /// Clusters of the snapshot table or of a snapshot's L1 table.
  struct SnapshotPlace {
    std::uint64_t first = 0;
    std::uint64_t end = 0;
    bool l1 = false;
  };
  struct DecompressedCluster {
    std::uint64_t entry = 0;
    std::vector<std::uint8_t> bytes;
  };

  Image(std::unique_ptr<BlockDevice> file, ImageOptions options);

  [[nodiscard]] BlockDevice& data() { return data_file_ ? *data_file_ : *file_; }
  [[nodiscard]] std::unexpected<Error> corrupt(const std::string& reason) const;
  [[nodiscard]] Result<void> check_write(std::uint64_t offset, std::uint64_t bytes) const;
  [[nodiscard]] Task<Result<void>> load_l1();
  [[nodiscard]] Task<Result<void>> check_snapshot_table();
  void make_refcounts();
  /// Writes what must be written once at the end, durably.
  [[nodiscard]] Task<Result<void>> settle();
  [[nodiscard]] Task<Result<void>> begin_writing();
  /// Writes what memory says and makes it durable. After a failure it is unknown which of the two is on disk,
  /// so the next writeback begins with this.
  [[nodiscard]] Task<Result<void>> write_header_fields();
  /// Writes the header with these extensions, durably, and takes them over. Nothing may allocate meanwhile.
  [[nodiscard]] Task<Result<void>> replace_extensions(std::vector<Extension> extensions);
  /// Tells the bitmaps that the content of this range is about to change.
  [[nodiscard]] Task<Result<void>> note_change(std::uint64_t offset, std::uint64_t bytes);
  // corruption.cpp
  /// Sets the corrupt bit and stops writing, so that nothing makes the damage worse. Says so once, in QEMU's
  /// words: `error` is one of corrupt().
  [[nodiscard]] Task<void> mark_corrupt(Error error);
  /// What structure of the image lies in that cluster.
  [[nodiscard]] std::string structure_at(std::uint64_t cluster) const;
  /// The error of a write that would hit that structure.
  [[nodiscard]] std::unexpected<Error> overlap(std::uint64_t cluster) const;
  /// Whether a table of the image or of a snapshot lies there.
  [[nodiscard]] bool is_guarded(std::uint64_t cluster) const;
  /// The first such cluster of a write of data. A damaged mapping must not let the guest write over the
  /// tables, the header least of all; in a file for data alone there are none.
  [[nodiscard]] std::optional<std::uint64_t> guarded_cluster(std::uint64_t host, std::uint64_t bytes) const;
  /// Learns where the snapshots' tables are: after opening, and whenever the list has changed.
  [[nodiscard]] Task<void> load_snapshot_places();
  /// The range lock's unit: guest clusters.
  [[nodiscard]] RangeLock::Hold lock_clusters(std::uint64_t offset, std::uint64_t bytes,
                                              RangeLock::Mode mode) {
    return {requests_, geometry_.cluster_start(offset), geometry_.cluster_end(offset + bytes), mode};
  }

  // mapping.cpp
  [[nodiscard]] Result<std::uint64_t> l2_table_at(std::uint64_t l1_index) const;
  /// The error where a raw external data file must have the guest's data at the guest's offsets, and has not.
  [[nodiscard]] std::optional<Error> misplaced_in_raw_file(std::uint64_t guest, std::uint64_t host) const;
  /// The error for an entry that contradicts the format.
  [[nodiscard]] std::unexpected<Error> bad_entry(std::uint64_t guest, L2Entry entry, bool writing) const;
  [[nodiscard]] std::uint64_t slice_offset(std::uint64_t table, std::uint64_t guest) const;
  /// Index of `guest`'s entry within its slice.
  [[nodiscard]] std::uint64_t index_in_slice(std::uint64_t guest) const;
  [[nodiscard]] std::uint64_t entries_in_slice() const {
    return l2_cache_->slice_bytes() / geometry_.l2_entry_bytes();
  }
  /// The run at `offset`, at most `bytes` long.
  [[nodiscard]] Task<Result<Run>> find_run(std::uint64_t offset, std::uint64_t bytes);
  /// The same if the slice is in memory, else nothing.
  [[nodiscard]] std::optional<Result<Run>> find_run_cached(std::uint64_t offset, std::uint64_t bytes);
  [[nodiscard]] Result<Run> run_in_slice(const std::uint8_t* slice, std::uint64_t offset,
                                         std::uint64_t bytes) const;
  /// The slice with the entry of `offset`, in a table that is this image's alone.
  [[nodiscard]] Task<Result<SliceCache::Pin>> writable_slice(std::uint64_t offset);
  [[nodiscard]] Task<Result<void>> own_l2_table(std::uint64_t l1_index);

  // read.cpp
  [[nodiscard]] Task<Result<void>> read_runs(std::uint64_t offset, IoVec to, Run first);
  [[nodiscard]] Task<Result<void>> read_part(std::uint64_t offset, Run run, IoVec to, std::uint64_t done);
  [[nodiscard]] Task<Result<void>> read_run(std::uint64_t offset, const Run& run, IoVec to);
  [[nodiscard]] Task<Result<void>> read_backing(std::uint64_t offset, IoVec to);
  [[nodiscard]] Task<Result<void>> read_compressed(std::uint64_t offset, std::uint64_t entry, IoVec to);
  /// Reads without a range lock: for who holds one.
  [[nodiscard]] Task<Result<void>> read_locked(std::uint64_t offset, IoVec to);
  /// Whether the range reads as zeroes, as far as the mapping tells.
  [[nodiscard]] Task<Result<bool>> known_zero(std::uint64_t offset, std::uint64_t bytes);

  // write.cpp
  /// Where a write goes that needs nothing but data written: all of it lies in one place of its own, the
  /// mapping is in memory, and nothing is encrypted.
  [[nodiscard]] std::optional<std::uint64_t> known_place(std::uint64_t offset, std::uint64_t bytes);
  [[nodiscard]] Task<Result<bool>> write_in_place(std::uint64_t offset, IoVec from);
  [[nodiscard]] Task<Result<void>> write_exclusive(std::uint64_t offset, IoVec from);
  [[nodiscard]] Task<Result<Surroundings>> read_surroundings(std::uint64_t copy_begin, std::uint64_t begin,
                                                             std::uint64_t end, std::uint64_t copy_end,
                                                             bool may_skip);
  [[nodiscard]] Task<Result<std::uint64_t>> write_piece(std::uint64_t offset, IoVec from);
  [[nodiscard]] Task<Result<void>> write_host(std::uint64_t offset, std::uint64_t host, IoVec from,
                                              WriteFlags flags = {});
  [[nodiscard]] Task<Result<void>> write_part(std::uint64_t offset, std::uint64_t host, std::uint64_t bytes,
                                              IoVec from, std::uint64_t done);
  [[nodiscard]] Task<Result<void>> keep_within_bounds();

  // encryption.cpp
  [[nodiscard]] Task<Result<void>> load_encryption();
  /// `offset` is the guest's, `host` the file's; both are at the same place within a cluster.
  [[nodiscard]] Task<Result<void>> read_encrypted(std::uint64_t offset, std::uint64_t host, IoVec to);
  [[nodiscard]] Task<Result<void>> write_encrypted(std::uint64_t offset, std::uint64_t host, IoVec from);
  [[nodiscard]] crypto::SectorCipher* cipher();
  /// Data read from the host offset `from` is about to be written at `to`: what LUKS encrypts depends on
  /// that.
  [[nodiscard]] Result<void> encrypt_for_move(std::uint64_t from, std::uint64_t to, crypto::Bytes data);
  [[nodiscard]] std::unexpected<Error> locked() const;

  // resize.cpp
  [[nodiscard]] Task<Result<void>> grow(std::uint64_t bytes);
  [[nodiscard]] Task<Result<void>> shrink(std::uint64_t bytes);
  [[nodiscard]] Task<Result<void>> move_l1(std::uint64_t entries);
  [[nodiscard]] Task<Result<void>> drop_l2_tables(std::uint64_t first);
  [[nodiscard]] Task<Result<void>> cut_file();

  // preallocate.cpp
  [[nodiscard]] Task<Result<std::uint64_t>> preallocate_row(std::uint64_t offset, std::uint64_t end,
                                                            Preallocation mode);
  [[nodiscard]] bool may_preallocate(L2Entry entry, std::uint64_t guest) const;

  // zero.cpp
  /// Zeroes [offset, end), which is locked, with as little data as can be.
  [[nodiscard]] Task<Result<void>> zero_by_mapping(std::uint64_t offset, std::uint64_t end, bool unmap);
  /// Whether the range reads as zeroes, as far as the mappings of the whole chain tell.
  [[nodiscard]] Task<Result<bool>> reads_zero(std::uint64_t offset, std::uint64_t bytes);
  /// Whole subclusters of one cluster.
  [[nodiscard]] Task<Result<void>> zero_subclusters(std::uint64_t offset, std::uint64_t bytes);
  [[nodiscard]] Task<Result<void>> zero_part(std::uint64_t offset, std::uint64_t bytes);
  [[nodiscard]] Task<Result<void>> zero_clusters(std::uint64_t offset, std::uint64_t bytes, bool unmap,
                                                 bool is_discard);

  // writeback.cpp
  [[nodiscard]] Task<Result<void>> flush_covering(bool durable);
  [[nodiscard]] Task<Result<void>> writeback(bool durable);
  [[nodiscard]] Task<Result<void>> barrier();
  /// Before tables are written whose counts will not be: sets the dirty bit, durably.
  [[nodiscard]] Task<Result<void>> defer_counts();
  /// Writes all counts and clears the dirty bit. Until resume_lazy() counts are written with everything else.
  [[nodiscard]] Task<Result<void>> settle_counts();
  void resume_lazy() {
    lazy_ =
        header_.version >= 3 && options_.lazy_refcounts.value_or((header_.compatible & kLazyRefcounts) != 0);
  }
  [[nodiscard]] std::vector<L1Sector> take_dirty_l1();
  [[nodiscard]] Task<Result<void>> write_l1(const std::vector<L1Sector>& sectors);
  [[nodiscard]] Task<Result<void>> write_metadata(std::vector<SliceCache::Dirty>& counts,
                                                  std::vector<SliceCache::Dirty>& slices,
                                                  const std::vector<L1Sector>& l1);
  [[nodiscard]] Task<Result<void>> apply_frees(std::vector<PendingFree>& frees);
  [[nodiscard]] Task<std::size_t> discard_row(const std::vector<PendingFree>& frees, std::size_t first);
  /// Whether dirty tables and pending frees are few enough to go on without a writeback.
  [[nodiscard]] bool within_bounds() const;
  void set_l1(std::uint64_t index, std::uint64_t value);
  void free_later(std::uint64_t first, std::uint64_t count, bool discard);
  /// Queues what an L2 entry referred to.
  void free_mapping_later(L2Entry entry, bool discard);

  std::unique_ptr<BlockDevice> file_;
  std::unique_ptr<BlockDevice> data_file_;
  std::unique_ptr<BlockDevice> backing_;
  ImageOptions options_;
  Header header_;
  Geometry geometry_;
  std::unique_ptr<Refcounts> refcounts_;
  std::unique_ptr<SliceCache> l2_cache_;
  std::unique_ptr<Bitmaps> bitmaps_;
  std::vector<std::uint64_t> l1_;
  std::set<std::uint64_t> dirty_l1_sectors_;
  std::vector<PendingFree> pending_frees_;
  std::vector<DecompressedCluster> decompressed_;  ///< most recent last
  std::optional<crypto::Luks> luks_;
  std::optional<crypto::SectorCipher> legacy_cipher_;
  RangeLock requests_;
  AsyncMutex l2_allocation_;
  AsyncMutex writeback_mutex_;
  std::uint64_t flushes_asked_ = 0;
  std::uint64_t flushes_covered_ = 0;
  std::vector<SnapshotPlace> snapshot_places_;  ///< in order
  bool corrupt_ = false;
  bool told_of_damage_ = false;
  /// Refcounts may stay behind in memory while the dirty bit is set ("lazy refcounts").
  bool lazy_ = false;
  bool counts_deferred_ = false;  ///< and they may be behind now: the dirty bit is on disk because of it
  bool header_unsettled_ = false;
};

}  // namespace whistler::qcow2

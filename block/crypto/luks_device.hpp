// A raw LUKS volume as a disk: what QEMU calls the format "luks".
#pragma once

#include <memory>

#include "block/crypto/luks.hpp"
#include "block/range_lock.hpp"

namespace whistler::crypto {

/// Requests may have any alignment; those that are not whole sectors read first what they leave of a sector.
class LuksDevice final : public BlockDevice {
 public:
  /// Reads the header. Before unlock() the content can be neither read nor written.
  [[nodiscard]] static Task<Result<std::unique_ptr<LuksDevice>>> open(std::unique_ptr<BlockDevice> file);
  /// Writes an empty volume with a disk of `bytes` into `file`, which must be empty.
  [[nodiscard]] static Task<Result<void>> create(BlockDevice& file, LuksOptions options, Secret password,
                                                 std::uint64_t bytes);

  [[nodiscard]] Luks& luks() { return luks_; }
  [[nodiscard]] const LuksHeader& header() const { return luks_.header(); }
  [[nodiscard]] BlockDevice& file() { return *file_; }

  [[nodiscard]] std::uint64_t size() const override { return size_; }
  [[nodiscard]] bool read_only() const override { return file_->read_only(); }
  [[nodiscard]] std::string name() const override { return file_->name(); }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override;
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags = {}) override;
  [[nodiscard]] Task<Result<void>> flush() override { return file_->flush(); }
  /// Does nothing: a hole in the file would not read as zeroes.
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags = {}) override;
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> close() override { return file_->close(); }

 private:
  LuksDevice(std::unique_ptr<BlockDevice> file, Luks luks);
  [[nodiscard]] Result<void> check(std::uint64_t offset, std::uint64_t bytes, bool write) const;
  [[nodiscard]] std::uint64_t payload() const { return luks_.header().payload_offset; }
  /// Whole sectors, the range locked.
  [[nodiscard]] Task<Result<void>> read_sectors(std::uint64_t offset, IoVec to);
  [[nodiscard]] Task<Result<void>> write_sectors(std::uint64_t offset, IoVec from, WriteFlags flags);
  [[nodiscard]] Task<Result<void>> write_unaligned(std::uint64_t offset, IoVec from, WriteFlags flags);

  std::unique_ptr<BlockDevice> file_;
  Luks luks_;
  std::uint64_t size_ = 0;
  RangeLock requests_;
};

}  // namespace whistler::crypto

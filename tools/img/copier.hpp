// Copies disks one behind the other into one: what convert and dd do once everything is open.
//
// A cursor walks over the sources by their allocation status; workers take pieces from it, read, look for
// zeroes and write. Reads of many pieces run together; unless out-of-order writing is allowed, writes begin
// in the order of the disk, so that a growing image is laid out in that order, always the same.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/async.hpp"
#include "block/block_device.hpp"
#include "block/qcow2/image.hpp"
#include "tools/img/packer.hpp"
#include "tools/img/progress.hpp"
#include "tools/img/rate_limit.hpp"

namespace whistler::tools {

struct CopySource {
  BlockDevice* device = nullptr;
  std::uint64_t bytes = 0;
  std::uint64_t begin = 0;  ///< where in the device they start
  /// What lies in this layer or below shows through the target's own backing file, and is not copied.
  const BlockDevice* base = nullptr;
};

struct CopyOptions {
  std::uint64_t min_zero = 4096;  ///< shortest run of zeroes worth leaving out; 0: write everything
  bool target_zero = false;       ///< the target reads as zeroes already
  bool target_fresh = false;      ///< the target was made for this copy, and has no space yet
  bool target_has_backing = false;
  bool may_unmap = false;  ///< zeroes give back the space of what they replace
  std::optional<std::uint64_t> target_backing_bytes = {};
  bool in_order = true;
  /// How the target takes space. In bytes; 0: it has no such thing.
  struct Layout {
    std::uint64_t cluster = 0;
    std::uint64_t stretch = 0;  ///< mapped by one table: its first write may have to wait for that
    /// Where the target's file will grow next, in bytes; empty: what is written lies there as on the disk.
    std::function<std::uint64_t()> growth_begin = {};
  };
  /// Known: writes in order may overlap where that does not change which takes its space first.
  std::optional<Layout> layout = {};
  unsigned workers = 8;
  std::uint64_t alignment = 512;  ///< pieces of the target end at multiples of this
  /// Compress whole clusters into this image, by these threads.
  qcow2::Image* packed_target = nullptr;
  Packer* packer = nullptr;
  bool salvage = false;
  bool detect_zeroes = true;  ///< look for zeroes in what was read
  std::uint64_t bytes_per_second = 0;
};

class Copier {
 public:
  using Warn = std::function<void(const std::string&)>;
  /// `warn` gets what was lost in salvaging. All must outlive the copier.
  Copier(std::vector<CopySource> sources, BlockDevice& target, CopyOptions options, Progress& progress,
         Warn warn);

  /// The message of an error is the whole line for a person.
  [[nodiscard]] Task<Result<void>> run();
  /// The host's or the engine's error behind the one run() gave.
  [[nodiscard]] const std::optional<Error>& failed_request() const { return failed_request_; }

 private:
  enum class Kind : std::uint8_t { kData, kZero, kBacking };
  struct Piece {
    Kind kind = Kind::kData;
    std::uint64_t begin = 0;
    std::uint64_t bytes = 0;  ///< 0: the end
  };

  [[nodiscard]] const CopySource& source_at(std::uint64_t offset, std::uint64_t& within) const;
  /// Finds the status at `offset` and how far it goes.
  [[nodiscard]] Task<Result<void>> find_status(std::uint64_t offset);
  /// The next stretch that is copied alike; moves nothing.
  [[nodiscard]] Task<Result<Piece>> stretch_at(std::uint64_t offset);
  [[nodiscard]] Task<Result<Piece>> take_piece();
  [[nodiscard]] Task<Result<void>> count_work();
  [[nodiscard]] Task<void> wait_for_turn(std::uint64_t offset);
  /// The next piece may begin.
  void pass_turn(const Piece& piece);
  /// `piece` has taken its space.
  void note_place(const Piece& piece);
  /// How far behind the last edge between pieces `offset` lies.
  [[nodiscard]] std::uint64_t behind_edge(std::uint64_t offset) const {
    return (offset + shift_) & (piece_bytes_ - 1);
  }
  /// Whether a write of the whole piece has its space before it first waits.
  [[nodiscard]] bool takes_space_at_once(const Piece& piece) const;
  [[nodiscard]] Task<void> work(std::uint8_t* buffer);
  [[nodiscard]] Task<Result<void>> copy(Piece piece, std::uint8_t* buffer);
  [[nodiscard]] Task<Result<void>> read(std::uint64_t offset, std::uint8_t* to, std::uint64_t bytes);
  [[nodiscard]] Task<Result<void>> read_salvaging(BlockDevice& device, std::uint64_t offset, std::uint8_t* to,
                                                  std::uint64_t bytes);
  [[nodiscard]] Task<Result<void>> write(std::uint64_t offset, const std::uint8_t* from, std::uint64_t bytes);
  [[nodiscard]] Task<Result<void>> write_packed(std::uint64_t offset, std::uint8_t* from,
                                                std::uint64_t bytes);
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes);
  [[nodiscard]] bool is_work(Kind kind) const {
    return kind == Kind::kData || (options_.min_zero == 0 && kind == Kind::kZero);
  }
  void give_up(Error error);
  [[nodiscard]] std::unexpected<Error> failed(const char* what, std::uint64_t offset, const Error& error);

  std::vector<CopySource> sources_;
  BlockDevice& target_;
  CopyOptions options_;
  Progress& progress_;
  Warn warn_;
  RateLimit rate_;
  std::uint64_t total_ = 0;
  std::uint64_t piece_bytes_ = 0;  ///< a power of two
  /// How much further back than on the disk the last piece lies in the target's file: modulo `piece_bytes_`.
  std::uint64_t shift_ = 0;

  AsyncMutex cursor_mutex_;
  std::uint64_t cursor_ = 0;
  std::uint64_t group_end_ = 0;  ///< pieces up to here have been counted as progress
  Kind group_kind_ = Kind::kData;
  Kind status_ = Kind::kData;
  std::uint64_t status_end_ = 0;
  std::uint64_t work_ = 0;
  std::uint64_t work_done_ = 0;

  std::uint64_t turn_ = 0;  ///< the piece that may write now
  WaitQueue turns_;
  std::optional<std::uint64_t> written_to_;  ///< where the last data that was written ends
  std::optional<Error> error_;
  std::optional<Error> failed_request_;
};

}  // namespace whistler::tools

#include "tools/img/copier.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>

#include "base/bytes.hpp"
#include "block/chain_status.hpp"
#include "block/gather.hpp"
#include "block/iovec.hpp"
#include "tools/img/messages.hpp"
#include "tools/img/zero_runs.hpp"

namespace whistler::tools {

namespace {

/// Progress goes on in steps of this, and compressed pieces are as long.
constexpr std::uint64_t kGroup = 2 * 1024 * 1024;
/// What one worker reads and writes at once: it fits into a core's own cache, so that the bytes it has just
/// read are still there when they are searched and written. Pieces end at multiples of this in the target's
/// file, where that is known: the page cache takes what is written at once, and aligned, as one page.
constexpr std::uint64_t kPiece = 512 * 1024;
constexpr std::uint64_t kSector = 512;

struct FreeDeleter {
  void operator()(std::uint8_t* memory) const { std::free(memory); }
};
using Buffer = std::unique_ptr<std::uint8_t, FreeDeleter>;

}  // namespace

Copier::Copier(std::vector<CopySource> sources, BlockDevice& target, CopyOptions options, Progress& progress,
               Warn warn)
    : sources_(std::move(sources)),
      target_(target),
      options_(options),
      progress_(progress),
      warn_(std::move(warn)),
      rate_(options.bytes_per_second) {
  for (const auto& source : sources_) {
    total_ += source.bytes;
  }
  piece_bytes_ = options_.packed_target != nullptr || options_.min_zero > kPiece ? kGroup : kPiece;
  piece_bytes_ = std::max(piece_bytes_, options_.alignment);
}

const CopySource& Copier::source_at(std::uint64_t offset, std::uint64_t& within) const {
  std::size_t index = 0;
  while (offset >= sources_[index].bytes && index + 1 < sources_.size()) {
    offset -= sources_[index++].bytes;
  }
  within = offset;
  return sources_[index];
}

Task<Result<void>> Copier::find_status(std::uint64_t offset) {
  std::uint64_t within = 0;
  const auto& source = source_at(offset, within);
  auto ask = source.bytes - within;
  Result<ChainStatus> status;
  for (;;) {
    status = co_await chain_status(*source.device, source.base, source.begin + within, ask);
    if (status || !options_.salvage || ask <= kSector) {
      break;
    }
    ask = align_up(ask / 4, kSector);
  }
  if (!status && options_.salvage) {
    warn_(
        fmt::format("error while reading block status at offset {}: {}", within, reason_of(status.error())));
    status = ChainStatus{ask, true, false, true};
  }
  if (!status) {
    co_return failed("reading block status at offset", within, status.error());
  }
  auto bytes = std::min(align_up(status->bytes, kSector), source.bytes - within);
  const auto backing_end = options_.target_backing_bytes.value_or(~std::uint64_t{0});
  if (options_.target_backing_bytes && offset < backing_end) {
    bytes = std::min(bytes, align_up(backing_end - offset, kSector));
  }
  if (status->zero) {
    // Behind the end of the target's backing file there are zeroes anyway.
    status_ = offset >= backing_end ? Kind::kBacking : Kind::kZero;
  } else if (status->allocated || status->data) {
    status_ = Kind::kData;
  } else {
    status_ = options_.target_has_backing ? Kind::kBacking : Kind::kData;
  }
  status_end_ = offset + bytes;
  co_return Result<void>{};
}

Task<Result<Copier::Piece>> Copier::stretch_at(std::uint64_t offset) {
  if (offset >= total_) {
    co_return Piece{.begin = total_};
  }
  if (offset >= status_end_) {
    auto found = co_await find_status(offset);
    if (!found) {
      co_return std::unexpected(found.error());
    }
  }
  Piece piece{status_, offset, status_end_ - offset};
  if (is_work(piece.kind)) {
    piece.bytes = std::min(piece.bytes, std::max(kGroup, options_.alignment));
  }
  if (options_.packed_target != nullptr) {
    // Compressed clusters are written whole.
    const auto cluster = options_.packed_target->header().geometry().cluster_size();
    if (piece.bytes < cluster) {
      piece.bytes = std::min(cluster, total_ - offset);
      piece.kind = Kind::kData;
    } else {
      piece.bytes = align_down(piece.bytes, cluster);
    }
  } else if (is_work(piece.kind) && offset + piece.bytes < status_end_) {
    const auto tail = behind_edge(offset + piece.bytes);
    piece.bytes -= tail < piece.bytes ? tail : 0;
  }
  co_return piece;
}

Task<Result<Copier::Piece>> Copier::take_piece() {
  const auto guard = co_await cursor_mutex_.lock();
  if (error_) {
    co_return Piece{.begin = total_};
  }
  if (cursor_ >= group_end_) {
    auto stretch = co_await stretch_at(cursor_);
    if (!stretch) {
      co_return std::unexpected(stretch.error());
    }
    if (is_work(stretch->kind) && stretch->bytes != 0) {
      work_done_ += stretch->bytes;
      if (work_ != 0) {
        progress_.show(100.0 * static_cast<double>(work_done_) / static_cast<double>(work_));
      }
      rate_.pass(stretch->bytes);
    }
    group_end_ = cursor_ + stretch->bytes;
    group_kind_ = stretch->kind;
  }
  Piece piece{group_kind_, cursor_, group_end_ - cursor_};
  if (is_work(piece.kind)) {
    piece.bytes = std::min(piece.bytes, piece_bytes_ - behind_edge(cursor_));
  }
  cursor_ += piece.bytes;
  co_return piece;
}

Task<Result<void>> Copier::count_work() {
  for (std::uint64_t offset = 0; offset < total_;) {
    auto stretch = co_await stretch_at(offset);
    if (!stretch) {
      co_return std::unexpected(stretch.error());
    }
    work_ += is_work(stretch->kind) ? stretch->bytes : 0;
    offset += stretch->bytes;
  }
  status_end_ = 0;
  co_return Result<void>{};
}

Task<Result<void>> Copier::run() {
  progress_.show(0);
  // What is lost is told by the counting pass as well as by the copying one, as QEMU tells it.
  if (progress_.enabled() || options_.salvage) {
    auto counted = co_await count_work();
    if (!counted) {
      co_return counted;
    }
  }
  std::vector<Buffer> buffers;
  Gate gate;
  const auto workers = options_.salvage ? 1 : options_.workers;  // its warnings come in the order of the disk
  for (unsigned i = 0; i < workers && !error_; ++i) {
    buffers.emplace_back(static_cast<std::uint8_t*>(std::aligned_alloc(4096, align_up(piece_bytes_, 4096))));
    if (!buffers.back()) {
      give_up({ErrorCode::kIo, ENOMEM, "no memory to copy with"});
      break;
    }
    spawn(work(buffers.back().get()), [pass = gate.enter()] {});
  }
  co_await gate.drain();
  if (error_) {
    co_return std::unexpected(*error_);
  }
  co_return Result<void>{};
}

std::unexpected<Error> Copier::failed(const char* what, std::uint64_t offset, const Error& error) {
  if (!failed_request_) {
    failed_request_ = error;
  }
  return fail(error.code, fmt::format("error while {} {}: {}", what, offset, reason_of(error)));
}

void Copier::give_up(Error error) {
  if (!error_) {
    error_ = std::move(error);
  }
  turns_.wake_all();
}

Task<void> Copier::wait_for_turn(std::uint64_t offset) {
  while (turn_ != offset && !error_) {
    co_await turns_.wait();
  }
}

void Copier::pass_turn(const Piece& piece) {
  if (options_.in_order) {
    turn_ = piece.begin + piece.bytes;
    turns_.wake_all();
  }
}

void Copier::note_place(const Piece& piece) {
  if (!options_.layout || !options_.layout->growth_begin) {
    return;
  }
  if (options_.min_zero > options_.alignment) {
    return;  // what is left out as zeroes would depend on where pieces end, and that on the time writes take
  }
  const auto end = align_up(piece.begin + piece.bytes, options_.layout->cluster);
  const auto shift = (options_.layout->growth_begin() - end) & (piece_bytes_ - 1);
  shift_ = shift % options_.alignment == 0 ? shift : 0;
}

bool Copier::takes_space_at_once(const Piece& piece) const {
  if (!options_.layout) {
    return false;
  }
  const auto cluster = options_.layout->cluster;
  const auto stretch = options_.layout->stretch;
  const auto last = piece.begin + piece.bytes - 1;
  const bool tables_known = stretch == 0 || (written_to_ && (*written_to_ - 1) / stretch == last / stretch);
  // Of a row of clusters, one that is there is written before the rest is taken.
  const bool one_row = cluster == 0 || piece.begin % cluster == 0 || piece.begin / cluster == last / cluster;
  return tables_known && one_row;
}

Task<void> Copier::work(std::uint8_t* buffer) {
  while (!error_) {
    auto piece = co_await take_piece();
    if (!piece) {
      give_up(piece.error());
      co_return;
    }
    if (piece->bytes == 0) {
      co_return;
    }
    auto done = co_await copy(*piece, buffer);
    if (!done) {
      give_up(done.error());
      co_return;
    }
  }
}

Task<Result<void>> Copier::copy(Piece piece, std::uint8_t* buffer) {
  const bool explicit_zeroes = piece.kind == Kind::kZero && options_.min_zero == 0;
  const bool data = piece.kind == Kind::kData || explicit_zeroes;
  if (explicit_zeroes) {
    std::memset(buffer, 0, static_cast<std::size_t>(piece.bytes));
  } else if (data) {
    auto read_in = co_await read(piece.begin, buffer, piece.bytes);
    if (!read_in) {
      co_return failed("reading at byte", piece.begin, read_in.error());
    }
  }
  const bool packed = data && options_.packed_target != nullptr;
  if (options_.in_order && !packed) {
    co_await wait_for_turn(piece.begin);
    if (error_) {
      co_return Result<void>{};
    }
  }
  Gather writes;
  if (packed) {
    writes.start(write_packed(piece.begin, buffer, piece.bytes));
    co_await writes.wait_below(1);
  } else if (data) {
    const auto min_zero = options_.detect_zeroes ? static_cast<std::size_t>(options_.min_zero) : 0;
    const bool may_overlap = takes_space_at_once(piece);
    written_to_ = piece.begin + piece.bytes;
    for (std::uint64_t at = 0; at < piece.bytes && !writes.failed();) {
      const auto rest = std::span(buffer + at, static_cast<std::size_t>(piece.bytes - at));
      const auto stretch =
          first_stretch(rest, piece.begin + at, min_zero, static_cast<std::size_t>(options_.alignment));
      writes.start(stretch.data ? write(piece.begin + at, buffer + at, stretch.bytes)
                                : write_zeroes(piece.begin + at, stretch.bytes));
      if (!may_overlap || stretch.bytes != piece.bytes) {
        co_await writes.wait_below(1);
      }
      at += stretch.bytes;
    }
    note_place(piece);
  } else if (piece.kind == Kind::kZero) {
    writes.start(write_zeroes(piece.begin, piece.bytes));
    co_await writes.wait_below(1);
  }
  // All of it has its space: the next may begin, even while this one is still being written.
  pass_turn(piece);
  auto done = co_await writes.wait();
  if (!done) {
    co_return failed("writing at byte", piece.begin, done.error());
  }
  co_return done;
}

Task<Result<void>> Copier::read(std::uint64_t offset, std::uint8_t* to, std::uint64_t bytes) {
  while (bytes != 0) {
    std::uint64_t within = 0;
    const auto& source = source_at(offset, within);
    const auto part = std::min(bytes, source.bytes - within);
    const iovec vec{to, static_cast<std::size_t>(part)};
    auto done = co_await source.device->readv(source.begin + within, {&vec, 1});
    if (!done && options_.salvage) {
      done = co_await read_salvaging(*source.device, source.begin + within, to, part);
    }
    if (!done) {
      co_return done;
    }
    offset += part;
    to += part;
    bytes -= part;
  }
  co_return Result<void>{};
}

/// Sector by sector; what cannot be read becomes zeroes.
Task<Result<void>> Copier::read_salvaging(BlockDevice& device, std::uint64_t offset, std::uint8_t* to,
                                          std::uint64_t bytes) {
  for (std::uint64_t at = 0; at < bytes; at += kSector) {
    const iovec vec{to + at, static_cast<std::size_t>(std::min(kSector, bytes - at))};
    auto done = co_await device.readv(offset + at, {&vec, 1});
    if (!done) {
      warn_(fmt::format("error while reading offset {}: {}", offset + at, reason_of(done.error())));
      std::memset(vec.iov_base, 0, vec.iov_len);
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> Copier::write(std::uint64_t offset, const std::uint8_t* from, std::uint64_t bytes) {
  const iovec vec{const_cast<std::uint8_t*>(from), static_cast<std::size_t>(bytes)};
  const WriteFlags flags{.fresh = options_.target_fresh};
  auto done = co_await target_.writev(offset, {&vec, 1}, flags);
  co_return done;
}

/// Compresses the clusters of a piece side by side, and writes them when it is this piece's turn.
Task<Result<void>> Copier::write_packed(std::uint64_t offset, std::uint8_t* from, std::uint64_t bytes) {
  const auto cluster = options_.packed_target->header().geometry().cluster_size();
  std::vector<std::uint8_t> padded;  // the last cluster of a disk that ends within it
  if (const auto part = bytes % cluster; part != 0) {
    padded.resize(static_cast<std::size_t>(cluster));
    std::memcpy(padded.data(), from + bytes - part, static_cast<std::size_t>(part));
  }
  struct Cluster {
    std::uint64_t at;
    std::uint64_t bytes;
    Packer::Job* job;  ///< null: nothing but zeroes
  };
  std::deque<Packer::Job> jobs;
  std::vector<Cluster> clusters;
  for (std::uint64_t at = 0; at < bytes; at += cluster) {
    const auto length = std::min(cluster, bytes - at);
    const auto content = std::span<const std::uint8_t>(length == cluster ? from + at : padded.data(),
                                                       static_cast<std::size_t>(cluster));
    const bool zero = options_.min_zero != 0 && is_zero(content);
    clusters.push_back({at, length, zero ? nullptr : &jobs.emplace_back(*options_.packer, content)});
  }
  for (auto& job : jobs) {
    co_await job;
  }
  co_await wait_for_turn(offset);
  Result<void> done;
  for (std::size_t i = 0; i < clusters.size() && done && !error_; ++i) {
    const auto& [at, length, job] = clusters[i];
    if (job == nullptr) {
      done = co_await write_zeroes(offset + at, length);
    } else if (job->packed().empty()) {
      done = co_await write(offset + at, from + at, length);
    } else {
      done = co_await options_.packed_target->write_packed(offset + at, job->packed());
    }
  }
  co_return done;
}

Task<Result<void>> Copier::write_zeroes(std::uint64_t offset, std::uint64_t bytes) {
  if (options_.target_zero) {
    co_return Result<void>{};
  }
  auto done = co_await target_.write_zeroes(offset, bytes, {.may_unmap = options_.may_unmap});
  co_return done;
}

}  // namespace whistler::tools

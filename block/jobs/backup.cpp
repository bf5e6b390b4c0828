#include "block/jobs/backup.hpp"

#include <algorithm>
#include <utility>

#include "base/bytes.hpp"

namespace whistler {

Backup::Backup(DriveImage& drive, std::unique_ptr<BlockDevice> target, CopySync sync, std::uint64_t cluster,
               BackupBitmap bitmap)
    : drive_(drive),
      target_(std::move(target)),
      sync_(sync),
      bitmap_(std::move(bitmap)),
      copied_(drive.size(), copy_unit_bits(cluster)) {}

void Backup::begin(BlockJob& job) {
  job_ = &job;
  drive_.watch(this);
  if (bitmap_.bitmap) {
    bitmap_.bitmap->lend();
    if (bitmap_.selects) {
      select();
    }
  }
}

void Backup::select() {
  selected_.emplace(copied_.disk_bytes(), copied_.granularity_bits());
  selected_->merge(bitmap_.bitmap->bits());
  for (std::uint64_t at = 0; at < copied_.disk_bytes();) {
    const auto stretch = selected_->stretch(at);
    if (!stretch.dirty) {
      copied_.set(at, stretch.bytes);
    }
    at += stretch.bytes;
  }
}

DirtyBits Backup::left_dirty(bool well) const {
  auto left = bitmap_.bitmap->bits();
  if (well && bitmap_.mode != BackupBitmap::Mode::kNever) {
    left.clear();
  } else if (bitmap_.mode == BackupBitmap::Mode::kAlways) {
    const auto unit = left.granularity();
    for (std::uint64_t at = 0; at < copied_.disk_bytes();) {
      const auto stretch = copied_.stretch(at);
      const auto begin = align_up(at, unit);
      at += stretch.bytes;
      const auto end = at == copied_.disk_bytes() ? at : align_down(at, unit);
      if (stretch.dirty && begin < end) {
        left.clear(begin, end - begin);
      }
    }
  }
  return left;
}

Task<Copied> Backup::copy(std::uint64_t begin, std::uint64_t end, const CopyBuffer& buffer) {
  RangeLock::Hold hold(pieces_, begin, end, RangeLock::Mode::kExclusive);
  co_await hold;
  auto& source = drive_.image();
  const BlockDevice* below = sync_ == CopySync::kTop ? source.backing() : nullptr;
  Copied copied;
  for (auto at = begin; at < end && copied.result;) {
    const auto stretch = copied_.stretch(at);
    auto length = std::min(stretch.bytes, end - at);
    if (!stretch.dirty) {
      const auto status = co_await unit_status(source, below, at, length, copied_.granularity());
      if (!status) {
        copied.result = std::unexpected(status.error());
        break;
      }
      length = status->bytes;
      if (sync_ != CopySync::kTop || status->allocated) {
        copied = co_await copy_stretch(source, *target_, at, length, *status, buffer);
      }
      if (copied.result) {
        copied_.set(at, length);
      }
    }
    at += length;
  }
  co_return copied;
}

Task<void> Backup::before_change(std::uint64_t offset, std::uint64_t bytes) {
  if (given_up_ || bytes == 0 || offset >= drive_.size()) {
    co_return;
  }
  const auto begin = align_down(offset, copied_.granularity());
  const auto end = std::min(align_up(offset + bytes, copied_.granularity()), drive_.size());
  auto at = begin;
  for (auto stretch = copied_.stretch(at); at < end && stretch.dirty; stretch = copied_.stretch(at)) {
    at += stretch.bytes;
  }
  if (at >= end) {
    co_return;  // all of it is copied; this is what most requests find
  }
  const CopyBuffer buffer(static_cast<std::size_t>(std::min<std::uint64_t>(end - begin, 1U << 20)));
  while (!given_up_) {
    auto copied = co_await copy(begin, end, buffer);
    if (copied.result || given_up_) {
      co_return;
    }
    const bool lost = job_->policy(copied.result.error(), copied.write) == OnJobError::kReport;
    if (lost || !trouble_) {
      trouble_ = Trouble{copied.result.error(), copied.write};
    }
    given_up_ = lost;  // there is no whole copy to be had any more
    job_->interrupt();
    if (!lost) {
      co_await settled_.wait();
    }
  }
}

Task<Result<void>> Backup::ask(BlockJob& job, Trouble trouble) {
  auto verdict = co_await job.judge(std::move(trouble.error), trouble.write);
  if (!given_up_) {
    trouble_.reset();  // whoever waits tries anew
  }
  settled_.wake_all();
  co_return verdict;
}

Task<Result<void>> Backup::run(BlockJob& job) {
  const auto size = drive_.size();
  job.expect(selected_ ? selected_->count() : size);
  const CopyBuffer buffer(static_cast<std::size_t>(std::max(job.piece_bytes(), copied_.granularity())));
  const bool only_changes = sync_ == CopySync::kNone;
  Result<void> done;
  for (std::uint64_t at = 0; done && (at < size || trouble_);) {
    if (trouble_) {
      done = co_await ask(job, *trouble_);
      continue;
    }
    if (only_changes) {
      done = co_await job.wait();
      continue;
    }
    const auto piece = std::max(job.piece_bytes(), copied_.granularity());
    auto length = std::min(piece, size - at);
    if (selected_) {
      const auto stretch = selected_->stretch(at);
      if (!stretch.dirty) {
        at += stretch.bytes;
        continue;
      }
      length = std::min(length, stretch.bytes);
    }
    auto copied = co_await copy(at, at + length, buffer);
    if (!copied.result) {
      Trouble own{copied.result.error(), copied.write};
      done = co_await ask(job, std::move(own));
      continue;
    }
    job.progress(length);
    at += length;
    done = co_await job.pace(length);
  }
  co_return done;
}

Task<Result<void>> Backup::conclude() {
  auto done = co_await target_->flush();
  co_return done;
}

Task<void> Backup::clean_up() {
  given_up_ = true;
  settled_.wake_all();
  co_await drive_.hold();
  drive_.watch(nullptr);
  drive_.release();
  // What it holds is durable if the job went well, and of no interest otherwise: except to a bitmap.
  const auto closed = co_await target_->close();
  target_.reset();
  if (bitmap_.bitmap) {
    const bool well = job_->status() != JobStatus::kAborting;
    if (!closed) {
      bitmap_.mode = BackupBitmap::Mode::kNever;
    }
    bitmap_.bitmap->give_back(left_dirty(well));
  }
}

}  // namespace whistler

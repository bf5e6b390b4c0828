#include "block/jobs/mirror.hpp"

#include <algorithm>
#include <utility>

#include "base/bytes.hpp"
#include "block/jobs/commit.hpp"
#include "block/jobs/rebase.hpp"

namespace whistler {
namespace {

/// That much may be left to copy while the guest's requests wait.
constexpr std::uint64_t kLittle = std::uint64_t{4} << 20;

}  // namespace

Mirror::Mirror(DriveImage& drive, std::unique_ptr<BlockDevice> target, Settings settings)
    : drive_(drive),
      target_(std::move(target)),
      settings_(std::move(settings)),
      dirty_(drive.size(), copy_unit_bits(settings_.cluster)) {}

Mirror::Mirror(DriveImage& drive, qcow2::Image& top, Base base, Settings settings)
    : drive_(drive),
      top_(&top),
      base_(std::move(base)),
      settings_(std::move(settings)),
      dirty_(drive.size(), copy_unit_bits(settings_.cluster)) {
  settings_.sync = CopySync::kTop;
}

void Mirror::after_change(std::uint64_t offset, std::uint64_t bytes) {
  if (bytes == 0) {
    return;
  }
  const auto end = std::min(offset + bytes, dirty_.disk_bytes());
  for (auto at = align_down(offset, dirty_.granularity()); at < end; at += dirty_.granularity()) {
    if (!dirty_.get(at)) {
      dirty_.set(at, 1);
      if (job_ != nullptr) {
        job_->more_to_do(std::min(dirty_.granularity(), dirty_.disk_bytes() - at));
      }
    }
  }
  if (job_ != nullptr) {
    job_->wake();
  }
}

Task<Copied> Mirror::copy_some(std::uint64_t most, std::uint64_t& bytes, const CopyBuffer& buffer) {
  Copied copied;
  bytes = 0;
  const auto size = dirty_.disk_bytes();
  auto stretch = dirty_.stretch(cursor_);
  for (unsigned wrapped = 0; !stretch.dirty;) {
    cursor_ += stretch.bytes;
    if (cursor_ >= size) {
      cursor_ = 0;
      if (++wrapped == 2) {
        co_return copied;
      }
    }
    stretch = dirty_.stretch(cursor_);
    if (stretch.bytes == 0) {
      co_return copied;  // an empty disk
    }
  }
  const auto at = cursor_;
  auto length = std::min(stretch.bytes, std::max(most, dirty_.granularity()));
  auto& source = drive_.image();
  const BlockDevice* below = nullptr;
  if (settings_.sync == CopySync::kTop) {
    below = base_.device != nullptr ? base_.device : source.backing();
  }
  // What changes from here on makes it dirty again.
  dirty_.clear(at, length);
  const auto status = co_await unit_status(source, below, at, length, dirty_.granularity());
  if (!status) {
    copied.result = std::unexpected(status.error());
  } else {
    dirty_.set(at + status->bytes, length - status->bytes);
    length = status->bytes;
    if (settings_.sync != CopySync::kTop || status->allocated) {
      copied = co_await copy_stretch(source, target(), at, length, *status, buffer);
    }
  }
  if (!copied.result) {
    dirty_.set(at, length);
    co_return copied;
  }
  cursor_ = at + length >= size ? 0 : at + length;
  bytes = length;
  co_return copied;
}

Task<Result<void>> Mirror::run(BlockJob& job) {
  const auto size = drive_.size();
  Result<void> done;
  if (base_.device != nullptr) {
    done = co_await open_for_commit(*base_.device, size);
  }
  if (settings_.sync != CopySync::kNone) {
    dirty_.set(0, size);
    job.expect(size);
  }
  job_ = &job;
  co_await drive_.hold();
  drive_.watch(this);
  drive_.release();
  const CopyBuffer buffer(static_cast<std::size_t>(std::max(job.piece_bytes(), dirty_.granularity())));
  while (done) {
    std::uint64_t bytes = 0;
    auto copied = co_await copy_some(job.piece_bytes(), bytes, buffer);
    if (!copied.result) {
      done = co_await job.judge(copied.result.error(), copied.write);
    } else if (job.completing() && dirty_.count() <= kLittle) {
      job.progress(bytes);
      break;
    } else if (bytes != 0) {
      job.progress(bytes);
      done = co_await job.pace(bytes);
    } else {
      done = co_await job.ready_and_wait();
    }
  }
  effective_ = !job.without_effect();
  job_ = nullptr;
  co_return done;
}

Task<Result<void>> Mirror::conclude() {
  co_await drive_.hold();
  const CopyBuffer buffer(static_cast<std::size_t>(dirty_.granularity()));
  Copied copied;
  for (std::uint64_t bytes = 1; bytes != 0 && copied.result;) {
    copied = co_await copy_some(dirty_.granularity(), bytes, buffer);
  }
  auto done = copied.result;
  if (done) {
    done = co_await target().flush();
  }
  if (done && effective_) {
    done = co_await pivot();
  }
  drive_.watch(nullptr);
  drive_.release();
  co_return done;
}

Task<Result<void>> Mirror::pivot() {
  Result<void> done;
  if (top_ != nullptr) {
    done = co_await pivot_to_base();
  } else {
    done = co_await pivot_to_target();
  }
  if (done) {
    pivoted_ = true;
    if (settings_.pivoted) {
      settings_.pivoted();
    }
  }
  co_return done;
}

Task<Result<void>> Mirror::pivot_to_base() {
  Result<void> done;
  if (top_->backing() != base_.device) {
    done = co_await stand_on(*top_, base_.device, base_.name, base_.format);
  }
  if (done) {
    done = co_await top_->make_empty();
  }
  if (done) {
    auto base = take_out_layer(*top_, base_.device);
    auto old = drive_.replace(std::move(base));
    co_await close_unused(std::move(old));
  }
  co_return done;
}

Task<Result<void>> Mirror::pivot_to_target() {
  auto* image = dynamic_cast<qcow2::Image*>(target_.get());
  auto* old_image = dynamic_cast<qcow2::Image*>(&drive_.image());
  auto old = drive_.replace(std::move(target_));
  if (settings_.sync == CopySync::kNone && image != nullptr) {
    auto shared = co_await old->set_read_only(true);
    static_cast<void>(shared);  // where that cannot be, it stays as it is
    image->set_backing(std::move(old));
  } else if (settings_.sync == CopySync::kTop && image != nullptr && old_image != nullptr) {
    image->set_backing(old_image->take_backing());
  }
  co_await close_unused(std::move(old));
  co_return Result<void>{};
}

Task<void> Mirror::clean_up() {
  if (!pivoted_) {
    co_await drive_.hold();
    drive_.watch(nullptr);
    drive_.release();
  }
  if (base_.device != nullptr && !pivoted_) {
    co_await close_for_commit(*base_.device);
  }
  if (target_ != nullptr) {
    static_cast<void>(co_await target_->close());
    target_.reset();
  }
}

}  // namespace whistler

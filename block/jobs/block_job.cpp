#include "block/jobs/block_job.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "block/jobs/job_group.hpp"

namespace whistler {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kPiece = std::uint64_t{1} << 20;
/// With a limit, so that it is kept evenly.
constexpr std::uint64_t kSmallPiece = std::uint64_t{1} << 16;
/// A wait is cut into these, to see in between what has been asked.
constexpr std::chrono::milliseconds kSlice{20};
constexpr std::chrono::milliseconds kRetry{100};

constexpr std::array<std::string_view, 11> kStatusWords = {"undefined", "created",   "running", "paused",
                                                           "ready",     "standby",   "waiting", "pending",
                                                           "aborting",  "concluded", "null"};
constexpr std::array<std::string_view, 7> kVerbWords = {"cancel",   "pause",    "resume", "set-speed",
                                                        "complete", "finalize", "dismiss"};

/// The states in which each verb is taken, a bit for each state.
consteval unsigned in(std::initializer_list<JobStatus> states) {
  unsigned bits = 0;
  for (const auto state : states) {
    bits |= 1U << static_cast<unsigned>(state);
  }
  return bits;
}
constexpr auto kActive = in(
    {JobStatus::kCreated, JobStatus::kRunning, JobStatus::kPaused, JobStatus::kReady, JobStatus::kStandby});
constexpr std::array<unsigned, 7> kAllowed = {
    kActive | in({JobStatus::kWaiting, JobStatus::kPending}),
    kActive,
    kActive,
    kActive,
    in({JobStatus::kReady}),
    in({JobStatus::kPending}),
    in({JobStatus::kConcluded}),
};

std::unexpected<Error> cancelled() { return fail(ErrorCode::kCancelled, "Operation canceled"); }

}  // namespace

std::string_view job_status_word(JobStatus status) { return kStatusWords[static_cast<std::size_t>(status)]; }

BlockJob::BlockJob(Ring& ring, JobSettings settings, std::unique_ptr<JobWork> work, const Listener& listener)
    : ring_(ring), settings_(std::move(settings)), work_(std::move(work)), listener_(listener) {}

void BlockJob::start(std::function<void()> gone) {
  gone_ = std::move(gone);
  work_->begin(*this);
  if (settings_.group) {
    settings_.group->join(*this);
  }
  set(JobStatus::kCreated);
  set(JobStatus::kRunning);
  spawn(live(), [this] {
    if (status_ == JobStatus::kNull) {
      const auto last = std::move(gone_);
      last();
    }
  });
}

Task<void> BlockJob::live() {
  // The command that starts it is answered before it has done anything.
  static_cast<void>(co_await ring_.timeout(std::chrono::nanoseconds(1)));
  auto done = co_await pause_point();
  if (done) {
    done = co_await work_->run(*this);
  }
  const auto group = settings_.group;
  if (done && !cancelled_) {
    set(JobStatus::kWaiting);
    if (group) {
      co_await group->meet();
    }
  }
  if (done && !cancelled_) {
    set(JobStatus::kPending);
    if (group ? group->needs_finalize() : !settings_.auto_finalize) {
      co_await wait_for_finalize();
    }
  }
  if (done && !cancelled_) {
    concluding_ = true;
    done = co_await work_->conclude();
    if (group && done) {
      co_await group->meet();
    }
  }
  if (group) {
    if (!done) {
      group->fail(this);
    }
    group->leave(*this);
  }
  if (!done || cancelled_) {
    set(JobStatus::kAborting);
  }
  co_await work_->clean_up();
  if (cancelled_) {
    tell(JobEvent::kCancelled);
  } else {
    if (!done) {
      error_ = done.error();
    }
    tell(JobEvent::kCompleted);
  }
  set(JobStatus::kConcluded);
  if (settings_.auto_dismiss) {
    set(JobStatus::kNull);
  }
}

Task<void> BlockJob::wait_for_finalize() {
  if (!settings_.auto_finalize) {
    tell(JobEvent::kPending);
  }
  while (!finalized_ && !cancelled_) {
    co_await changed_.wait();
  }
}

void BlockJob::set(JobStatus status) {
  status_ = status;
  tell(JobEvent::kStatus);
}

void BlockJob::tell(JobEvent event, std::string_view action, bool write) const {
  if (listener_.tell) {
    listener_.tell(*this, event, action, write);
  }
}

// --- What is asked of it ---

Result<void> BlockJob::may(JobVerb verb) const {
  if ((kAllowed[static_cast<std::size_t>(verb)] >> static_cast<unsigned>(status_) & 1) == 0) {
    return fail(ErrorCode::kInvalid,
                fmt::format("Job '{}' in state '{}' cannot accept command verb '{}'", settings_.id,
                            job_status_word(status_), kVerbWords[static_cast<std::size_t>(verb)]));
  }
  return {};
}

Result<void> BlockJob::pause() {
  if (auto allowed = may(JobVerb::kPause); !allowed) {
    return allowed;
  }
  if (paused()) {
    return fail(ErrorCode::kInvalid, "Job is already paused");
  }
  paused_by_user_ = true;
  wake();
  return {};
}

Result<void> BlockJob::resume() {
  if (!paused()) {
    return fail(ErrorCode::kInvalid, "Can't resume a job that was not paused");
  }
  if (auto allowed = may(JobVerb::kResume); !allowed) {
    return allowed;
  }
  paused_by_user_ = false;
  stopped_by_error_ = false;
  io_status_ = "ok";
  wake();
  return {};
}

Result<void> BlockJob::set_speed(std::uint64_t bytes_per_second) {
  if (auto allowed = may(JobVerb::kSetSpeed); !allowed) {
    return allowed;
  }
  settings_.speed = bytes_per_second;
  next_ = Clock::now();
  return {};
}

Result<void> BlockJob::cancel(bool force) {
  if (auto allowed = may(JobVerb::kCancel); !allowed) {
    return allowed;
  }
  if (!force && (status_ == JobStatus::kReady || status_ == JobStatus::kStandby)) {
    without_effect_ = true;
    completing_ = true;
    wake();
  } else if (!concluding_) {
    give_up();
  }
  return {};
}

Result<void> BlockJob::complete() {
  if (auto allowed = may(JobVerb::kComplete); !allowed) {
    return allowed;
  }
  if (completing_ || cancelled_ || !work_->becomes_ready()) {
    return fail(ErrorCode::kInvalid,
                fmt::format("The active block job '{}' cannot be completed", settings_.id));
  }
  completing_ = true;
  wake();
  return {};
}

Result<void> BlockJob::finalize() {
  if (auto allowed = may(JobVerb::kFinalize); !allowed) {
    return allowed;
  }
  if (const auto group = settings_.group) {
    group->finalize();
  } else {
    finalized_ = true;
    wake();
  }
  return {};
}

Result<void> BlockJob::dismiss() {
  if (auto allowed = may(JobVerb::kDismiss); !allowed) {
    return allowed;
  }
  set(JobStatus::kNull);
  const auto last = std::move(gone_);
  last();
  return {};
}

void BlockJob::abandon() {
  if (!concluding_) {
    give_up();
  }
}

void BlockJob::give_up() {
  cancelled_ = true;
  if (const auto group = settings_.group) {
    group->fail(nullptr);  // with this one
  } else {
    wake();
  }
}

void BlockJob::fail_with_group() {
  cancelled_ = true;
  wake();
}

void BlockJob::finalize_with_group() {
  finalized_ = true;
  wake();
}

// --- For the work ---

std::uint64_t BlockJob::piece_bytes() const { return settings_.speed == 0 ? kPiece : kSmallPiece; }

Task<Result<void>> BlockJob::pace(std::uint64_t bytes) {
  const auto now = Clock::now();
  if (settings_.speed != 0) {
    const std::chrono::duration<double> due(static_cast<double>(bytes) /
                                            static_cast<double>(settings_.speed));
    // A century is enough, and does not overflow.
    constexpr std::chrono::duration<double> kMost(3e9);
    next_ = std::max(now, next_) + std::chrono::duration_cast<Clock::duration>(std::min(due, kMost));
  }
  // At least one wait: the others of the event loop, and the guest, have their turn.
  std::chrono::nanoseconds wait(1);
  do {
    static_cast<void>(co_await ring_.timeout(wait));
    auto may_go_on = co_await pause_point();
    if (!may_go_on) {
      co_return may_go_on;
    }
    wait = std::min<std::chrono::nanoseconds>(next_ - Clock::now(), kSlice);
  } while (settings_.speed != 0 && wait.count() > 0 && !completing_ && !interrupted_);
  interrupted_ = false;
  co_return Result<void>{};
}

Task<Result<void>> BlockJob::pause_point() {
  while (paused() && !cancelled_ && !completing_) {
    if (const auto held = was_ready_ ? JobStatus::kStandby : JobStatus::kPaused; status_ != held) {
      set(held);
    }
    co_await changed_.wait();
  }
  if (cancelled_) {
    co_return cancelled();
  }
  if (const auto going = was_ready_ ? JobStatus::kReady : JobStatus::kRunning; status_ != going) {
    set(going);
  }
  co_return Result<void>{};
}

OnJobError BlockJob::policy(const Error& error, bool write) const {
  const auto wanted = write ? settings_.on_target_error : settings_.on_source_error;
  if (wanted != OnJobError::kEnospc) {
    return wanted;
  }
  return error.code == ErrorCode::kNoSpace ? OnJobError::kStop : OnJobError::kReport;
}

void BlockJob::interrupt() {
  interrupted_ = true;
  wake();
}

Task<Result<void>> BlockJob::judge(Error error, bool write) {
  const bool full = error.code == ErrorCode::kNoSpace;
  Result<void> verdict;
  switch (policy(error, write)) {
    case OnJobError::kStop:
      stopped_by_error_ = true;
      io_status_ = full ? "nospace" : "failed";
      tell(JobEvent::kError, "stop", write);
      verdict = co_await pause_point();
      break;
    case OnJobError::kIgnore:
      tell(JobEvent::kError, "ignore", write);
      static_cast<void>(co_await ring_.timeout(kRetry));
      verdict = co_await pause_point();
      break;
    default:
      tell(JobEvent::kError, "report", write);
      verdict = std::unexpected(std::move(error));
      break;
  }
  co_return verdict;
}

Task<Result<void>> BlockJob::ready_and_wait() {
  if (!std::exchange(was_ready_, true)) {
    set(JobStatus::kReady);
    tell(JobEvent::kReady);
  }
  auto waited = co_await wait();
  co_return waited;
}

Task<Result<void>> BlockJob::wait() {
  if (!completing_ && !cancelled_ && !interrupted_) {
    co_await changed_.wait();
  }
  interrupted_ = false;
  auto going = co_await pause_point();
  co_return going;
}

}  // namespace whistler

// A piece of work on a drive's image that goes on while the guest runs: its life, as QEMU's jobs have it.
//
// What a kind of job does is a JobWork; the job gives it its pace (speed, pauses, its turn among others), and
// tells a listener of every step. Missing: jobs without an image, I/O status "ok" again before a resume.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/async.hpp"
#include "base/result.hpp"
#include "base/task.hpp"
#include "block/uring/ring.hpp"

namespace whistler {

enum class JobStatus : std::uint8_t {
  kUndefined,
  kCreated,
  kRunning,
  kPaused,
  kReady,    ///< all is copied and kept so: may be completed
  kStandby,  ///< ready, and paused
  kWaiting,
  kPending,  ///< waits to be finalized
  kAborting,
  kConcluded,
  kNull,
};
[[nodiscard]] std::string_view job_status_word(JobStatus status);

/// What may be asked of a job; each is allowed in some states only.
enum class JobVerb : std::uint8_t { kCancel, kPause, kResume, kSetSpeed, kComplete, kFinalize, kDismiss };

/// What an error of a request does to the job.
enum class OnJobError : std::uint8_t {
  kReport,  ///< it fails
  kIgnore,  ///< the request is made again
  kStop,    ///< it pauses; the request is made again when it resumes
  kEnospc,  ///< kStop if there is no room, else kReport
};

class JobGroup;

struct JobSettings {
  std::string id = {};
  std::string drive = {};   ///< of the machine
  std::uint64_t speed = 0;  ///< bytes a second; 0: no limit
  OnJobError on_source_error = OnJobError::kReport;
  OnJobError on_target_error = OnJobError::kReport;
  bool auto_finalize = true;
  bool auto_dismiss = true;
  std::shared_ptr<JobGroup> group = {};  ///< with which it takes effect; null: by itself
};

class BlockJob;

class JobWork {
 public:
  virtual ~JobWork() = default;
  /// QEMU's word for this kind.
  [[nodiscard]] virtual std::string_view type() const = 0;
  /// `job`, which outlives it, starts now: for what must be so from this moment on.
  virtual void begin(BlockJob& job) { static_cast<void>(job); }
  /// Does it, calling pace() between pieces. The guest goes on.
  [[nodiscard]] virtual Task<Result<void>> run(BlockJob& job) = 0;
  /// Makes it take effect: as short as can be.
  [[nodiscard]] virtual Task<Result<void>> conclude() = 0;
  /// The last call, also after a failure: lets go of everything.
  [[nodiscard]] virtual Task<void> clean_up() = 0;
  /// Whether it becomes ready, and then waits for somebody to complete it.
  [[nodiscard]] virtual bool becomes_ready() const { return false; }
};

enum class JobEvent : std::uint8_t { kStatus, kReady, kPending, kCompleted, kCancelled, kError };

/// Under the machine lock, like everything here.
class BlockJob {
 public:
  struct Listener {
    /// `error` and `write` are of kError.
    std::function<void(const BlockJob& job, JobEvent event, std::string_view action, bool write)> tell;
  };

  BlockJob(Ring& ring, JobSettings settings, std::unique_ptr<JobWork> work, const Listener& listener);
  BlockJob(const BlockJob&) = delete;
  BlockJob& operator=(const BlockJob&) = delete;

  /// Begins. `gone` is called when it is over and dismissed, and may destroy it.
  void start(std::function<void()> gone);

  [[nodiscard]] const JobSettings& settings() const { return settings_; }
  [[nodiscard]] std::string_view type() const { return work_->type(); }
  [[nodiscard]] JobStatus status() const { return status_; }
  [[nodiscard]] std::uint64_t length() const { return length_; }
  [[nodiscard]] std::uint64_t done() const { return done_; }
  [[nodiscard]] bool paused() const { return paused_by_user_ || stopped_by_error_; }
  [[nodiscard]] bool busy() const { return status_ == JobStatus::kRunning || status_ == JobStatus::kReady; }
  /// The word for what the last error has stopped it with: "ok", "failed", "nospace".
  [[nodiscard]] std::string_view io_status() const { return io_status_; }
  /// Why it failed, once it has.
  [[nodiscard]] const std::optional<Error>& error() const { return error_; }
  /// Nothing of it touches an image any more.
  [[nodiscard]] bool over() const { return status_ >= JobStatus::kConcluded; }

  /// kInvalid with QEMU's words if that is not to be asked of it now.
  [[nodiscard]] Result<void> may(JobVerb verb) const;
  [[nodiscard]] Result<void> pause();
  [[nodiscard]] Result<void> resume();
  [[nodiscard]] Result<void> set_speed(std::uint64_t bytes_per_second);
  /// `force`: also a ready one is given up; else that is completed without taking effect.
  [[nodiscard]] Result<void> cancel(bool force);
  [[nodiscard]] Result<void> complete();
  [[nodiscard]] Result<void> finalize();
  [[nodiscard]] Result<void> dismiss();
  /// The machine ends: give up whatever it is at.
  void abandon();
  // For its group: another member has failed, or was finalized.
  void fail_with_group();
  void finalize_with_group();

  // For the work.
  /// Between pieces, after `bytes` more were copied: waits its time. kCancelled: end.
  [[nodiscard]] Task<Result<void>> pace(std::uint64_t bytes);
  /// The most to be copied in one piece.
  [[nodiscard]] std::uint64_t piece_bytes() const;
  void expect(std::uint64_t length) { length_ = length; }
  /// That much is done, or has become more to do.
  void progress(std::uint64_t bytes) { done_ += bytes; }
  void more_to_do(std::uint64_t bytes) { length_ += bytes; }
  /// A request failed: nothing to make it again, else the error to end with.
  [[nodiscard]] Task<Result<void>> judge(Error error, bool write);
  /// What judge() will do about it; never kEnospc.
  [[nodiscard]] OnJobError policy(const Error& error, bool write) const;
  /// Ends a wait or pace() before its time: run() has something else to see to.
  void interrupt();
  /// All is copied: tells so the first time, and waits for something to happen: a wake(), a command.
  [[nodiscard]] Task<Result<void>> ready_and_wait();
  /// Waits for a command or wake().
  [[nodiscard]] Task<Result<void>> wait();
  void wake() { changed_.wake_all(); }
  [[nodiscard]] bool completing() const { return completing_; }
  /// A ready job was cancelled: it ends well, without effect on the drive.
  [[nodiscard]] bool without_effect() const { return without_effect_; }

 private:
  [[nodiscard]] Task<void> live();
  [[nodiscard]] Task<void> wait_for_finalize();
  void give_up();
  [[nodiscard]] Task<Result<void>> pause_point();
  void set(JobStatus status);
  void tell(JobEvent event, std::string_view action = {}, bool write = false) const;

  Ring& ring_;
  JobSettings settings_;
  std::unique_ptr<JobWork> work_;
  const Listener& listener_;
  std::function<void()> gone_;
  JobStatus status_ = JobStatus::kUndefined;
  std::uint64_t length_ = 0, done_ = 0;
  std::string_view io_status_ = "ok";
  std::optional<Error> error_;
  bool paused_by_user_ = false, stopped_by_error_ = false;
  bool cancelled_ = false, completing_ = false, without_effect_ = false, finalized_ = false;
  bool was_ready_ = false;
  bool interrupted_ = false;
  bool concluding_ = false;  ///< too late to be cancelled
  WaitQueue changed_;
  std::chrono::steady_clock::time_point next_{};  ///< when the speed allows another piece
};

}  // namespace whistler

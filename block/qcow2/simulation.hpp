// A host disk in memory for tests: requests end in random order, everything is logged, and power can be cut
// at any point of the log.
#pragma once

#include <coroutine>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "block/block_device.hpp"
#include "block/faulty.hpp"

namespace whistler::qcow2 {
class Image;
}

namespace whistler::test {

using Bytes = std::vector<std::uint8_t>;
using Random = std::mt19937;
inline std::uint64_t below(Random& random, std::uint64_t limit) { return random() % limit; }

/// Time in events: everything that begins or ends on the host or for the guest takes the next number.
using Event = std::uint64_t;

/// The executor of a simulation: resumes whoever waits for the host, in random order.
class Scheduler final : public Executor {
 public:
  explicit Scheduler(std::uint32_t seed) : random_(seed) {}
  auto turn() {
    struct Awaiter {
      Scheduler& scheduler;
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<> waiter) { scheduler.waiting_.push_back(waiter); }
      void await_resume() const noexcept {}
    };
    return Awaiter{*this};
  }
  void run_once(bool) override {
    if (!waiting_.empty()) {
      std::swap(waiting_[below(random_, waiting_.size())], waiting_.back());
      const auto next = waiting_.back();
      waiting_.pop_back();
      next.resume();
    }
  }
  [[nodiscard]] bool idle() const { return waiting_.empty(); }
  [[nodiscard]] Event next_event() { return ++event_; }
  [[nodiscard]] Event now() const { return event_; }

 private:
  Random random_;
  std::vector<std::coroutine_handle<>> waiting_;
  Event event_ = 0;
};

struct LoggedWrite {
  std::uint64_t offset;
  Bytes bytes;
  Event begun;
  Event ended;
  bool resize = false;  ///< no write: the file became `offset` bytes long
};
struct LoggedFlush {
  Event begun;
  Event ended;
};

/// A growing file. Its content is what programs see; what a power cut leaves is made from the log.
class SimulatedDisk final : public BlockDevice {
 public:
  SimulatedDisk(Scheduler& scheduler, Bytes content) : scheduler_(scheduler), content_(std::move(content)) {}

  [[nodiscard]] std::uint64_t size() const override { return content_.size(); }
  [[nodiscard]] bool read_only() const override { return false; }
  [[nodiscard]] std::string name() const override { return "simulated"; }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override;
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags = {}) override;
  [[nodiscard]] Task<Result<void>> flush() override;
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags = {}) override;
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> close() override;

  [[nodiscard]] const Bytes& content() const { return content_; }
  /// Begins a new log: what is there now is durable. Before it nothing is logged.
  void start_log();
  /// What the disk holds after power was cut at `when`: all that a completed flush vouches for, and any
  /// sectors of the rest.
  [[nodiscard]] Bytes after_cut(Event when, Random& random) const;

 private:
  static void apply(Bytes& content, std::uint64_t offset, std::span<const std::uint8_t> bytes);

  Scheduler& scheduler_;
  Bytes content_;
  bool logging_ = false;
  Bytes initial_;
  std::vector<LoggedWrite> writes_;
  std::vector<LoggedFlush> flushes_;
};

/// What the guest may find in each 512-byte sector of its disk. Every write fills sectors with a number of
/// its own.
class GuestModel {
 public:
  static constexpr std::size_t kSectorBytes = 512;
  using Tag = std::uint64_t;

  /// `initial`: the number each sector holds.
  explicit GuestModel(std::vector<Tag> initial);

  [[nodiscard]] static Bytes sector_content(Tag tag);
  /// The number a sector holds, or nothing if it is torn.
  [[nodiscard]] static std::optional<Tag> tag_of(std::span<const std::uint8_t> sector);
  [[nodiscard]] Tag next_tag() { return ++last_tag_; }

  /// A change of sectors to `tag` that began at `begun`. Its end is told by end_change(); a change that
  /// `may_keep` (a discard) or has failed does not replace what was there.
  std::size_t begin_change(std::uint64_t sector, std::uint64_t count, Tag tag, Event begun);
  void end_change(std::size_t change, Event ended, bool replaces);
  void flushed(Event begun, Event ended) { flushes_.push_back({begun, ended}); }

  /// Whether `tag` may be read in `sector`, of a running machine (`cut` = nothing) or after a power cut at
  /// that event.
  [[nodiscard]] bool allowed(std::uint64_t sector, Tag tag, std::optional<Event> cut) const {
    return allowed_since(sector, tag, cut, vouched(cut));
  }
  /// Changes that ended before this event are durable after that power cut.
  [[nodiscard]] Event vouched(std::optional<Event> cut) const;
  /// allowed() for many sectors: `vouched` as vouched(cut) gives it.
  [[nodiscard]] bool allowed_since(std::uint64_t sector, Tag tag, std::optional<Event> cut,
                                   Event vouched) const;
  [[nodiscard]] std::uint64_t sectors() const { return versions_.size(); }

 private:
  struct Version {
    Tag tag;
    Event begun;
    Event ended;  ///< kNever while it is under way, or if it has failed
    bool replaces;
  };
  struct Change {
    std::uint64_t sector;
    std::uint64_t count;
    std::vector<std::size_t> positions;
  };
  std::vector<std::vector<Version>> versions_;
  std::vector<Change> changes_;
  std::vector<LoggedFlush> flushes_;
  Tag last_tag_ = 0;
};

/// A guest that reads, writes, zeroes, discards and flushes at random, several requests at a time that never
/// overlap.
struct WorkloadOptions {
  unsigned requests = 200;
  unsigned depth = 8;
  unsigned max_sectors = 40;
  unsigned flush_percent = 5;
  unsigned discard_percent = 10;
  unsigned zero_percent = 10;
  unsigned read_percent = 20;
  /// Writes of whole clusters, compressed.
  unsigned compressed_percent = 0;
  /// Snapshots taken and removed, bitmaps added and removed, the disk made longer and as long as before.
  unsigned administration_percent = 0;
  bool errors_expected = false;
};
class Workload {
 public:
  Workload(Scheduler& scheduler, BlockDevice& device, GuestModel& model, WorkloadOptions options,
           std::uint32_t seed)
      : scheduler_(scheduler), device_(device), model_(model), options_(options), random_(seed) {}
  /// Runs it to the end. Gives the first thing that was wrong, or "".
  std::string run();
  [[nodiscard]] unsigned errors() const { return errors_; }

 private:
  Task<void> request();
  Task<void> write(std::uint64_t sector, std::uint64_t count);
  Task<void> zero(std::uint64_t sector, std::uint64_t count, bool discard);
  Task<void> read(std::uint64_t sector, std::uint64_t count);
  Task<void> write_compressed(qcow2::Image& image, std::uint64_t sector, std::uint64_t count);
  Task<void> administer(qcow2::Image& image);
  Task<void> flush();
  void complain(std::string what);
  void note_result(const Result<void>& result);

  Scheduler& scheduler_;
  BlockDevice& device_;
  GuestModel& model_;
  WorkloadOptions options_;
  Random random_;
  std::map<std::uint64_t, std::uint64_t> busy_;  ///< ranges in flight: first sector, end
  unsigned in_flight_ = 0;
  unsigned errors_ = 0;
  bool administering_ = false;
  bool bitmap_exists_ = false;
  std::string complaint_;
};

/// Reads the whole disk and compares it with the model: "" or the first thing that is wrong.
std::string compare_with_model(Executor& executor, BlockDevice& device, const GuestModel& model,
                               std::optional<Event> cut);

/// Holds a scheduler's only strong reference to nothing; a device that forwards to a disk someone else owns.
class Borrowed : public BlockDevice {
 public:
  explicit Borrowed(BlockDevice& device) : device_(device) {}
  [[nodiscard]] std::uint64_t size() const override { return device_.size(); }
  [[nodiscard]] bool read_only() const override { return device_.read_only(); }
  [[nodiscard]] std::string name() const override { return device_.name(); }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override {
    return device_.readv(offset, to);
  }
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags = {}) override {
    return device_.writev(offset, from, flags);
  }
  [[nodiscard]] Task<Result<void>> flush() override { return device_.flush(); }
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override {
    return device_.discard(offset, bytes);
  }
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags = {}) override {
    return device_.write_zeroes(offset, bytes, flags);
  }
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t offset, std::uint64_t bytes) override {
    return device_.block_status(offset, bytes);
  }
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t bytes) override { return device_.resize(bytes); }
  [[nodiscard]] Task<Result<void>> close() override { return device_.close(); }

 private:
  BlockDevice& device_;
};

}  // namespace whistler::test

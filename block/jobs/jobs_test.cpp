// Jobs on a drive that is written to meanwhile, and the files they leave when the program dies at any moment.
#include <filesystem>
#include <optional>

#include "block/drive_image.hpp"
#include "block/faulty.hpp"
#include "block/jobs/backup.hpp"
#include "block/jobs/commit.hpp"
#include "block/jobs/layers.hpp"
#include "block/jobs/mirror.hpp"
#include "block/jobs/snapshot.hpp"
#include "block/jobs/stream.hpp"
#include "block/jobs/targets.hpp"
#include "block/qcow2/test_images.hpp"

using namespace whistler;
using namespace whistler::test;

namespace {

constexpr std::uint64_t kDisk = 4 << 20;
constexpr std::uint64_t kUnit = 65536;

/// A drive over a chain of images base <- middle <- top, each with something of its own.
struct Bench {
  TemporaryDirectory folder;
  std::unique_ptr<Ring> ring = make_ring();
  IoCounts counts;
  DriveImage::Failed failed;
  std::unique_ptr<DriveImage> drive;
  Bytes content = Bytes(kDisk);  ///< what the guest has flushed
  std::string events;
  std::unique_ptr<BlockJob> job;
  BlockJob::Listener listener{[this](const BlockJob& j, JobEvent event, std::string_view action, bool) {
    switch (event) {
      case JobEvent::kStatus: events += std::string(job_status_word(j.status())) + " "; break;
      case JobEvent::kReady: events += "READY "; break;
      case JobEvent::kPending: events += "PENDING "; break;
      case JobEvent::kCompleted: events += j.error() ? "FAILED " : "COMPLETED "; break;
      case JobEvent::kCancelled: events += "CANCELLED "; break;
      default: events += "ERROR:" + std::string(action) + " "; break;
    }
  }};

  explicit Bench(unsigned layers = 3) {
    const char* below = nullptr;
    std::uint32_t seed = 1;
    for (const auto* name : {"base", "middle", "top"}) {
      if (layers-- == 0) {
        break;
      }
      NewFile file{.path = folder.file(name), .format = "qcow2", .size = kDisk};
      if (below != nullptr) {
        file.backing_file = folder.file(below);
        file.backing_format = "qcow2";
      }
      REQUIRE(sync_wait(*ring, make_image(*ring, file)));
      open(name);
      for (std::uint64_t at = (seed - 1) * kUnit; at < kDisk / 2; at += seed * 3 * kUnit) {
        put(at + 512, pattern(kUnit / 2 * seed, seed));
      }
      ++seed;
      below = name;
      shut();
    }
    open(below);
  }
  ~Bench() {
    if (drive) {
      shut();
    }
  }

  void open(const std::string& name) {
    drive = std::make_unique<DriveImage>(open_qcow2(*ring, folder.file(name)), counts, failed);
  }
  void shut() {
    REQUIRE(sync_wait(*ring, drive->close()));
    drive.reset();
  }
  void put(std::uint64_t at, const Bytes& bytes) {
    REQUIRE(write(*ring, *drive, at, bytes));
    std::copy(bytes.begin(), bytes.end(), content.begin() + static_cast<std::ptrdiff_t>(at));
  }
  qcow2::Image& top() { return dynamic_cast<qcow2::Image&>(drive->image()); }
  std::unique_ptr<BlockDevice> target(const std::string& name, const std::string& format = "qcow2",
                                      const std::string& backing = {}) {
    NewFile file{.path = folder.file(name), .format = format, .size = kDisk};
    if (!backing.empty()) {
      file.backing_file = folder.file(backing);
      file.backing_format = "qcow2";
    }
    REQUIRE(sync_wait(*ring, make_image(*ring, file)));
    OpenOptions options{.path = folder.file(name), .format = format};
    auto opened = sync_wait(*ring, open_target(*ring, options));
    REQUIRE(opened);
    return std::move(opened->image);
  }
  void start(std::unique_ptr<JobWork> work, JobSettings settings = {}) {
    settings.id = "job";
    settings.auto_dismiss = false;
    job = std::make_unique<BlockJob>(*ring, settings, std::move(work), listener);
    sync_wait(*ring, drive->hold());
    job->start([] {});
    drive->release();
  }
  std::unique_ptr<Backup> backup(std::unique_ptr<BlockDevice> to, CopySync sync) {
    return std::make_unique<Backup>(*drive, std::move(to), sync, kUnit);
  }
  void step() { ring->run_once(true); }
  void finish() {
    while (!job->over()) {
      step();
    }
  }
  void until(JobStatus status) {
    while (job->status() != status && !job->over()) {
      step();
    }
    REQUIRE(job->status() == status);
  }
  /// What somebody finds in `name` who has opened it by itself.
  Bytes found_in(const std::string& name, const std::string& format = "qcow2") {
    auto image = open_image(*ring, {.path = folder.file(name), .format = format, .read_only = true});
    INFO((image ? std::string() : image.error().message));
    REQUIRE(image);
    auto bytes = read(*ring, **image, 0, kDisk);
    REQUIRE(bytes);
    REQUIRE(sync_wait(*ring, (*image)->close()));
    return *bytes;
  }
  void check_guest_sees_content() { CHECK(read(*ring, *drive, 0, kDisk) == content); }
  std::size_t depth() { return layers_of(drive->image(), "qcow2").size(); }
};

constexpr std::string_view kWell = "created running waiting pending COMPLETED concluded ";

Mirror::Settings mirror_settings(CopySync sync = CopySync::kFull) { return {.sync = sync, .cluster = kUnit}; }

}  // namespace

TEST_CASE("backup_shows_the_drive_as_it_was_at_the_start", "[jobs]") {
  Bench b;
  const auto before = b.content;
  b.start(b.backup(b.target("copy"), CopySync::kFull), {.speed = 8 << 20});
  for (std::uint64_t at = 0; at < kDisk; at += 5 * kUnit / 2) {
    b.put(at, pattern(3000, 77));
    b.step();
  }
  REQUIRE(sync_wait(*b.ring, b.drive->write_zeroes(kDisk - 3 * kUnit, kUnit)));
  b.finish();
  CHECK(b.events == kWell);
  CHECK(b.job->done() == kDisk);
  CHECK((b.found_in("copy") == before));
  require_clean(*b.ring, b.folder.file("copy"));
}

TEST_CASE("backup_of_the_top_layer_stands_on_the_same_backing_file", "[jobs]") {
  Bench b;
  const auto before = b.content;
  b.start(b.backup(b.target("copy", "qcow2", "middle"), CopySync::kTop), {.speed = 8 << 20});
  b.put(kDisk - kUnit, pattern(512, 9));  // which the top layer did not hold
  b.finish();
  CHECK(b.events == kWell);
  CHECK((b.found_in("copy") == before));
  CHECK(std::filesystem::file_size(b.folder.file("copy")) < kDisk / 2);
}

TEST_CASE("backup_of_changes_keeps_what_they_overwrote_until_it_is_cancelled", "[jobs]") {
  Bench b;
  const auto before = b.content;
  b.start(b.backup(b.target("copy", "qcow2", "top"), CopySync::kNone));
  b.put(3 * kUnit + 100, pattern(kUnit, 5));
  for (int i = 0; i < 3; ++i) {
    b.step();
  }
  REQUIRE(b.job->cancel(false));
  b.finish();
  CHECK(b.events == "created running aborting CANCELLED concluded ");
  b.shut();
  CHECK((b.found_in("copy") == before));
  CHECK(b.found_in("top") == b.content);
}

TEST_CASE("raw_backup_is_a_plain_copy", "[jobs]") {
  Bench b;
  b.start(b.backup(b.target("copy", "raw"), CopySync::kFull));
  b.finish();
  CHECK(file_content(b.folder.file("copy")) == b.content);
}

TEST_CASE("failing_backup_leaves_the_guest_alone", "[jobs]") {
  Bench b;
  auto to = b.target("copy");
  auto broken = std::make_unique<FaultyDevice>(std::move(to), [](FaultOperation operation, auto, auto) {
    return Fault{.errnum = operation == FaultOperation::kWrite ? EIO : 0};
  });
  b.start(b.backup(std::move(broken), CopySync::kFull), {.speed = kUnit});
  b.put(0, pattern(4096, 3));
  b.finish();
  CHECK(b.events == "created running ERROR:report aborting FAILED concluded ");
  b.check_guest_sees_content();
}

namespace {

constexpr std::uint64_t kFar = kDisk - 2 * kUnit;  ///< where a slow backup does not come to soon

/// A write of the guest that may have to wait.
struct GuestWrite {
  Bytes bytes = pattern(kUnit, 99);
  iovec vec{bytes.data(), bytes.size()};
  std::optional<Result<void>> done;
  explicit GuestWrite(Bench& b) {
    spawn(b.drive->writev(kFar, {&vec, 1}), [this](Result<void> result) { done = std::move(result); });
  }
};

/// A target that fails where the guest of the tests writes, `times` times.
std::unique_ptr<BlockDevice> failing_far(Bench& b, int errnum, int& times) {
  return std::make_unique<FaultyDevice>(
      b.target("copy"), [errnum, &times](FaultOperation operation, std::uint64_t offset, auto) {
        const bool fails = operation != FaultOperation::kFlush && offset >= kFar && times > 0;
        times -= fails ? 1 : 0;
        return Fault{.errnum = fails ? errnum : 0};
      });
}

JobSettings slow_job(OnJobError policy) {
  return {.speed = kUnit, .on_source_error = policy, .on_target_error = policy};
}

}  // namespace

TEST_CASE("guests_write_waits_for_its_copy_while_the_backup_is_stopped", "[jobs]") {
  Bench b;
  const auto before = b.content;
  int times = 1000;
  b.start(b.backup(failing_far(b, EIO, times), CopySync::kFull), slow_job(OnJobError::kStop));
  const GuestWrite write(b);
  b.until(JobStatus::kPaused);
  CHECK(b.job->io_status() == "failed");
  CHECK_FALSE(write.done);
  CHECK(b.job->pause().error().message == "Job is already paused");
  times = 0;
  REQUIRE(b.job->resume());
  REQUIRE(b.job->set_speed(0));
  b.finish();
  CHECK(b.events == "created running ERROR:stop paused running waiting pending COMPLETED concluded ");
  CHECK((write.done && write.done->has_value()));
  CHECK((b.found_in("copy") == before));
}

TEST_CASE("stopped_backup_that_is_cancelled_lets_the_guests_write_go", "[jobs]") {
  Bench b;
  int times = 1000;
  b.start(b.backup(failing_far(b, EIO, times), CopySync::kFull), slow_job(OnJobError::kStop));
  const GuestWrite write(b);
  b.until(JobStatus::kPaused);
  REQUIRE(b.job->cancel(true));
  b.finish();
  CHECK(b.events == "created running ERROR:stop paused aborting CANCELLED concluded ");
  CHECK((write.done && write.done->has_value()));
}

TEST_CASE("backup_that_ignores_errors_tries_again_until_it_works", "[jobs]") {
  Bench b;
  const auto before = b.content;
  int times = 2;
  b.start(b.backup(failing_far(b, EIO, times), CopySync::kFull), slow_job(OnJobError::kIgnore));
  const GuestWrite write(b);
  while (!write.done) {
    b.step();
  }
  REQUIRE(b.job->set_speed(0));
  b.finish();
  CHECK(b.events == "created running ERROR:ignore ERROR:ignore waiting pending COMPLETED concluded ");
  CHECK(write.done->has_value());
  CHECK((b.found_in("copy") == before));
}

TEST_CASE("backup_that_reports_an_error_keeps_no_write_waiting", "[jobs]") {
  const auto policy = GENERATE(OnJobError::kReport, OnJobError::kEnospc);
  Bench b;
  int times = 1000;
  b.start(b.backup(failing_far(b, EIO, times), CopySync::kFull), slow_job(policy));
  const GuestWrite write(b);
  b.finish();
  CHECK(b.events == "created running ERROR:report aborting FAILED concluded ");
  CHECK(times == 999);
  CHECK((write.done && write.done->has_value()));
}

TEST_CASE("backup_of_changes_asks_the_policy_too", "[jobs]") {
  Bench b;
  int times = 1000;
  b.start(b.backup(failing_far(b, ENOSPC, times), CopySync::kNone), slow_job(OnJobError::kEnospc));
  const GuestWrite write(b);
  b.until(JobStatus::kPaused);
  CHECK(b.job->io_status() == "nospace");
  times = 0;
  REQUIRE(b.job->resume());
  while (!write.done) {
    b.step();
  }
  REQUIRE(b.job->cancel(false));
  b.finish();
  CHECK(b.events == "created running ERROR:stop paused running aborting CANCELLED concluded ");
}

TEST_CASE("source_that_fails_is_judged_by_its_own_policy", "[jobs]") {
  Bench b(1);
  const auto before = b.content;
  int times = 3;
  auto image = b.drive->replace(nullptr);
  auto sick = std::make_unique<FaultyDevice>(std::move(image), [&](FaultOperation operation, auto, auto) {
    const bool fails = operation == FaultOperation::kRead && times > 0;
    times -= fails ? 1 : 0;
    return Fault{.errnum = fails ? EIO : 0};
  });
  static_cast<void>(b.drive->replace(std::move(sick)));
  b.start(b.backup(b.target("copy"), CopySync::kFull), {.on_source_error = OnJobError::kIgnore});
  b.finish();
  CHECK(b.events ==
        "created running ERROR:ignore ERROR:ignore ERROR:ignore waiting pending COMPLETED concluded ");
  CHECK((b.found_in("copy") == before));
}

TEST_CASE("job_that_stops_for_an_error_goes_on_when_resumed", "[jobs]") {
  Bench b;
  bool full = true;
  auto narrow = std::make_unique<FaultyDevice>(b.target("copy"), [&](FaultOperation operation, auto, auto) {
    return Fault{.errnum = full && operation == FaultOperation::kWrite ? ENOSPC : 0};
  });
  b.start(b.backup(std::move(narrow), CopySync::kFull), {.on_target_error = OnJobError::kEnospc});
  b.until(JobStatus::kPaused);
  CHECK(b.job->io_status() == "nospace");
  full = false;
  REQUIRE(b.job->resume());
  b.finish();
  CHECK(b.events == "created running ERROR:stop paused running waiting pending COMPLETED concluded ");
  CHECK(b.found_in("copy") == b.content);
}

TEST_CASE("stream_frees_the_image_from_what_it_stood_on", "[jobs]") {
  Bench b;
  b.start(std::make_unique<Stream>(*b.drive, b.top(), Stream::Base{}), {.speed = 16 << 20});
  for (std::uint64_t at = kUnit / 2; at < kDisk; at += 7 * kUnit) {
    b.put(at, pattern(1000, 8));
    b.step();
  }
  b.finish();
  CHECK(b.events == kWell);
  CHECK(b.depth() == 1);
  b.check_guest_sees_content();
  b.shut();
  std::filesystem::remove(b.folder.file("middle"));
  std::filesystem::remove(b.folder.file("base"));
  CHECK(b.found_in("top") == b.content);
  require_clean(*b.ring, b.folder.file("top"));
}

TEST_CASE("stream_to_a_base_keeps_that", "[jobs]") {
  Bench b;
  auto* base = b.top().backing()->backing();
  b.start(std::make_unique<Stream>(*b.drive, b.top(), Stream::Base{base, b.folder.file("base"), "qcow2"}));
  b.finish();
  CHECK(b.depth() == 2);
  b.shut();
  std::filesystem::remove(b.folder.file("middle"));
  CHECK(b.found_in("top") == b.content);
}

TEST_CASE("stream_that_ignores_errors_takes_in_the_rest_and_fails", "[jobs]") {
  Bench b;
  int failures = 0;
  auto middle = b.top().take_backing();
  b.top().set_backing(std::make_unique<FaultyDevice>(
      std::move(middle), [&](FaultOperation operation, std::uint64_t at, auto) {
        const bool fails = operation == FaultOperation::kRead && at >= kUnit && at < 2 * kUnit;
        failures += fails ? 1 : 0;
        return Fault{.errnum = fails ? EIO : 0};
      }));
  b.start(std::make_unique<Stream>(*b.drive, b.top(), Stream::Base{}),
          {.on_source_error = OnJobError::kIgnore});
  b.finish();
  CHECK(b.events == "created running ERROR:ignore aborting FAILED concluded ");
  CHECK(failures == 1);
  CHECK(b.job->done() == kDisk);
  CHECK(b.depth() > 1);
}

TEST_CASE("commit_takes_a_middle_layer_out", "[jobs]") {
  Bench b;
  auto* middle = b.top().backing();
  auto* base = middle->backing();
  b.start(std::make_unique<Commit>(*b.drive,
                                   Commit::Place{&b.top(), middle, base, b.folder.file("base"), "qcow2"}));
  b.put(kUnit, pattern(kUnit, 4));
  b.finish();
  CHECK(b.events == kWell);
  CHECK(b.depth() == 2);
  CHECK(base->read_only());
  b.check_guest_sees_content();
  b.shut();
  std::filesystem::remove(b.folder.file("middle"));
  CHECK(b.found_in("top") == b.content);
  require_clean(*b.ring, b.folder.file("base"));
}

TEST_CASE("commit_of_the_active_layer_waits_and_then_pivots", "[jobs]") {
  Bench b;
  auto* base = b.top().backing()->backing();
  b.start(std::make_unique<Mirror>(*b.drive, b.top(), Mirror::Base{base, b.folder.file("base"), "qcow2"},
                                   mirror_settings()));
  b.until(JobStatus::kReady);
  b.put(9 * kUnit + 7, pattern(kUnit, 6));
  REQUIRE(b.job->complete());
  b.finish();
  CHECK(b.events == "created running ready READY waiting pending COMPLETED concluded ");
  CHECK(&b.drive->image() == base);
  b.put(0, pattern(kUnit, 60));
  b.check_guest_sees_content();
  b.shut();
  CHECK(b.found_in("base") == b.content);
  CHECK(b.found_in("top") == b.content);
  require_clean(*b.ring, b.folder.file("base"));
}

TEST_CASE("mirror_keeps_up_and_takes_the_drives_place", "[jobs]") {
  Bench b;
  b.start(std::make_unique<Mirror>(*b.drive, b.target("copy"), mirror_settings()));
  b.until(JobStatus::kReady);
  for (std::uint64_t at = 0; at < kDisk; at += 3 * kUnit) {
    b.put(at, pattern(5000, 12));
    b.step();
  }
  REQUIRE(b.job->complete());
  b.finish();
  CHECK(b.drive->name() == b.folder.file("copy"));
  CHECK(b.depth() == 1);
  b.check_guest_sees_content();
  b.shut();
  CHECK(b.found_in("top") == b.content);
}

TEST_CASE("ready_mirror_that_is_cancelled_is_a_copy", "[jobs]") {
  Bench b;
  b.start(std::make_unique<Mirror>(*b.drive, b.target("copy"), mirror_settings()));
  b.until(JobStatus::kReady);
  b.put(0, pattern(5000, 12));
  REQUIRE(b.job->cancel(false));
  b.finish();
  CHECK(b.events == "created running ready READY waiting pending COMPLETED concluded ");
  CHECK(b.drive->name() == b.folder.file("top"));
  CHECK(b.found_in("copy") == b.content);
}

TEST_CASE("mirror_of_the_top_layer_pivots_onto_its_backing_file", "[jobs]") {
  Bench b;
  b.start(std::make_unique<Mirror>(*b.drive, b.target("copy", "qcow2", "middle"),
                                   mirror_settings(CopySync::kTop)));
  b.until(JobStatus::kReady);
  REQUIRE(b.job->complete());
  b.finish();
  CHECK(b.depth() == 3);
  b.check_guest_sees_content();
}

TEST_CASE("snapshot_leaves_the_old_image_as_it_was", "[jobs]") {
  Bench b;
  const auto before = b.content;
  auto overlay = b.target("overlay", "qcow2", "top");
  sync_wait(*b.ring, b.drive->hold());
  REQUIRE(sync_wait(*b.ring, freeze_image(*b.drive)));
  slide_in(*b.drive, std::unique_ptr<qcow2::Image>(dynamic_cast<qcow2::Image*>(overlay.release())));
  b.drive->release();
  b.put(kUnit / 2, pattern(kUnit, 31));
  CHECK(b.found_in("top") == before);  // others may read it now
  b.check_guest_sees_content();
  b.shut();
  CHECK(b.found_in("overlay") == b.content);
  CHECK(b.found_in("top") == before);
}

TEST_CASE("jobs_answer_verbs_in_qemus_words", "[jobs]") {
  Bench b;
  b.start(b.backup(b.target("copy"), CopySync::kFull), {.speed = 1, .auto_finalize = false});
  CHECK(b.job->complete().error().message ==
        "Job 'job' in state 'running' cannot accept command verb 'complete'");
  CHECK(b.job->resume().error().message == "Can't resume a job that was not paused");
  REQUIRE(b.job->pause());
  b.until(JobStatus::kPaused);
  CHECK(b.job->pause().error().message == "Job is already paused");
  REQUIRE(b.job->resume());
  REQUIRE(b.job->set_speed(0));
  b.until(JobStatus::kPending);
  REQUIRE(b.job->finalize());
  b.finish();
  CHECK(b.events == "created running paused running waiting pending PENDING COMPLETED concluded ");
  REQUIRE(b.job->dismiss());
  CHECK(b.job->status() == JobStatus::kNull);
}

namespace {

/// What is there when the program is killed after each turn of the ring: every flushed byte, in images that
/// check finds nothing wrong with. What the kernel has been given survives a kill, so a copy of the files is
/// what a restart finds.
void kill_at_every_step(Bench& b, std::initializer_list<const char*> entrances) {
  const auto look = [&](const char* entrance) {
    TemporaryDirectory copy;
    const auto ring = make_ring();  // the job must not go on meanwhile
    for (const auto* name : {"base", "middle", "top"}) {
      std::filesystem::copy_file(b.folder.file(name), copy.file(name));
    }
    for (const auto* name : {"base", "middle", "top"}) {
      // Stored names are absolute: the copies are to stand on each other.
      auto file = FileDevice::open(*ring, {.path = copy.file(name)});
      auto image = sync_wait(*ring, qcow2::Image::open(std::move(*file), {}));
      REQUIRE(image);
      REQUIRE(sync_wait(*ring, (*image)->prepare()));
      if (const auto stored = (*image)->header().backing_file) {
        const auto below = copy.file(std::filesystem::path(*stored).filename());
        REQUIRE(sync_wait(*ring, (*image)->change_backing_file(below, "qcow2")));
      }
      REQUIRE(sync_wait(*ring, (*image)->close()));
      const auto report = check(*ring, copy.file(name));
      INFO(joined(report.messages));
      REQUIRE(report.corruptions == 0);
    }
    auto image = open_image(*ring, {.path = copy.file(entrance), .format = "qcow2", .read_only = true});
    REQUIRE(image);
    const auto found = read(*ring, **image, 0, kDisk);
    REQUIRE(sync_wait(*ring, (*image)->close()));
    INFO("in " << entrance << " when " << b.events);
    REQUIRE((found == b.content));
  };
  std::uint32_t seed = 100;
  for (unsigned turn = 0; !b.job->over(); ++turn) {
    if (turn % 4 == 0) {
      b.put((seed * 37 * 512) % (kDisk - kUnit), pattern(2048, seed));
      ++seed;
      REQUIRE(sync_wait(*b.ring, b.drive->flush()));
      static_cast<void>(b.job->complete());
    }
    look(*entrances.begin());
    if (!b.job->over()) {
      b.step();
    }
  }
  for (const auto* entrance : entrances) {
    look(entrance);
  }
}

}  // namespace

TEST_CASE("stream_killed_at_any_step_loses_nothing", "[jobs]") {
  Bench b;
  b.start(std::make_unique<Stream>(*b.drive, b.top(), Stream::Base{}), {.speed = 1 << 30});
  kill_at_every_step(b, {"top"});
  CHECK(b.events == kWell);
}

TEST_CASE("commit_killed_at_any_step_loses_nothing", "[jobs]") {
  Bench b;
  auto* middle = b.top().backing();
  b.start(std::make_unique<Commit>(
              *b.drive, Commit::Place{&b.top(), middle, middle->backing(), b.folder.file("base"), "qcow2"}),
          {.speed = 1 << 30});
  kill_at_every_step(b, {"top"});
  CHECK(b.events == kWell);
}

TEST_CASE("commit_of_the_active_layer_killed_at_any_step_loses_nothing", "[jobs]") {
  Bench b;
  auto* base = b.top().backing()->backing();
  b.start(std::make_unique<Mirror>(*b.drive, b.top(), Mirror::Base{base, b.folder.file("base"), "qcow2"},
                                   mirror_settings()),
          {.speed = 1 << 30});
  kill_at_every_step(b, {"top", "base"});
  CHECK(&b.drive->image() == base);
}

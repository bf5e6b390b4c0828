// One test for each way in which other engines have lost their users' data. The wider proofs are in
// model_test.cpp and hostile_test.cpp; these say in a few lines what must not happen.
#include "block/create.hpp"
#include "block/memory.hpp"
#include "block/qcow2/simulation.hpp"
#include "block/qcow2/snapshots.hpp"
#include "block/qcow2/test_images.hpp"

using namespace whistler;
using namespace whistler::test;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kCluster = 4096;

/// An image of 1 MiB in 4 KiB clusters on a simulated disk.
struct Lab {
  Scheduler scheduler;
  SimulatedDisk disk;
  std::unique_ptr<qcow2::Image> image;
  /// Fails the nth host request from now on, once; 0: none.
  unsigned fail_in = 0;
  int fail_with = ENOSPC;

  explicit Lab(std::uint32_t seed = 1,
               qcow2::CreateOptions options = {.size = kMiB, .cluster_size = kCluster})
      : scheduler(seed), disk(scheduler, {}) {
    REQUIRE(sync_wait(scheduler, qcow2::create(disk, std::move(options))).has_value());
    open();
  }
  explicit Lab(Bytes content) : scheduler(1), disk(scheduler, std::move(content)) { open(); }

  void open(std::unique_ptr<BlockDevice> backing = nullptr) {
    auto faulty = std::make_unique<FaultyDevice>(
        std::make_unique<Borrowed>(disk), [this](FaultOperation, std::uint64_t, std::uint64_t) {
          return fail_in != 0 && --fail_in == 0 ? Fault{fail_with, true} : Fault{};
        });
    auto opened = sync_wait(scheduler, qcow2::Image::open(std::move(faulty), {}));
    INFO((opened ? std::string() : opened.error().message));
    REQUIRE(opened.has_value());
    image = std::move(*opened);
    image->set_backing(std::move(backing));
    REQUIRE(sync_wait(scheduler, image->prepare()).has_value());
  }
  Result<void> write(std::uint64_t at, std::size_t bytes, std::uint8_t value) {
    Bytes data(bytes, value);
    const iovec vec{data.data(), data.size()};
    return sync_wait(scheduler, image->writev(at, {&vec, 1}));
  }
  Bytes read(std::uint64_t at, std::size_t bytes) {
    Bytes data(bytes, 0xee);
    const iovec vec{data.data(), data.size()};
    REQUIRE(sync_wait(scheduler, image->readv(at, {&vec, 1})).has_value());
    return data;
  }
  void flush() { REQUIRE(sync_wait(scheduler, image->flush()).has_value()); }
  void discard(std::uint64_t at, std::uint64_t bytes) {
    REQUIRE(sync_wait(scheduler, image->discard(at, bytes)).has_value());
  }
  void require_sound(bool leaks_allowed = false) {
    const auto report = sync_wait(scheduler, qcow2::check_image(*image, qcow2::Repair::kNone));
    REQUIRE(report.has_value());
    INFO(joined(report->messages));
    REQUIRE(report->corruptions == 0);
    REQUIRE((leaks_allowed || report->leaks == 0));
  }
};

/// Every host request of `work` fails once, each in an image of its own; then the same work succeeds and
/// nothing is damaged.
template <typename Prepare, typename Work, typename Verify>
void fail_each_request(qcow2::CreateOptions options, Prepare prepare, Work work, Verify verify) {
  bool failed = true;
  unsigned nth = 0;
  for (; failed && nth < 500; ++nth) {
    INFO("host request " << nth + 1 << " fails");
    Lab lab(nth + 1, options);
    prepare(lab);
    lab.fail_in = nth + 1;
    work(lab);
    failed = lab.fail_in == 0;
    lab.fail_in = 0;
    lab.flush();
    lab.require_sound(true);
    const auto done = work(lab);
    REQUIRE(done.has_value());
    lab.flush();
    lab.require_sound(true);
    verify(lab);
    Lab reopened(lab.disk.content());
    reopened.require_sound(true);
    verify(reopened);
  }
  CHECK(nth > 3);
}

}  // namespace

TEST_CASE("loss_class_01_reused_clusters_are_never_live_tables", "[qcow2][loss]") {
  Lab lab;
  for (int round = 0; round < 20; ++round) {
    REQUIRE(lab.write(0, kMiB, static_cast<std::uint8_t>(round)).has_value());
    lab.flush();
    lab.require_sound();
    CHECK(lab.read(0, kMiB) == Bytes(kMiB, static_cast<std::uint8_t>(round)));
    lab.discard(0, kMiB);
    lab.flush();
  }
}

TEST_CASE("loss_class_02_hole_of_a_discard_never_hits_the_clusters_next_use", "[qcow2][loss]") {
  for (std::uint32_t seed = 1; seed <= 100; ++seed) {
    INFO("seed " << seed);
    Lab lab(seed);
    REQUIRE(lab.write(0, 64 * kCluster, 1).has_value());
    lab.flush();
    lab.discard(0, 32 * kCluster);
    bool flushed = false;
    unsigned written = 0;
    spawn(lab.image->flush(), [&](Result<void>) { flushed = true; });
    Bytes data(kCluster, 2);
    const iovec vec{data.data(), data.size()};
    for (std::uint64_t i = 0; i < 32; ++i) {
      spawn(lab.image->writev((100 + i) * kCluster, {&vec, 1}), [&](Result<void>) { ++written; });
      lab.scheduler.run_once(true);
    }
    while (!flushed || written < 32) {
      lab.scheduler.run_once(true);
    }
    CHECK(lab.read(100 * kCluster, 32 * kCluster) == Bytes(32 * kCluster, 2));
    CHECK(lab.read(32 * kCluster, 32 * kCluster) == Bytes(32 * kCluster, 1));
    lab.flush();
    lab.require_sound();
  }
}

TEST_CASE("loss_class_03_failed_write_leaves_no_mapping_without_a_count", "[qcow2][loss]") {
  fail_each_request(
      {.size = kMiB, .cluster_size = kCluster}, [](Lab&) {},
      [](Lab& lab) {
        auto done = lab.write(10 * kCluster + 5, 3 * kCluster, 7);
        const auto flushed = sync_wait(lab.scheduler, lab.image->flush());
        return done ? flushed : done;
      },
      [](Lab& lab) { CHECK(lab.read(10 * kCluster + 5, 3 * kCluster) == Bytes(3 * kCluster, 7)); });
}

TEST_CASE("loss_class_04_short_write_is_an_error_and_publishes_nothing", "[qcow2][loss]") {
  Lab lab;
  lab.fail_in = 2;  // the L2 table is written, then half of the data
  REQUIRE_FALSE(lab.write(0, kCluster, 7).has_value());
  lab.flush();
  CHECK(lab.read(0, kCluster) == Bytes(kCluster));
  Lab reopened(lab.disk.content());
  CHECK(reopened.read(0, kCluster) == Bytes(kCluster));
}

TEST_CASE("loss_class_05_cluster_0_and_tables_are_never_written_as_data", "[qcow2][loss]") {
  Lab empty;
  auto content = empty.disk.content();
  store_be<std::uint16_t>(&content[2 * kCluster], 0);  // "the header's cluster is free"
  Lab lab(content);
  const auto refused = lab.write(0, kCluster, 7);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().message == "simulated: qcow2: Preventing invalid allocation of L2 table at offset 0");
  CHECK(load_be<std::uint32_t>(lab.disk.content().data()) == qcow2::kMagic);
}

TEST_CASE("loss_class_06_requests_in_flight_share_no_file_position", "[qcow2][loss]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  create_image(*ring, directory.file("i"), {.size = 8 * kMiB});
  auto image = open_qcow2(*ring, directory.file("i"));
  const auto data = pattern(8 * kMiB, 1);
  unsigned done = 0;
  constexpr std::size_t kPiece = 20000;
  std::vector<iovec> vecs;
  for (std::size_t at = 0; at + kPiece <= data.size(); at += kPiece) {
    vecs.push_back({const_cast<std::uint8_t*>(&data[at]), kPiece});
  }
  for (std::size_t i = 0; i < vecs.size(); ++i) {
    spawn(image->writev(i * kPiece, {&vecs[i], 1}),
          [&](const Result<void>& result) { done += result ? 1 : 0; });
  }
  while (ring->in_flight() != 0) {
    ring->run_once(true);
  }
  REQUIRE(done == vecs.size());
  CHECK(read(*ring, *image, 0, vecs.size() * kPiece) ==
        Bytes(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(vecs.size() * kPiece)));
  close(*ring, image);
  require_clean(*ring, directory.file("i"));
}

TEST_CASE("loss_class_07_flush_puts_all_tables_into_the_file", "[qcow2][loss]") {
  Lab lab;
  REQUIRE(lab.write(kMiB / 2, 10 * kCluster, 7).has_value());
  lab.flush();
  Lab other(lab.disk.content());  // a second program looks at the file while the first still has it open
  CHECK(other.read(kMiB / 2, 10 * kCluster) == Bytes(10 * kCluster, 7));
  other.require_sound();
}

TEST_CASE("loss_class_08_file_does_not_grow_under_rewrites_discards_and_snapshots", "[qcow2][loss]") {
  Lab lab;
  std::size_t size_after_first = 0;
  for (int round = 0; round < 40; ++round) {
    REQUIRE(lab.write(0, kMiB, static_cast<std::uint8_t>(round + 1)).has_value());
    qcow2::Snapshots snapshots(*lab.image);
    REQUIRE(sync_wait(lab.scheduler, snapshots.create({})).has_value());
    REQUIRE(lab.write(0, kMiB / 2, 99).has_value());
    REQUIRE(sync_wait(lab.scheduler, snapshots.apply("1")).has_value());
    REQUIRE(sync_wait(lab.scheduler, snapshots.remove("1")).has_value());
    lab.discard(0, kMiB / 4);
    lab.flush();
    if (round == 4) {
      size_after_first = lab.disk.content().size();
    }
  }
  CHECK(lab.disk.content().size() <= size_after_first);
  lab.require_sound();
}

TEST_CASE("loss_class_09_shared_clusters_are_copied_not_written_in_place", "[qcow2][loss]") {
  Lab lab;
  REQUIRE(lab.write(0, 16 * kCluster, 1).has_value());
  qcow2::Snapshots snapshots(*lab.image);
  REQUIRE(sync_wait(lab.scheduler, snapshots.create({})).has_value());
  REQUIRE(lab.write(100, 8 * kCluster, 2).has_value());
  lab.flush();
  lab.require_sound();
  lab.open();
  qcow2::Snapshots again(*lab.image);
  REQUIRE(sync_wait(lab.scheduler, again.apply("1")).has_value());
  CHECK(lab.read(0, 16 * kCluster) == Bytes(16 * kCluster, 1));
  REQUIRE(sync_wait(lab.scheduler, again.remove("1")).has_value());
  REQUIRE(lab.write(100, 8 * kCluster, 3).has_value());
  lab.flush();
  lab.require_sound();
}

TEST_CASE("loss_class_10_compressed_clusters_survive_growth_and_rewriting", "[qcow2][loss]") {
  Lab lab;
  Bytes data(kCluster, 5);
  const iovec vec{data.data(), data.size()};
  for (std::uint64_t i = 0; i < 64; ++i) {
    REQUIRE(sync_wait(lab.scheduler, lab.image->write_compressed(i * kCluster, {&vec, 1})).has_value());
  }
  REQUIRE(sync_wait(lab.scheduler, lab.image->resize(64 * kMiB)).has_value());
  REQUIRE(lab.write(10 * kCluster + 1, 4 * kCluster, 6).has_value());
  REQUIRE(lab.write(60 * kMiB, kMiB, 7).has_value());
  lab.flush();
  lab.require_sound();
  CHECK(lab.read(0, 10 * kCluster) == Bytes(10 * kCluster, 5));
  CHECK(lab.read(15 * kCluster, 49 * kCluster) == Bytes(49 * kCluster, 5));
}

TEST_CASE("loss_class_11_tables_have_the_right_length_at_every_border", "[qcow2][loss]") {
  const auto cluster_size = GENERATE(512ULL, 4096ULL, 65536ULL);
  const auto coverage = cluster_size / 8 * cluster_size;
  const auto size = GENERATE_COPY(std::uint64_t{512}, coverage - 512, coverage, coverage + 512, 3 * coverage);
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  create_image(*ring, directory.file("i"), {.size = size, .cluster_size = cluster_size});
  auto image = open_qcow2(*ring, directory.file("i"));
  REQUIRE(image->size() == size);
  REQUIRE(write(*ring, *image, size - 512, Bytes(512, 9)).has_value());
  CHECK(write(*ring, *image, size, Bytes(1)).error().code == ErrorCode::kInvalid);
  close(*ring, image);
  require_clean(*ring, directory.file("i"));
}

TEST_CASE("loss_class_12_feature_bits_are_kept_obeyed_or_refused", "[qcow2][loss]") {
  Lab lab(1, {.size = kMiB, .cluster_size = kCluster, .lazy_refcounts = true});
  REQUIRE(lab.write(0, kCluster, 1).has_value());
  REQUIRE(sync_wait(lab.scheduler, lab.image->close()).has_value());
  auto content = lab.disk.content();
  CHECK(load_be<std::uint64_t>(&content[80]) == qcow2::kLazyRefcounts);
  // Dirty, with a count that is too low: repaired, and then clean.
  store_be<std::uint64_t>(&content[72], qcow2::kDirty);
  store_be<std::uint16_t>(&content[2 * kCluster + 2 * 5], 0);
  Lab dirty(content);
  dirty.require_sound();
  CHECK(load_be<std::uint64_t>(&dirty.disk.content()[72]) == 0);
  store_be<std::uint64_t>(&content[72], 1ULL << 30);
  SimulatedDisk unknown(lab.scheduler, content);
  CHECK(sync_wait(lab.scheduler, qcow2::Image::open(std::make_unique<Borrowed>(unknown), {})).error().code ==
        ErrorCode::kUnsupported);
}

TEST_CASE("loss_class_13_discard_never_brings_back_what_the_backing_file_has", "[qcow2][loss]") {
  const auto version = GENERATE(2U, 3U);
  Lab lab(1, {.size = kMiB, .version = version, .cluster_size = kCluster});
  auto backing = std::make_unique<MemoryBlockDevice>(kMiB);
  std::fill(backing->bytes().begin(), backing->bytes().end(), std::uint8_t{9});
  lab.open(std::move(backing));
  REQUIRE(lab.write(0, 4 * kCluster, 1).has_value());
  lab.discard(0, 4 * kCluster);
  const auto after = lab.read(0, 4 * kCluster);
  CHECK((after == Bytes(4 * kCluster) || after == Bytes(4 * kCluster, 1)));
  REQUIRE(sync_wait(lab.scheduler, lab.image->write_zeroes(0, 8 * kCluster + 10)).has_value());
  CHECK(lab.read(0, 8 * kCluster + 10) == Bytes(8 * kCluster + 10));
  CHECK(lab.read(8 * kCluster + 10, 1) == Bytes{9});
}

TEST_CASE("loss_class_14_preallocated_clusters_are_filled_by_many_writers_at_once", "[qcow2][loss]") {
  for (std::uint32_t seed = 1; seed <= 50; ++seed) {
    INFO("seed " << seed);
    Lab lab(seed);
    REQUIRE(lab.write(0, 16 * kCluster, 1).has_value());
    REQUIRE(sync_wait(lab.scheduler, lab.image->write_zeroes(0, 16 * kCluster, {.may_unmap = false}))
                .has_value());
    Bytes data(512, 7);
    const iovec vec{data.data(), data.size()};
    unsigned done = 0;
    for (std::uint64_t i = 0; i < 64; ++i) {  // every other sector of eight clusters
      spawn(lab.image->writev(i * 1024, {&vec, 1}),
            [&](const Result<void>& result) { done += result ? 1 : 0; });
    }
    while (done < 64) {
      lab.scheduler.run_once(true);
    }
    const auto content = lab.read(0, 64 * 1024);
    bool right = true;
    for (std::size_t at = 0; at < content.size(); ++at) {
      right = right && content[at] == (at % 1024 < 512 ? 7 : 0);
    }
    CHECK(right);
    lab.flush();
    lab.require_sound();
  }
}

TEST_CASE("loss_class_15_error_while_refcount_blocks_are_added_damages_nothing", "[qcow2][loss]") {
  // 64 clusters of 512 bytes a block: this write needs several new blocks; the table moves with the next.
  fail_each_request(
      {.size = kMiB, .cluster_size = 512, .refcount_bits = 64},
      [](Lab& lab) { REQUIRE(lab.write(0, 20 * 512, 1).has_value()); },
      [](Lab& lab) {
        auto done = lab.write(40 * 512, 150 * 512, 7);
        const auto flushed = sync_wait(lab.scheduler, lab.image->flush());
        return done ? flushed : done;
      },
      [](Lab& lab) {
        CHECK(lab.read(0, 20 * 512) == Bytes(20 * 512, 1));
        CHECK(lab.read(40 * 512, 150 * 512) == Bytes(150 * 512, 7));
      });
}

TEST_CASE("loss_class_15_error_while_refcount_blocks_come_in_advance_damages_nothing", "[qcow2][loss]") {
  // More than 32 blocks: new ones come two at a time.
  constexpr std::size_t kOld = 2400 * 512;
  fail_each_request(
      {.size = 2 * kMiB, .cluster_size = 512, .refcount_bits = 64},
      [](Lab& lab) { REQUIRE(lab.write(0, kOld, 1).has_value()); },
      [](Lab& lab) {
        auto done = lab.write(kOld + 512, 200 * 512, 7);
        const auto flushed = sync_wait(lab.scheduler, lab.image->flush());
        return done ? flushed : done;
      },
      [](Lab& lab) {
        CHECK(lab.read(0, kOld) == Bytes(kOld, 1));
        CHECK(lab.read(kOld + 512, 200 * 512) == Bytes(200 * 512, 7));
      });
}

TEST_CASE("loss_class_16_full_host_is_an_error_with_its_reason_and_work_goes_on", "[qcow2][loss]") {
  Lab lab;
  lab.fail_in = 1;
  const auto refused = lab.write(0, kCluster, 7);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == ErrorCode::kNoSpace);
  CHECK_FALSE(lab.image->read_only());
  REQUIRE(lab.write(0, kCluster, 8).has_value());
  lab.flush();
  lab.require_sound();
  CHECK(lab.read(0, kCluster) == Bytes(kCluster, 8));
}

TEST_CASE("loss_class_17_raw_disk_that_looks_like_qcow2_stays_raw", "[qcow2][loss]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = directory.file("disk.raw");
  // What a guest could write into its raw disk: an overlay over a secret of the host.
  make_file(directory.file("secret"), Bytes(kMiB, 0x5e));
  create_image(*ring, path,
               {.size = kMiB, .backing_file = directory.file("secret"), .backing_format = "raw"});
  const auto bytes = file_content(path);
  auto raw = open_image(*ring, {.path = path, .format = "raw"});
  REQUIRE(raw.has_value());
  CHECK(read(*ring, **raw, 0, 512) == Bytes(bytes.begin(), bytes.begin() + 512));
  REQUIRE(sync_wait(*ring, (*raw)->close()).has_value());
  CHECK(open_image(*ring, {.path = path, .format = "qcow2", .allow_backing = false}).error().code ==
        ErrorCode::kPermission);
  CHECK(open_image(*ring, {.path = path}).error().code == ErrorCode::kInvalid);
}

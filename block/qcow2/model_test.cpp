// Random concurrent work on images in simulated files: against a model of the guest's disk, with power cuts,
// and with host errors.
#include <fmt/format.h>

#include <cstdlib>

#include "block/memory.hpp"
#include "block/qcow2/compact.hpp"
#include "block/qcow2/simulation.hpp"
#include "block/qcow2/snapshots.hpp"
#include "block/qcow2/test_images.hpp"

using namespace whistler;
using namespace whistler::test;

namespace {

struct Variant {
  const char* name;
  std::uint64_t sectors;
  qcow2::CreateOptions options;
  bool backed = false;
  std::uint64_t cache = 0;
  bool preallocated = false;
  unsigned compressed = 0;  ///< percent of its requests
};

/// With the cheapest derivation of a key: the images are opened by the hundred.
qcow2::EncryptionOptions encryption(qcow2::CryptMethod method) {
  return {.method = method,
          .password = crypto::Secret("password"),
          .luks = {.cipher = {.cipher = crypto::CipherAlgorithm::kAes128}, .iteration_milliseconds = 0}};
}

std::vector<Variant> variants() {
  return {
      {.name = "4 KiB clusters", .sectors = 1024, .options = {.cluster_size = 4096}, .compressed = 10},
      {.name = "512-byte clusters, 64-bit refcounts, small cache",
       .sectors = 600,
       .options = {.cluster_size = 512, .refcount_bits = 64},
       .cache = 1},
      {.name = "512-byte clusters, refcount blocks in advance",
       .sectors = 2400,
       .options = {.cluster_size = 512, .refcount_bits = 64},
       .preallocated = true},
      {.name = "version 2, backing file",
       .sectors = 1000,
       .options = {.version = 2, .cluster_size = 4096},
       .backed = true},
      {.name = "1-bit refcounts, backing file",
       .sectors = 1000,
       .options = {.cluster_size = 2048, .refcount_bits = 1},
       .backed = true},
      {.name = "subclusters, backing file",
       .sectors = 1024,
       .options = {.cluster_size = 16384, .extended_l2 = true},
       .backed = true},
      {.name = "64 KiB clusters", .sectors = 2048, .options = {}},
      {.name = "lazy refcounts", .sectors = 1024, .options = {.cluster_size = 4096, .lazy_refcounts = true}},
      {.name = "external data file", .sectors = 1024, .options = {.cluster_size = 4096, .data_file = "data"}},
      {.name = "preallocated", .sectors = 1024, .options = {.cluster_size = 4096}, .preallocated = true},
      {.name = "preallocated subclusters, backing file",
       .sectors = 1024,
       .options = {.cluster_size = 16384, .extended_l2 = true},
       .backed = true,
       .preallocated = true},
      {.name = "LUKS, subclusters, backing file",
       .sectors = 1024,
       .options = {.cluster_size = 16384,
                   .extended_l2 = true,
                   .encryption = encryption(qcow2::CryptMethod::kLuks)},
       .backed = true},
      {.name = "LUKS, 4 KiB clusters",
       .sectors = 1024,
       .options = {.cluster_size = 4096, .encryption = encryption(qcow2::CryptMethod::kLuks)}},
      {.name = "old AES, backing file",
       .sectors = 1000,
       .options = {.cluster_size = 2048, .encryption = encryption(qcow2::CryptMethod::kAes)},
       .backed = true},
  };
}

/// With the ten variants in the clear and four seeds each: 10,000 cuts. To derive a key takes far longer than
/// all the rest of a cut, so there are fewer of encrypted images.
unsigned cuts_per_seed(const Variant& variant) { return variant.options.encryption ? 50 : 250; }

constexpr GuestModel::Tag kBackingTag = 0xb000000000000000;

using NoTags = std::vector<GuestModel::Tag>;

/// An image in a simulated file, its guest, and what is known of its disk.
struct Bench {
  Scheduler scheduler;
  SimulatedDisk disk;
  SimulatedDisk data;  ///< the external data file, where the variant has one
  Variant variant;
  GuestModel model;
  std::unique_ptr<qcow2::Image> image;

  static std::vector<GuestModel::Tag> initial(const Variant& variant) {
    std::vector<GuestModel::Tag> tags(variant.sectors);
    for (std::size_t i = 0; variant.backed && i < backing_sectors(variant); ++i) {
      tags[i] = kBackingTag + i;
    }
    return tags;
  }
  /// Shorter than the disk: what lies behind it is zero.
  static std::size_t backing_sectors(const Variant& variant) {
    return static_cast<std::size_t>(variant.sectors) * 3 / 4;
  }
  static std::unique_ptr<BlockDevice> backing(const Variant& variant) {
    if (!variant.backed) {
      return nullptr;
    }
    auto device = std::make_unique<MemoryBlockDevice>(backing_sectors(variant) * 512);
    for (std::size_t i = 0; i < backing_sectors(variant); ++i) {
      const auto content = GuestModel::sector_content(kBackingTag + i);
      std::copy(content.begin(), content.end(),
                device->bytes().begin() + static_cast<std::ptrdiff_t>(i * 512));
    }
    return device;
  }

  /// `make`: with an image in the simulated file; without, for a file from elsewhere.
  Bench(const Variant& chosen, std::uint32_t seed, bool make = true)
      : scheduler(seed),
        disk(scheduler, {}),
        data(scheduler, {}),
        variant(chosen),
        model(make ? initial(chosen) : NoTags{}) {
    if (!make) {
      return;
    }
    auto options = variant.options;
    options.size = variant.sectors * 512;
    auto created = sync_wait(scheduler, qcow2::create(disk, options));
    REQUIRE(created.has_value());
    if (variant.preallocated) {
      open();
      REQUIRE(
          sync_wait(scheduler, image->preallocate(0, image->size(), Preallocation::kMetadata)).has_value());
      REQUIRE(sync_wait(scheduler, image->close()).has_value());
    }
    disk.start_log();
    data.start_log();
  }

  void open(std::unique_ptr<BlockDevice> file) { open(std::move(file), data); }
  void open(std::unique_ptr<BlockDevice> file, BlockDevice& data_file) {
    auto opened =
        sync_wait(scheduler, qcow2::Image::open(std::move(file), {.metadata_cache_bytes = variant.cache}));
    INFO((opened ? std::string() : opened.error().message));
    REQUIRE(opened.has_value());
    image = std::move(*opened);
    if (image->encrypted()) {
      const auto unlocked = sync_wait(scheduler, image->unlock(crypto::Secret("password")));
      REQUIRE(unlocked.has_value());
    }
    image->set_backing(backing(variant));
    if (variant.options.data_file) {
      image->set_data_file(std::make_unique<Borrowed>(data_file));
    }
    const auto prepared = sync_wait(scheduler, image->prepare());
    INFO((prepared ? std::string() : prepared.error().message));
    REQUIRE(prepared.has_value());
  }
  void open() { open(std::make_unique<Borrowed>(disk)); }

  void work(const WorkloadOptions& options, std::uint32_t seed) {
    Workload workload(scheduler, *image, model, options, seed);
    const auto complaint = workload.run();
    CHECK(complaint == "");
  }

  void flush() {
    const auto begun = scheduler.next_event();
    const auto result = sync_wait(scheduler, image->flush());
    INFO((result ? std::string() : result.error().message));
    REQUIRE(result.has_value());
    model.flushed(begun, scheduler.next_event());
  }

  Bytes whole_disk() {
    Bytes bytes(static_cast<std::size_t>(image->size()));
    const iovec vec{bytes.data(), bytes.size()};
    REQUIRE(sync_wait(scheduler, image->readv(0, {&vec, 1})).has_value());
    return bytes;
  }

  /// What our checker says of the open image.
  qcow2::CheckReport check() {
    auto report = sync_wait(scheduler, qcow2::check_image(*image, qcow2::Repair::kNone));
    REQUIRE(report.has_value());
    return *report;
  }
  void require_clean() {
    const auto report = check();
    INFO(joined(report.messages));
    CHECK(report.corruptions == 0);
    CHECK(report.leaks == 0);
  }
};

/// How much longer than usual to test: WHISTLER_LONG, 1000 for some ten million cuts.
unsigned factor() {
  const char* value = std::getenv("WHISTLER_LONG");
  return value == nullptr ? 1 : static_cast<unsigned>(std::max(1, std::atoi(value)));
}

void require_clean_by_qemu(const Bytes& content) {
  if (have_qemu_tools()) {
    const TemporaryDirectory directory;
    make_file(directory.file("i.qcow2"), content);
    const auto checked =
        run("qemu-img check -U --object secret,id=s,data=password --image-opts "
            "driver=qcow2,encrypt.key-secret=s,file.filename=" +
            directory.file("i.qcow2"));
    INFO(checked.output);
    CHECK((checked.status == 0 || checked.status == 3));  // 3: leaks, nothing worse
  }
}

}  // namespace

TEST_CASE("qcow2_concurrent_requests_match_a_model_and_leave_a_clean_image", "[qcow2][model]") {
  const auto variant = GENERATE(from_range(variants()));
  for (std::uint32_t seed = 1; seed <= 6 * factor(); ++seed) {
    INFO(variant.name << ", seed " << seed);
    Bench bench(variant, seed);
    bench.open();
    bench.work({.requests = 400, .compressed_percent = variant.compressed, .administration_percent = 2},
               seed);
    bench.flush();
    bench.require_clean();
    CHECK(compare_with_model(bench.scheduler, *bench.image, bench.model, std::nullopt) == "");
    // A second life of the same image, from what is in the file.
    REQUIRE(sync_wait(bench.scheduler, bench.image->close()).has_value());
    bench.open();
    bench.require_clean();
    CHECK(compare_with_model(bench.scheduler, *bench.image, bench.model, std::nullopt) == "");
    bench.work({.requests = 200, .depth = 16, .compressed_percent = variant.compressed}, seed + 1000);
    bench.flush();
    bench.require_clean();
    CHECK(compare_with_model(bench.scheduler, *bench.image, bench.model, std::nullopt) == "");
    REQUIRE(sync_wait(bench.scheduler, bench.image->close()).has_value());
    if (seed == 1 && !variant.options.data_file) {
      require_clean_by_qemu(bench.disk.content());
    }
  }
}

TEST_CASE("qcow2_power_cut_anywhere_leaves_flushed_data_and_at_worst_leaks", "[qcow2][crash]") {
  const auto variant = GENERATE(from_range(variants()));
  for (std::uint32_t seed = 1; seed <= 4 * factor(); ++seed) {
    Bench bench(variant, seed);
    bench.open();
    bench.work({.requests = 150}, seed + 7);  // a warm image
    bench.flush();
    bench.work({.requests = 150,
                .flush_percent = 8,
                .compressed_percent = variant.compressed,
                .administration_percent = variant.options.version >= 3 ? 4U : 0U},
               seed);
    Random random(seed);
    for (unsigned cuts = 0; cuts < cuts_per_seed(variant); ++cuts) {
      const Event when = 1 + below(random, bench.scheduler.now());
      INFO(variant.name << ", seed " << seed << ", cut " << cuts << " at event " << when << " of "
                        << bench.scheduler.now());
      Bench after(variant, seed, false);
      SimulatedDisk disk(after.scheduler, bench.disk.after_cut(when, random));
      SimulatedDisk data(after.scheduler, bench.data.after_cut(when, random));
      after.open(std::make_unique<Borrowed>(disk), data);
      const auto report = after.check();
      INFO(joined(report.messages));
      REQUIRE(report.corruptions == 0);
      REQUIRE(compare_with_model(after.scheduler, *after.image, bench.model, when) == "");
      if (cuts == 0 && seed <= 2 && !variant.options.data_file) {
        require_clean_by_qemu(disk.content());
      }
    }
  }
}

TEST_CASE("qcow2_power_cut_while_it_is_compacted_leaves_the_disk_and_its_snapshot",
          "[qcow2][crash][compact]") {
  std::uint64_t moved = 0;
  const auto compact = [&moved](const Variant& variant, std::uint32_t seed) {
    Bench bench(variant, seed);
    bench.open();
    bench.work({.requests = 150, .compressed_percent = variant.compressed}, seed + 7);
    const bool snapshot = seed % 2 == 0 && variant.options.refcount_bits != 1;
    Bytes then;
    if (snapshot) {
      then = bench.whole_disk();
      REQUIRE(
          sync_wait(bench.scheduler, qcow2::Snapshots(*bench.image).create({.name = "then"})).has_value());
    }
    bench.work({.requests = 150, .discard_percent = 40, .zero_percent = 20}, seed + 8);  // makes holes
    bench.flush();
    const Event begun = bench.scheduler.now();
    const auto report = sync_wait(bench.scheduler, qcow2::compact_image(*bench.image, {}));
    INFO((report ? std::string() : report.error().message));
    REQUIRE(report.has_value());
    moved += report->moved;
    CHECK(compare_with_model(bench.scheduler, *bench.image, bench.model, std::nullopt) == "");
    bench.require_clean();
    Random random(seed);
    for (unsigned cuts = 0; cuts < cuts_per_seed(variant) / 5; ++cuts) {
      const Event when = begun + below(random, bench.scheduler.now() - begun + 1);
      INFO(variant.name << ", seed " << seed << ", cut " << cuts << " at event " << when
                        << ", compaction from " << begun << " to " << bench.scheduler.now());
      Bench after(variant, seed, false);
      SimulatedDisk disk(after.scheduler, bench.disk.after_cut(when, random));
      after.open(std::make_unique<Borrowed>(disk));
      const auto found = after.check();
      INFO(joined(found.messages));
      REQUIRE(found.corruptions == 0);
      REQUIRE(compare_with_model(after.scheduler, *after.image, bench.model, when) == "");
      if (snapshot) {
        REQUIRE(sync_wait(after.scheduler, qcow2::Snapshots(*after.image).apply("then")).has_value());
        REQUIRE(after.whole_disk() == then);
      }
    }
  };
  for (const auto& variant : variants()) {
    for (std::uint32_t seed = 1; seed <= 4 * factor() && !variant.options.data_file; ++seed) {
      compact(variant, seed);
    }
  }
  CHECK(moved > 500);
}

TEST_CASE("qcow2_host_errors_reach_the_guest_and_never_damage_the_image", "[qcow2][fault]") {
  const auto variant = GENERATE(from_range(variants()));
  for (std::uint32_t seed = 1; seed <= 12 * factor(); ++seed) {
    INFO(variant.name << ", seed " << seed);
    Bench bench(variant, seed);
    Random random(seed);
    bool sick = false;
    const std::array<int, 2> errors = {EIO, ENOSPC};
    bench.open(std::make_unique<FaultyDevice>(std::make_unique<Borrowed>(bench.disk),
                                              [&](FaultOperation, std::uint64_t, std::uint64_t) {
                                                if (!sick || below(random, 6) != 0) {
                                                  return Fault{};
                                                }
                                                return Fault{errors[below(random, 2)], below(random, 2) == 0};
                                              }));
    unsigned failed = 0;
    for (std::uint32_t round = 0; round < 4; ++round) {
      sick = true;
      Workload workload(bench.scheduler, *bench.image, bench.model,
                        {.requests = 60, .flush_percent = 15, .errors_expected = true}, seed * 10 + round);
      CHECK(workload.run() == "");
      failed += workload.errors();
      sick = false;  // the host has recovered: everything works again
      bench.work({.requests = 40}, seed * 10 + round + 5);
      bench.flush();
      const auto report = bench.check();
      INFO(joined(report.messages));
      REQUIRE(report.corruptions == 0);
      REQUIRE(compare_with_model(bench.scheduler, *bench.image, bench.model, std::nullopt) == "");
    }
    CHECK(failed > 0);
  }
}

#include "block/qcow2/snapshots.hpp"
#include "block/qcow2/amend.hpp"

#include "block/memory.hpp"
#include "block/qcow2/simulation.hpp"
#include "block/qcow2/test_images.hpp"

using namespace whistler;
using namespace whistler::test;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;

qcow2::Image& as_image(BlockDevice& device) { return dynamic_cast<qcow2::Image&>(device); }

void snapshot(Ring& ring, BlockDevice& device, const std::string& name) {
  qcow2::Snapshot wanted;
  wanted.name = name;
  wanted.date_seconds = 1000000000;
  const auto done = sync_wait(ring, qcow2::Snapshots(as_image(device)).create(wanted));
  INFO((done ? std::string() : done.error().message));
  REQUIRE(done.has_value());
}

}  // namespace

TEST_CASE("snapshot_keeps_the_disk_of_its_time_through_writes_and_loads", "[qcow2][snapshot]") {
  const auto options = GENERATE(as<qcow2::CreateOptions>{}, qcow2::CreateOptions{},
                                qcow2::CreateOptions{.version = 2}, qcow2::CreateOptions{.cluster_size = 512},
                                qcow2::CreateOptions{.cluster_size = 16384, .extended_l2 = true});
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = directory.file("i.qcow2");
  auto sized = options;
  sized.size = 2 * kMiB;
  create_image(*ring, path, sized);
  auto image = open_qcow2(*ring, path);
  REQUIRE(write(*ring, *image, 1000, Bytes(300000, 1)).has_value());
  snapshot(*ring, *image, "one");
  REQUIRE(write(*ring, *image, 2000, Bytes(200000, 2)).has_value());
  snapshot(*ring, *image, "two");
  REQUIRE(sync_wait(*ring, image->discard(0, kMiB)).has_value());
  REQUIRE(write(*ring, *image, kMiB, Bytes(200000, 3)).has_value());
  close(*ring, image);
  require_clean(*ring, path);

  image = open_qcow2(*ring, path);
  const auto list = sync_wait(*ring, qcow2::Snapshots(as_image(*image)).list());
  REQUIRE(list.has_value());
  REQUIRE(list->size() == 2);
  CHECK((*list)[1].id == "2");
  CHECK((*list)[1].name == "two");
  REQUIRE(sync_wait(*ring, qcow2::Snapshots(as_image(*image)).apply("two")).has_value());
  CHECK(read(*ring, *image, 1000, 1000) == Bytes(1000, 1));
  CHECK(read(*ring, *image, 2000, 200000) == Bytes(200000, 2));
  CHECK(read(*ring, *image, kMiB, 1000) == Bytes(1000));
  REQUIRE(sync_wait(*ring, qcow2::Snapshots(as_image(*image)).apply("one")).has_value());
  CHECK(read(*ring, *image, 1000, 300000) == Bytes(300000, 1));
  REQUIRE(write(*ring, *image, 5000, Bytes(10, 4)).has_value());
  REQUIRE(sync_wait(*ring, qcow2::Snapshots(as_image(*image)).remove("1")).has_value());
  CHECK(read(*ring, *image, 5000, 11) == Bytes{4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 1});
  close(*ring, image);
  require_clean(*ring, path);

  image = open_qcow2(*ring, path);
  REQUIRE(sync_wait(*ring, qcow2::Snapshots(as_image(*image)).remove("two")).has_value());
  CHECK(sync_wait(*ring, qcow2::Snapshots(as_image(*image)).remove("two")).error().code ==
        ErrorCode::kNotFound);
  CHECK(read(*ring, *image, 5010, 1000) == Bytes(1000, 1));
  close(*ring, image);
  require_clean(*ring, path);
}

TEST_CASE("snapshots_of_qemu_are_loaded_and_ours_by_qemu", "[qcow2][snapshot][qemu]") {
  if (!have_qemu_tools()) {
    WARN("qemu-img and qemu-io are not installed: not tested");
    return;
  }
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = directory.file("i.qcow2");
  REQUIRE(run("qemu-img create -q -f qcow2 " + path + " 4M && qemu-io -f qcow2 -c 'write -P 1 0 1M' " + path +
              " && qemu-img snapshot -c theirs " + path + " && qemu-io -f qcow2 -c 'write -P 2 512k 1M' " +
              path)
              .status == 0);
  auto image = open_qcow2(*ring, path);
  snapshot(*ring, *image, "ours");
  REQUIRE(write(*ring, *image, 0, Bytes(kMiB, 3)).has_value());
  REQUIRE(sync_wait(*ring, qcow2::Snapshots(as_image(*image)).apply("theirs")).has_value());
  CHECK(read(*ring, *image, 0, kMiB) == Bytes(kMiB, 1));
  CHECK(read(*ring, *image, kMiB, kMiB) == Bytes(kMiB));
  close(*ring, image);
  require_clean(*ring, path);
  const auto loaded = run("qemu-img snapshot -a ours " + path +
                          " && qemu-io -f qcow2 -c 'read -P 2 512k 1M' -c 'read -P 1 0 512k' " + path);
  INFO(loaded.output);
  CHECK(loaded.status == 0);
  CHECK(loaded.output.find("failed") == std::string::npos);
  require_clean(*ring, path);
}

TEST_CASE("snapshot_that_refcounts_cannot_hold_is_refused_and_the_image_stays_sound", "[qcow2][snapshot]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = directory.file("i.qcow2");
  create_image(*ring, path, {.size = kMiB, .refcount_bits = 1});
  auto image = open_qcow2(*ring, path);
  REQUIRE(write(*ring, *image, 0, Bytes(300000, 1)).has_value());
  const auto refused = sync_wait(*ring, qcow2::Snapshots(as_image(*image)).create({}));
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().message.find("refcounts of 1 bits") != std::string::npos);
  REQUIRE(write(*ring, *image, 100, Bytes(300000, 2)).has_value());
  close(*ring, image);
  require_clean(*ring, path);
}

TEST_CASE("snapshot_that_meets_an_entry_without_refcount_changes_nothing", "[qcow2][snapshot][hostile]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = directory.file("i.qcow2");
  create_image(*ring, path, {.size = kMiB});
  auto image = open_qcow2(*ring, path);
  REQUIRE(write(*ring, *image, 0, Bytes(4096, 1)).has_value());
  const auto old = GENERATE(false, true);
  if (old) {
    snapshot(*ring, *image, "old");
    REQUIRE(write(*ring, *image, 0, Bytes(4096, 2)).has_value());
  }
  close(*ring, image);
  auto content = file_content(path);
  const auto l1 = load_be<std::uint64_t>(&content[40]);
  const auto l2 = load_be<std::uint64_t>(&content[l1]) & 0x00ff'ffff'ffff'fe00;
  store_be<std::uint64_t>(&content[l2 + 8 * 3], 0x8000'00ff'ffff'0000);  // far beyond the file
  make_file(path, content);

  image = open_qcow2(*ring, path);
  qcow2::Snapshots snapshots(as_image(*image));
  const auto refused =
      old ? sync_wait(*ring, snapshots.apply("old")) : sync_wait(*ring, snapshots.create({}));
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().message.find("0xffffff0000, for which there is no refcount") != std::string::npos);
  close(*ring, image);
  CHECK(file_content(path) == content);
  image = open_qcow2(*ring, path);  // it is not in need of repair
  CHECK(read(*ring, *image, 0, 4096) == Bytes(4096, old ? 2 : 1));
  close(*ring, image);
}

TEST_CASE("snapshot_of_an_impossible_disk_is_refused_and_not_applied", "[qcow2][snapshot][hostile]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = directory.file("i.qcow2");
  create_image(*ring, path, {.size = kMiB});
  auto image = open_qcow2(*ring, path);
  snapshot(*ring, *image, "one");
  const auto table = as_image(*image).header().snapshots_offset;
  close(*ring, image);
  const auto size = GENERATE(0x3fff'ffff'ffff'fe00ULL, ~0ULL);
  auto file = FileDevice::open(*ring, {.path = path});
  REQUIRE(file.has_value());
  Bytes stored(8);
  store_be<std::uint64_t>(stored.data(), size);
  REQUIRE(
      write(*ring, **file, table + 48, stored).has_value());  // behind the VM state's size in the extra data
  REQUIRE(sync_wait(*ring, (*file)->close()).has_value());
  image = open_qcow2(*ring, path);
  const auto applied = sync_wait(*ring, qcow2::Snapshots(as_image(*image)).apply("one"));
  REQUIRE_FALSE(applied.has_value());
  CHECK(applied.error().message.find("snapshot 'one' is of a disk of") != std::string::npos);
  CHECK(image->size() == kMiB);
  CHECK(read(*ring, *image, 0, 4096) == Bytes(4096));
  close(*ring, image);
}

TEST_CASE("snapshots_cut_by_power_loss_are_repaired_and_lose_nothing", "[qcow2][snapshot][crash]") {
  const auto action = GENERATE(0, 1, 2);
  Random random(static_cast<std::uint32_t>(action) + 1);
  Scheduler scheduler(1);
  SimulatedDisk disk(scheduler, {});
  REQUIRE(sync_wait(scheduler, qcow2::create(disk, {.size = kMiB, .cluster_size = 4096})).has_value());
  const auto open = [&](Scheduler& with, SimulatedDisk& on) {
    auto image = sync_wait(with, qcow2::Image::open(std::make_unique<Borrowed>(on), {}));
    REQUIRE(image.has_value());
    const auto prepared = sync_wait(with, (*image)->prepare());
    INFO((prepared ? std::string() : prepared.error().message));
    REQUIRE(prepared.has_value());
    return std::move(*image);
  };
  const auto fill = [&](qcow2::Image& image, std::uint64_t at, std::uint8_t value) {
    Bytes data(100000, value);
    const iovec vec{data.data(), data.size()};
    REQUIRE(sync_wait(scheduler, image.writev(at, {&vec, 1})).has_value());
  };
  auto image = open(scheduler, disk);
  fill(*image, 0, 1);
  qcow2::Snapshots snapshots(*image);
  qcow2::Snapshot named;
  named.name = "first";
  REQUIRE(sync_wait(scheduler, snapshots.create(named)).has_value());
  fill(*image, 50000, 2);
  REQUIRE(sync_wait(scheduler, image->flush()).has_value());
  disk.start_log();
  const auto begin = scheduler.now();
  named.name = "second";
  Result<void> done;
  if (action == 0) {
    done = sync_wait(scheduler, snapshots.create(named));
  } else if (action == 1) {
    done = sync_wait(scheduler, snapshots.apply("first"));
  } else {
    done = sync_wait(scheduler, snapshots.remove("first"));
  }
  REQUIRE(done.has_value());
  for (unsigned cut = 0; cut < 60; ++cut) {
    const auto when = begin + below(random, scheduler.now() - begin + 1);
    INFO("action " << action << ", cut at " << when - begin << " of " << scheduler.now() - begin);
    Scheduler later(1);
    SimulatedDisk after(later, disk.after_cut(when, random));
    const auto again = open(later, after);
    const auto report = sync_wait(later, qcow2::check_image(*again, qcow2::Repair::kNone));
    REQUIRE(report.has_value());
    INFO(joined(report->messages));
    CHECK(report->corruptions == 0);
    Bytes byte(1);
    const iovec vec{byte.data(), 1};
    REQUIRE(sync_wait(later, again->readv(1000, {&vec, 1})).has_value());
    CHECK(byte[0] == 1);
    REQUIRE(sync_wait(later, again->readv(60000, {&vec, 1})).has_value());
    CHECK((byte[0] == 2 || (action == 1 && byte[0] == 1)));
  }
}

TEST_CASE("zero_clusters_of_snapshots_stay_zero_in_version_2", "[qcow2][snapshot][qemu]") {
  if (!have_qemu_tools()) {
    WARN("qemu-img and qemu-io are not installed: not tested");
    return;
  }
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = directory.file("i.qcow2");
  const auto base = directory.file("base");
  make_file(base, Bytes(2 * kMiB, 7));
  // Zeroes with and without a cluster, in one snapshot alone, in two, and in the disk too.
  REQUIRE(
      run("qemu-img create -q -f qcow2 -b " + base + " -F raw " + path + " 4M && qemu-io -f qcow2" +
          " -c 'write -z 0 128k' -c 'write -P 1 128k 128k' -c 'write -z 128k 128k' -c 'write -z 3M 64k' " +
          path + " && qemu-img snapshot -c one " + path + " && qemu-img snapshot -c two " + path +
          " && qemu-io -f qcow2 -c 'write -P 2 0 64k' -c 'write -P 2 3M 64k' " + path +
          " && qemu-img snapshot -c three " + path)
          .status == 0);
  auto image = open_qcow2(*ring, path);
  as_image(*image).set_backing(std::make_unique<MemoryBlockDevice>(2 * kMiB));
  const auto downgraded = sync_wait(*ring, qcow2::Amender(as_image(*image)).downgrade());
  INFO((downgraded ? std::string() : downgraded.error().message));
  REQUIRE(downgraded.has_value());
  close(*ring, image);
  require_clean(*ring, path);
  CHECK(run("qemu-img info " + path).output.find("compat: 0.10") != std::string::npos);
  for (const auto* reads : {"one 0", "two 0", "three 2"}) {
    const std::string name(reads, std::string(reads).find(' '));
    const auto pattern = std::string(reads).substr(name.size() + 1);
    const auto read = run("qemu-img snapshot -a " + name + " " + path + " && qemu-io -f qcow2 -c 'read -P " +
                          pattern + " 0 64k' -c 'read -P 0 64k 192k' -c 'read -P 7 256k 1M' -c 'read -P " +
                          pattern + " 3M 64k' " + path);
    INFO(read.output);
    CHECK(read.status == 0);
    CHECK(read.output.find("failed") == std::string::npos);
  }
  require_clean(*ring, path);
}

// Images of QEMU's tools read, written and checked by us, and ours by them.
#include "block/qcow2/test_images.hpp"

using namespace whistler;
using namespace whistler::test;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;

void qemu(const std::string& command) {
  const auto done = run(command);
  INFO(command << "\n" << done.output);
  REQUIRE(done.status == 0);
}

std::string open_error(Ring& ring, const OpenOptions& options) {
  auto image = open_image(ring, options);
  REQUIRE_FALSE(image.has_value());
  return image.error().message;
}

}  // namespace

TEST_CASE("qcow2_images_made_by_qemu_with_any_options_are_read_and_written", "[qcow2][qemu]") {
  if (!have_qemu_tools()) {
    WARN("qemu-img and qemu-io are not installed: not tested");
    return;
  }
  const auto options =
      GENERATE(as<std::string>{}, "compat=0.10", "cluster_size=512", "cluster_size=2M", "refcount_bits=1",
               "refcount_bits=64", "lazy_refcounts=on", "extended_l2=on", "compression_type=zstd",
               "preallocation=metadata", "preallocation=metadata,extended_l2=on",
               "preallocation=falloc,cluster_size=4k");
  INFO(options);
  const TemporaryDirectory directory;
  const auto path = directory.file("i.qcow2");
  const auto ring = make_ring();
  qemu("qemu-img create -q -f qcow2 -o " + options + " " + path + " 8M");
  qemu(
      "qemu-io -f qcow2 -c 'write -P 0x11 0 3M' -c 'write -z 1M 200k' -c 'discard 2M 256k' -c 'write -P 0x22 "
      "5000k 10k' " +
      path);
  Bytes model(8 * kMiB);
  const auto fill = [&](std::size_t at, std::size_t bytes, std::uint8_t value) {
    std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(at), bytes, value);
  };
  fill(0, 3 * kMiB, 0x11);
  fill(kMiB, 200 * 1024, 0);
  // A discard leaves zeroes or the old content: whatever is there, both sides must agree on it.
  auto image = open_qcow2(*ring, path);
  const auto discarded = read(*ring, *image, 2 * kMiB, 256 * 1024);
  REQUIRE(discarded.has_value());
  std::copy(discarded->begin(), discarded->end(), model.begin() + static_cast<std::ptrdiff_t>(2 * kMiB));
  fill(5000 * 1024, 10 * 1024, 0x22);
  CHECK(read(*ring, *image, 0, model.size()) == model);
  REQUIRE(write(*ring, *image, 100000, Bytes(3 * kMiB, 0x33)).has_value());
  fill(100000, 3 * kMiB, 0x33);
  REQUIRE(write(*ring, *image, 8 * kMiB - 1000, Bytes(1000, 0x44)).has_value());
  fill(8 * kMiB - 1000, 1000, 0x44);
  REQUIRE(sync_wait(*ring, image->write_zeroes(500000, 700000)).has_value());
  fill(500000, 700000, 0);
  close(*ring, image);
  require_clean(*ring, path);
  make_file(directory.file("model"), model);
  qemu("qemu-img compare -f qcow2 -F raw " + path + " " + directory.file("model"));
}

TEST_CASE("qcow2_compressed_clusters_of_qemu_are_read_and_written_over", "[qcow2][qemu]") {
  if (!have_qemu_tools()) {
    WARN("qemu-img and qemu-io are not installed: not tested");
    return;
  }
  const auto options =
      GENERATE(as<std::string>{}, "compression_type=zlib", "compression_type=zstd", "cluster_size=4k",
               "compression_type=zstd,cluster_size=2M", "extended_l2=on", "compat=0.10,cluster_size=512");
  INFO(options);
  const TemporaryDirectory directory;
  const auto path = directory.file("c.qcow2");
  const auto ring = make_ring();
  Bytes model(4 * kMiB);
  for (std::size_t at = 0; at < 3 * kMiB; ++at) {
    model[at] = static_cast<std::uint8_t>(at / 777 * 31);  // compressible, and different everywhere
  }
  const auto noise = pattern(300000, 4);
  std::copy(noise.begin(), noise.end(), model.begin() + 1000000);
  make_file(directory.file("raw"), model);
  qemu("qemu-img convert -q -c -f raw -O qcow2 -o " + options + " " + directory.file("raw") + " " + path);
  auto image = open_qcow2(*ring, path);
  CHECK(read(*ring, *image, 0, model.size()) == model);
  CHECK(read(*ring, *image, 70001, 10) == Bytes(model.begin() + 70001, model.begin() + 70011));
  for (const std::size_t at : {std::size_t{5}, std::size_t{65536 * 3}, std::size_t{2 * kMiB - 5000}}) {
    const auto data = pattern(9000, static_cast<std::uint32_t>(at));
    REQUIRE(write(*ring, *image, at, data).has_value());
    std::copy(data.begin(), data.end(), model.begin() + static_cast<std::ptrdiff_t>(at));
  }
  REQUIRE(sync_wait(*ring, image->discard(kMiB / 2, kMiB / 4)).has_value());
  const auto discarded = read(*ring, *image, kMiB / 2, kMiB / 4);
  REQUIRE(discarded.has_value());
  std::copy(discarded->begin(), discarded->end(), model.begin() + kMiB / 2);
  CHECK(read(*ring, *image, 0, model.size()) == model);
  close(*ring, image);
  require_clean(*ring, path);
  make_file(directory.file("model"), model);
  qemu("qemu-img compare -f qcow2 -F raw " + path + " " + directory.file("model"));
}

TEST_CASE("qcow2_chain_of_backing_files_is_followed_from_the_images_directory", "[qcow2]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  std::filesystem::create_directory(directory.file("sub"));
  make_file(directory.file("sub/base.raw"), Bytes(kMiB, 1));
  create_image(*ring, directory.file("sub/middle.qcow2"),
               {.size = 2 * kMiB, .backing_file = "base.raw", .backing_format = "raw"});
  create_image(*ring, directory.file("top.qcow2"),
               {.size = 2 * kMiB, .backing_file = "sub/middle.qcow2", .backing_format = "qcow2"});
  auto middle = open_qcow2(*ring, directory.file("sub/middle.qcow2"));
  REQUIRE(write(*ring, *middle, 1000, Bytes(1000, 2)).has_value());
  close(*ring, middle);
  auto top = open_qcow2(*ring, directory.file("top.qcow2"));
  REQUIRE(write(*ring, *top, 1500, Bytes(100, 3)).has_value());
  const auto data = read(*ring, *top, 0, 2 * kMiB);
  REQUIRE(data.has_value());
  CHECK((*data)[999] == 1);
  CHECK((*data)[1000] == 2);
  CHECK((*data)[1499] == 2);
  CHECK((*data)[1500] == 3);
  CHECK((*data)[1600] == 2);
  CHECK((*data)[kMiB - 1] == 1);
  CHECK((*data)[kMiB] == 0);
  close(*ring, top);
  require_clean(*ring, directory.file("top.qcow2"));
  if (have_qemu_tools()) {
    make_file(directory.file("model"), *data);
    qemu("qemu-img compare -f qcow2 -F raw " + directory.file("top.qcow2") + " " + directory.file("model"));
  }
}

TEST_CASE("qcow2_backing_file_that_is_missing_forbidden_or_circular_is_refused", "[qcow2]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = directory.file("a.qcow2");
  create_image(*ring, path, {.size = kMiB, .backing_file = "none.raw", .backing_format = "raw"});
  CHECK(open_error(*ring, {.path = path, .format = "qcow2"}) ==
        "backing file of " + path + ": " + directory.file("none.raw") +
            ": cannot be opened: No such file or directory");
  CHECK(
      open_error(*ring, {.path = path, .format = "qcow2", .allow_backing = false}).find("not allowed here") !=
      std::string::npos);
  CHECK(open_image(*ring, {.path = path, .format = "qcow2", .read_only = true, .ignore_backing = true})
            .has_value());

  create_image(*ring, directory.file("b.qcow2"),
               {.size = kMiB, .backing_file = "c.qcow2", .backing_format = "qcow2"});
  create_image(*ring, directory.file("c.qcow2"),
               {.size = kMiB, .backing_file = "b.qcow2", .backing_format = "qcow2"});
  CHECK(open_error(*ring, {.path = directory.file("b.qcow2"), .format = "qcow2", .read_only = true})
            .find("its own backing file") != std::string::npos);

  create_image(*ring, directory.file("d.qcow2"), {.size = kMiB, .backing_file = "a.qcow2"});
  CHECK(open_error(*ring, {.path = directory.file("d.qcow2"), .format = "qcow2"}).find("never guessed") !=
        std::string::npos);
  create_image(*ring, directory.file("e.qcow2"),
               {.size = kMiB, .backing_file = "nbd://host/x", .backing_format = "raw"});
  CHECK(open_error(*ring, {.path = directory.file("e.qcow2"), .format = "qcow2"}).find("remote_backing") !=
        std::string::npos);
  create_image(*ring, directory.file("f.qcow2"),
               {.size = kMiB, .backing_file = "ssh://host/x", .backing_format = "raw"});
  CHECK(open_error(*ring, {.path = directory.file("f.qcow2"), .format = "qcow2"}).find("not a file name") !=
        std::string::npos);
}

TEST_CASE("qcow2_external_data_file_holds_the_data_for_us_and_for_qemu", "[qcow2][qemu]") {
  if (!have_qemu_tools()) {
    WARN("qemu-img and qemu-io are not installed: not tested");
    return;
  }
  const auto raw = GENERATE(as<std::string>{}, "off", "on");
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = directory.file("i.qcow2");
  qemu("qemu-img create -q -f qcow2 -o data_file=" + directory.file("data") + ",data_file_raw=" + raw + " " +
       path + " 4M");
  auto image = open_qcow2(*ring, path);
  Bytes model(4 * kMiB);
  for (const std::size_t at : {std::size_t{0}, std::size_t{100001}, std::size_t{3 * kMiB}}) {
    const auto data = pattern(70000, static_cast<std::uint32_t>(at));
    REQUIRE(write(*ring, *image, at, data).has_value());
    std::copy(data.begin(), data.end(), model.begin() + static_cast<std::ptrdiff_t>(at));
  }
  REQUIRE(sync_wait(*ring, image->write_zeroes(65536, 65536 + 100)).has_value());
  std::fill_n(model.begin() + 65536, 65536 + 100, std::uint8_t{0});
  CHECK(read(*ring, *image, 0, model.size()) == model);
  close(*ring, image);
  require_clean(*ring, path);
  make_file(directory.file("model"), model);
  qemu("qemu-img compare -f qcow2 -F raw " + path + " " + directory.file("model"));
  if (raw == "on") {
    auto content = file_content(directory.file("data"));
    content.resize(model.size());
    CHECK(content == model);
  }
}

TEST_CASE("qcow2_image_grown_or_shrunk_is_clean_and_new_space_is_zero", "[qcow2]") {
  const auto cluster_size = GENERATE(512U, 65536U);
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = directory.file("i.qcow2");
  make_file(directory.file("base"), Bytes(3 * kMiB, 9));
  create_image(
      *ring, path,
      {.size = kMiB + 512, .cluster_size = cluster_size, .backing_file = "base", .backing_format = "raw"});
  auto image = open_qcow2(*ring, path);
  REQUIRE(write(*ring, *image, 0, Bytes(kMiB, 1)).has_value());
  REQUIRE(sync_wait(*ring, image->resize(20 * kMiB)).has_value());
  CHECK(image->size() == 20 * kMiB);
  CHECK(read(*ring, *image, kMiB, 512) == Bytes(512, 9));
  CHECK(read(*ring, *image, kMiB + 512, 4 * kMiB) == Bytes(4 * kMiB));
  REQUIRE(write(*ring, *image, 19 * kMiB, Bytes(kMiB, 2)).has_value());
  REQUIRE(sync_wait(*ring, image->resize(kMiB / 2)).has_value());
  REQUIRE(sync_wait(*ring, image->resize(kMiB)).has_value());
  CHECK(read(*ring, *image, 0, kMiB / 2) == Bytes(kMiB / 2, 1));
  CHECK(read(*ring, *image, kMiB / 2, kMiB / 2) == Bytes(kMiB / 2));
  close(*ring, image);
  require_clean(*ring, path);
}

TEST_CASE("qcow2_image_not_closed_by_lazy_refcounts_is_repaired_on_open", "[qcow2][qemu]") {
  if (!have_qemu_tools()) {
    WARN("qemu-img and qemu-io are not installed: not tested");
    return;
  }
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = directory.file("i.qcow2");
  qemu("qemu-img create -q -f qcow2 -o lazy_refcounts=on " + path + " 8M");
  // With lazy refcounts qemu-io leaves the dirty bit and stale refcounts when it is killed.
  static_cast<void>(run("qemu-io -f qcow2 -c 'write -P 5 0 1M' -c flush -c 'abort' " + path));
  REQUIRE(run("qemu-img check -U " + path).status != 0);
  auto image = open_qcow2(*ring, path);
  CHECK(read(*ring, *image, 0, kMiB) == Bytes(kMiB, 5));
  REQUIRE(write(*ring, *image, 2 * kMiB, Bytes(kMiB, 6)).has_value());
  close(*ring, image);
  require_clean(*ring, path);
}

TEST_CASE("qcow2_check_repairs_leaks_low_refcounts_and_wrong_flags", "[qcow2]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = directory.file("i.qcow2");
  create_image(*ring, path, {.size = kMiB});
  auto image = open_qcow2(*ring, path);
  REQUIRE(write(*ring, *image, 0, Bytes(kMiB, 1)).has_value());
  close(*ring, image);
  // Refcount block at cluster 2, 16 bits each: cluster 5 counts 0, cluster 100 counts 1; the L2 table is
  // cluster 4.
  auto content = file_content(path);
  content[2 * 65536 + 5 * 2 + 1] = 0;
  content[2 * 65536 + 100 * 2 + 1] = 1;
  content[4 * 65536 + 3 * 8] &= 0x7f;  // COPIED of the fourth entry
  make_file(path, content);
  const auto report = check(*ring, path);
  INFO(joined(report.messages));
  CHECK(report.corruptions == 3);  // one of them the flag of the cluster that counts 0
  CHECK(report.leaks == 1);
  const auto repaired = check(*ring, path, qcow2::Repair::kAll);
  CHECK(repaired.corruptions_fixed == 2);
  CHECK(repaired.leaks_fixed == 1);
  require_clean(*ring, path);
}

TEST_CASE("qcow2_check_rebuilds_damaged_refcount_tables", "[qcow2]") {
  const auto damage = GENERATE(0, 1, 2);
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  const auto path = directory.file("i.qcow2");
  create_image(*ring, path,
               {.size = 4 * kMiB, .cluster_size = 512, .refcount_bits = 64});  // 64 clusters a block
  auto image = open_qcow2(*ring, path);
  const auto data = pattern(kMiB, 1);
  REQUIRE(write(*ring, *image, 1000, data).has_value());
  close(*ring, image);
  auto content = file_content(path);
  const auto table = static_cast<std::size_t>(load_be<std::uint64_t>(&content[48]));
  const auto l2_table =
      load_be<std::uint64_t>(&content[static_cast<std::size_t>(load_be<std::uint64_t>(&content[40]))]) &
      qcow2::kOffsetMask;
  if (damage == 0) {
    store_be<std::uint64_t>(&content[table + 3 * 8], 0x123);  // not at a cluster boundary
  } else if (damage == 1) {
    store_be<std::uint64_t>(&content[table + 3 * 8], 0);  // in use, not covered
  } else {
    store_be<std::uint64_t>(&content[table + 3 * 8], l2_table);  // a block that is an L2 table as well
  }
  make_file(path, content);
  CHECK(check(*ring, path).corruptions > 0);
  CHECK(check(*ring, path, qcow2::Repair::kAll).corruptions_fixed > 0);
  require_clean(*ring, path);
  image = open_qcow2(*ring, path);
  CHECK(read(*ring, *image, 1000, data.size()) == data);
  REQUIRE(write(*ring, *image, 2 * kMiB, data).has_value());
  close(*ring, image);
  require_clean(*ring, path);
}

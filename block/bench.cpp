// Measures an image: block_bench <read|write> <file> <format> <depth> <bytes> <count> [cache mode]. Offsets
// are random, or step on with 'seqwrite'. Prints requests a second; `qemu-img bench` is the program to
// compare with.
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "block/open.hpp"
#include "block/qcow2/check.hpp"
#include "block/qcow2/image.hpp"

using namespace whistler;

namespace {

struct Bench {
  BlockDevice& device;
  std::string kind;
  std::uint64_t bytes;
  std::uint64_t left;
  std::uint64_t in_flight = 0;
  std::uint64_t errors = 0;
  std::uint64_t next = 0;
  std::mt19937_64 random{1};

  std::uint64_t offset() {
    const auto places = device.size() / bytes;
    return (kind == "seqwrite" ? next++ % places
            : kind == "stride" ? (next += 9) % places
                               : random() % places) *
           bytes;
  }
  void start(iovec& buffer) {
    if (left == 0) {
      return;
    }
    --left;
    ++in_flight;
    const auto done = [this, &buffer](const Result<void>& result) {
      --in_flight;
      errors += result ? 0 : 1;
      start(buffer);
    };
    if (kind == "read") {
      spawn(device.readv(offset(), {&buffer, 1}), done);
    } else {
      spawn(device.writev(offset(), {&buffer, 1}), done);
    }
  }
};

int complain(const Error& error) {
  fmt::print(stderr, "block_bench: {}\n", error.message);
  return 1;
}

int time_check(Ring& ring, const std::string& path) {
  const auto begin = std::chrono::steady_clock::now();
  auto file = FileDevice::open(ring, {.path = path, .read_only = true});
  if (!file) {
    return complain(file.error());
  }
  auto image = sync_wait(ring, qcow2::Image::open(std::move(*file), {.read_only = true}));
  if (!image) {
    return complain(image.error());
  }
  const auto report = sync_wait(ring, qcow2::check_image(**image, qcow2::Repair::kNone));
  if (!report) {
    return complain(report.error());
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  fmt::print("{:.3f} s, {} corruptions, {} leaks\n", seconds.count(), report->corruptions, report->leaks);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 7) {
    fmt::print(stderr,
               "usage: block_bench read|write|seqwrite|stride|check FILE FORMAT DEPTH BYTES COUNT [CACHE]\n");
    return 2;
  }
  auto ring = Ring::create_for_tool();
  if (!ring) {
    return complain(ring.error());
  }
  if (std::string(argv[1]) == "check") {
    return time_check(**ring, argv[2]);
  }
  const auto cache = parse_cache_mode(argc > 7 ? argv[7] : "writeback");
  if (!cache) {
    return complain(cache.error());
  }
  auto device = open_image(**ring, {.path = argv[2],
                                    .format = argv[3],
                                    .read_only = std::string(argv[1]) == "read",
                                    .cache = *cache,
                                    .inline_writes = true});
  if (!device) {
    return complain(device.error());
  }
  const auto depth = std::strtoull(argv[4], nullptr, 0);
  const auto bytes = std::strtoull(argv[5], nullptr, 0);
  const auto count = std::strtoull(argv[6], nullptr, 0);
  Bench bench{**device, argv[1], bytes, count};
  std::vector<iovec> buffers(depth);
  for (auto& buffer : buffers) {
    buffer = {std::aligned_alloc(4096, bytes), bytes};
  }
  const auto begin = std::chrono::steady_clock::now();
  for (auto& buffer : buffers) {
    bench.start(buffer);
  }
  while (bench.in_flight != 0) {
    (*ring)->run_once(true);
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  const auto closed = sync_wait(**ring, (*device)->close());
  if (!closed || bench.errors != 0) {
    fmt::print(stderr, "block_bench: {} errors {}\n", bench.errors, closed ? "" : closed.error().message);
    return 1;
  }
  fmt::print("{:.3f} s, {:.0f} requests a second\n", seconds.count(),
             static_cast<double>(count) / seconds.count());
  return 0;
}

// The storage engine alone: makes an image, writes to it, reads it back. docs/engine.md explains it; ./test
// runs it.
#include <fmt/format.h>

#include <array>
#include <cstring>

#include "block/create.hpp"
#include "block/open.hpp"

using namespace whistler;

namespace {

/// Two requests in flight at once would be two tasks spawned; one after the other is one coroutine.
Task<Result<void>> write_and_read(BlockDevice& disk) {
  std::array<char, 512> text{"kept for years"};
  const iovec from{text.data(), text.size()};
  auto done = co_await disk.writev(1024 * 1024, {&from, 1});
  if (!done) {
    co_return done;
  }
  done = co_await disk.flush();  // durable from here on
  if (!done) {
    co_return done;
  }
  std::array<char, 512> back{};
  const iovec to{back.data(), back.size()};
  done = co_await disk.readv(1024 * 1024, {&to, 1});
  if (done && text != back) {
    done = fail(ErrorCode::kCorrupt, "what was read is not what was written");
  }
  co_return done;
}

Result<void> run(const char* path) {
  auto ring = Ring::create();
  if (!ring) {
    return std::unexpected(ring.error());
  }
  auto made = create_image(**ring, {.path = path, .format = "qcow2", .size = std::uint64_t{1} << 30});
  if (!made) {
    return made;
  }
  auto disk = open_image(**ring, {.path = path, .format = "qcow2"});
  if (!disk) {
    return std::unexpected(disk.error());
  }
  auto done = sync_wait(**ring, write_and_read(**disk));
  auto closed = sync_wait(**ring, (*disk)->close());
  return done ? closed : done;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: engine_example NEW-IMAGE\n");
    return 2;
  }
  if (auto done = run(argv[1]); !done) {
    fmt::print(stderr, "engine_example: {}\n", done.error().message);
    return 1;
  }
  fmt::print("{}: written, flushed, read back and closed\n", argv[1]);
  return 0;
}

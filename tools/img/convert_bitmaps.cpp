#include "tools/img/convert_bitmaps.hpp"

#include <fmt/format.h>

#include <ranges>

#include "block/node.hpp"
#include "block/qcow2/bitmaps.hpp"

namespace whistler::tools {

namespace {

Task<Result<void>> copy_one(qcow2::Bitmaps& from, qcow2::Bitmaps& to, qcow2::BitmapInfo bitmap,
                            const char*& step) {
  step = "create";
  auto done = co_await to.add(bitmap.name, bitmap.granularity, false);
  if (!done) {
    co_return done;
  }
  step = "populate";
  auto bits = co_await from.content(bitmap.name);
  if (!bits) {
    co_return std::unexpected(bits.error());
  }
  done = co_await to.merge(bitmap.name, *bits);
  if (done && bitmap.enabled) {
    done = co_await to.enable(bitmap.name, true);
  }
  co_return done;
}

}  // namespace

bool check_bitmaps(const Call& call, Ring& ring, qcow2::Image& source, bool skip_broken) {
  const auto bitmaps = sync_wait(ring, source.bitmaps().list());
  if (!bitmaps) {
    complain(call, tool_text(bitmaps.error()));
    return false;
  }
  for (const auto& bitmap : *bitmaps | std::views::reverse) {  // the order in which qemu-img looks at them
    if (bitmap.in_use && !skip_broken) {
      complain(call, fmt::format("Cannot copy inconsistent bitmap '{}'", bitmap.name));
      fmt::print(stderr, "Try --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it\n");
      return false;
    }
  }
  return true;
}

bool copy_bitmaps(const Call& call, Ring& ring, qcow2::Image& source, qcow2::Image& target) {
  const auto bitmaps = sync_wait(ring, source.bitmaps().list());
  if (!bitmaps) {
    complain(call, tool_text(bitmaps.error()));
    return false;
  }
  for (const auto& bitmap : *bitmaps | std::views::reverse) {
    if (bitmap.in_use) {
      complain(call, fmt::format("warning: Skipping inconsistent bitmap '{}'", bitmap.name));
    }
  }
  for (const auto& bitmap : *bitmaps) {
    if (bitmap.in_use) {
      continue;
    }
    const char* step = "create";
    const auto done = sync_wait(ring, copy_one(source.bitmaps(), target.bitmaps(), bitmap, step));
    if (!done) {
      complain(call, fmt::format("Failed to {} bitmap {}: {}", step, bitmap.name, tool_text(done.error())));
      return false;
    }
  }
  return true;
}

}  // namespace whistler::tools

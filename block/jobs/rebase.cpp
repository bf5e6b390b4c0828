#include "block/jobs/rebase.hpp"

#include <fmt/format.h>

#include "base/log.hpp"

namespace whistler {

std::unique_ptr<BlockDevice> take_out_layer(BlockDevice& top, const BlockDevice* base) {
  for (auto* layer = &top; layer != nullptr; layer = layer->backing()) {
    if (layer->backing() == base) {
      auto* above = dynamic_cast<qcow2::Image*>(layer);
      return above != nullptr ? above->take_backing() : nullptr;
    }
  }
  return nullptr;
}

Task<void> close_unused(std::unique_ptr<BlockDevice> image) {
  if (image != nullptr) {
    auto closed = co_await image->close();
    if (!closed) {
      log(LogLevel::kError, fmt::format("{}: closing failed: {}", image->name(), closed.error().message));
    }
  }
}

Task<Result<void>> stand_on(qcow2::Image& overlay, BlockDevice* base, std::optional<std::string> name,
                            std::optional<std::string> format) {
  const bool was_read_only = overlay.read_only();
  auto done = co_await overlay.set_read_only(false);
  if (done) {
    done = co_await overlay.change_backing_file(std::move(name), std::move(format));
  }
  if (done) {
    std::unique_ptr<BlockDevice> kept;
    if (base != nullptr) {
      kept = take_out_layer(overlay, base);
    }
    auto unused = overlay.take_backing();
    overlay.set_backing(std::move(kept));
    co_await close_unused(std::move(unused));
  }
  if (was_read_only) {
    auto back = co_await overlay.set_read_only(true);
    if (!back) {
      log(LogLevel::kError,
          fmt::format("{}: stays open for writing: {}", overlay.name(), back.error().message));
    }
  }
  co_return done;
}

}  // namespace whistler

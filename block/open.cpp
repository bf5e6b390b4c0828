#include "block/open.hpp"

#include <fmt/format.h>

#include "block/raw.hpp"
#include "block/write_policy.hpp"

namespace whistler {

Task<Result<std::unique_ptr<BlockDevice>>> open_image_task(Ring& ring, OpenOptions options) {
  if (options.format != "raw") {
    co_return fail(
        ErrorCode::kInvalid,
        fmt::format("{}: format '{}' is not one of raw, qcow2; it is never guessed, so it must be given",
                    options.path, options.format));
  }
  const FileOptions file_options{.path = options.path,
                                 .read_only = options.read_only,
                                 .cache = options.cache,
                                 .lock = options.lock,
                                 .force_share = options.force_share,
                                 .inline_writes = options.inline_writes};
  auto file = FileDevice::open(ring, file_options);
  if (!file) {
    co_return std::unexpected(file.error());
  }
  std::unique_ptr<BlockDevice> image = std::make_unique<RawDevice>(std::move(*file));
  if (is_writethrough(options.cache) || options.detect_zeroes != DetectZeroes::kOff) {
    image = std::make_unique<WritePolicy>(std::move(image), is_writethrough(options.cache),
                                          options.detect_zeroes);
  }
  co_return image;
}

Result<std::unique_ptr<BlockDevice>> open_image(Ring& ring, const OpenOptions& options) {
  return sync_wait(ring, open_image_task(ring, options));
}

}  // namespace whistler

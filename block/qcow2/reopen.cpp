// Changing an open image between reading only and writing too.
#include <fmt/format.h>

#include "block/qcow2/bitmaps.hpp"
#include "block/qcow2/image.hpp"

namespace whistler::qcow2 {

Task<Result<void>> Image::set_read_only(bool read_only) {
  if (read_only == options_.read_only) {
    co_return Result<void>{};
  }
  if (!read_only && (corrupt_ || (header_.incompatible & kCorruptBit) != 0)) {
    co_return fail(ErrorCode::kCorrupt,
                   fmt::format("{}: the image is marked corrupt: it cannot be written to", name()));
  }
  Result<void> done;
  if (read_only) {
    done = co_await settle();
  }
  for (BlockDevice* device : {data_file_.get(), file_.get()}) {
    if (done && device != nullptr) {
      done = co_await device->set_read_only(read_only);
    }
  }
  if (done && !read_only) {
    done = co_await begin_writing();
  }
  if (done) {
    options_.read_only = read_only;
    co_return done;
  }
  // Back to what it was; if that fails too, the next write says so.
  for (BlockDevice* device : {data_file_.get(), file_.get()}) {
    if (device != nullptr) {
      static_cast<void>(co_await device->set_read_only(!read_only));
    }
  }
  if (read_only) {
    resume_lazy();
  }
  co_return done;
}

/// What a reader has not loaded.
Task<Result<void>> Image::begin_writing() {
  options_.read_only = false;
  make_refcounts();
  bitmaps_ = std::make_unique<Bitmaps>(*this);
  auto done = co_await prepare();
  options_.read_only = !done.has_value();
  co_return done;
}

}  // namespace whistler::qcow2

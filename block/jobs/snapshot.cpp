#include "block/jobs/snapshot.hpp"

namespace whistler {

Task<Result<void>> freeze_image(DriveImage& drive) {
  auto done = co_await drive.image().flush();
  if (done) {
    done = co_await drive.image().set_read_only(true);
    if (!done && done.error().code == ErrorCode::kUnsupported) {
      done = {};  // it keeps its rights, and nobody uses them
    }
  }
  co_return done;
}

Task<Result<void>> thaw_image(DriveImage& drive) {
  auto done = co_await drive.image().set_read_only(false);
  co_return done;
}

void slide_in(DriveImage& drive, std::unique_ptr<qcow2::Image> overlay) {
  auto* const top = overlay.get();
  top->set_backing(drive.replace(std::move(overlay)));
}

}  // namespace whistler

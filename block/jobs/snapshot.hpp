// An overlay slides between a drive and its image, which stays as it is from then on.
#pragma once

#include <memory>

#include "block/drive_image.hpp"
#include "block/qcow2/image.hpp"

namespace whistler {

/// While the drive is held: makes all that was written durable, so that slide_in() cannot fail. Its image may
/// be read by others from here on, where it lets them.
[[nodiscard]] Task<Result<void>> freeze_image(DriveImage& drive);
/// The opposite, if it comes to nothing.
[[nodiscard]] Task<Result<void>> thaw_image(DriveImage& drive);
/// Then: the drive shows `overlay`, which is empty and stands on what it showed before.
void slide_in(DriveImage& drive, std::unique_ptr<qcow2::Image> overlay);

}  // namespace whistler

// The files that copies and snapshots go to.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "block/open.hpp"

namespace whistler {

namespace qcow2 {
class Image;
}  // namespace qcow2

struct NewFile {
  std::string path = {};
  std::string format = {};  ///< "raw" or "qcow2"
  std::uint64_t size = 0;
  /// qcow2: what it stands on, and the format of that.
  std::optional<std::string> backing_file = {}, backing_format = {};
  Stop* stop = nullptr;  ///< as in OpenOptions
};

/// Makes an empty image; an existing file is replaced unless somebody uses it. The ring's other work goes on
/// meanwhile.
[[nodiscard]] Task<Result<void>> make_image(Ring& ring, NewFile file);

struct Target {
  std::unique_ptr<BlockDevice> image;
  qcow2::Image* qcow2 = nullptr;  ///< what it is, or leads to, if that is such an image
  std::uint64_t cluster = 0;      ///< that it allocates at a time; 0: any
};

/// Opens an image that is to be written in whole clusters; one that stands on another is not to be read until
/// it has been given that.
[[nodiscard]] Task<Result<Target>> open_target(Ring& ring, OpenOptions options);

}  // namespace whistler

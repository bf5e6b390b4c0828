// Makes image files: new disks, and overlays over existing ones.
#pragma once

#include <optional>
#include <string>

#include "block/crypto/luks.hpp"
#include "block/file.hpp"
#include "block/qcow2/create.hpp"

namespace whistler {

struct NewImage {
  std::string path = {};
  /// "raw", "qcow2" or "luks".
  std::string format = {};
  /// Bytes; nothing: that of the backing file.
  std::optional<std::uint64_t> size = {};
  /// For qcow2; its `size` is ignored. A backing file needs its format, and must exist unless a size is
  /// given.
  qcow2::CreateOptions qcow2 = {};
  /// For luks.
  crypto::LuksOptions luks = {};
  crypto::Secret password = {};
};

/// An existing file is replaced, unless somebody uses it. On failure no half image is left under that name.
/// Runs on `ring` to the end: for tools and for start-up.
[[nodiscard]] Result<void> create_image(Ring& ring, const NewImage& image);

}  // namespace whistler

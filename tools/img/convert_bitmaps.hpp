// convert --bitmaps: persistent bitmaps go along with the disk.
#pragma once

#include "block/qcow2/image.hpp"
#include "block/uring/ring.hpp"
#include "tools/tool.hpp"

namespace whistler::tools {

/// Before anything is copied: whether all bitmaps can be; a complaint and false if not.
bool check_bitmaps(const Call& call, Ring& ring, qcow2::Image& source, bool skip_broken);
/// Copies them; a complaint and false if that fails.
bool copy_bitmaps(const Call& call, Ring& ring, qcow2::Image& source, qcow2::Image& target);

}  // namespace whistler::tools

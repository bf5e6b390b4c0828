// The foreign formats as drivers of the image graph, and for the machine.
#pragma once

#include <span>
#include <string>

#include "block/formats/image.hpp"
#include "block/node_drivers.hpp"

namespace whistler::formats {

/// vdi, vmdk, vpc and vhdx.
[[nodiscard]] std::span<const FormatDriver> drivers();
/// Whether it is one of those.
[[nodiscard]] bool is_foreign_format(std::string_view format);

/// Opens a file as one of these formats, without its parent. Further files are looked for beside it, and
/// refused unless `allow_more`. A dirty VHDX log is replayed in memory if the file is read-only.
[[nodiscard]] Task<Result<std::unique_ptr<Image>>> open_foreign(Ring& ring, std::unique_ptr<BlockDevice> file,
                                                                std::string format, bool allow_more);

/// Gives `image` its parent, which must be the one it was made from.
[[nodiscard]] Result<void> join_parent(Image& image, std::unique_ptr<BlockDevice> parent);

}  // namespace whistler::formats

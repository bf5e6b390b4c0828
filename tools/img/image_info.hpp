// What `info` tells of an image, as QEMU's ImageInfo object, and its text for people.
#pragma once

#include <string>
#include <vector>

#include "block/node.hpp"
#include "block/qcow2/snapshot_table.hpp"

namespace whistler::tools {

[[nodiscard]] Result<Options> collect_image_info(Ring& ring, const OpenNode& image);
[[nodiscard]] std::string show_image_info(const Options& info);
/// The part of it about the format alone, with its head; empty where the format tells nothing.
[[nodiscard]] Result<std::string> show_format_specific(Ring& ring, const Node& node);

/// The internal snapshots; empty where the format has none.
[[nodiscard]] Result<std::vector<qcow2::Snapshot>> list_snapshots(Ring& ring, const Node& node);
/// The lines of the table, its head first.
[[nodiscard]] std::string show_snapshots(const Options& snapshots);
[[nodiscard]] Options snapshots_info(const std::vector<qcow2::Snapshot>& snapshots);

/// What format drivers of other parts tell: {"type": ..., "data": {...}}, or null. One line a format, in
/// image_info_formats.cpp.
[[nodiscard]] Options format_specific_info(Ring& ring, const Node& node);

}  // namespace whistler::tools

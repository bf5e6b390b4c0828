// The drivers an image may name, beyond those node.cpp has built in (file, raw, qcow2, null-co, blkdebug).
// Who adds a format or a protocol puts a line into node_drivers.cpp.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "block/node.hpp"

namespace whistler {

/// A format: a layer on a file.
struct FormatDriver {
  std::string_view name;
  /// How sure the start of a file makes one, 0 (no) to 100. `filename` may help.
  int (*probe)(std::span<const std::uint8_t> start, std::string_view filename) = nullptr;
  /// Opens the image on `file`, which is taken over. `node` has driver, file and flags' results set; its
  /// filename may be used to find further files. Options that were understood are erased from `options`.
  Task<Result<std::unique_ptr<BlockDevice>>> (*open)(Ring& ring, std::unique_ptr<BlockDevice> file,
                                                     Options& options, NodeFlags flags, Node& node) = nullptr;
};

/// A protocol: a lowest layer.
struct ProtocolDriver {
  std::string_view name;
  /// The protocols of file names ("nbd", "nbd+unix"), separated by spaces.
  std::string_view prefixes;
  /// Turns a file name into options ("host", "port", ...), QEMU's message if it cannot.
  Result<void> (*parse_filename)(const std::string& filename, Options& options) = nullptr;
  /// Options that were understood are erased from `options`; sets exact_filename and full_options of `node`.
  Task<Result<std::unique_ptr<BlockDevice>>> (*open)(Ring& ring, Options& options, NodeFlags flags,
                                                     Node& node) = nullptr;
};

[[nodiscard]] std::span<const FormatDriver> format_drivers();
[[nodiscard]] std::span<const ProtocolDriver> protocol_drivers();

/// The names of all drivers, sorted.
[[nodiscard]] std::vector<std::string_view> known_drivers();
/// Whether the name is that of a driver QEMU has, ours or not.
[[nodiscard]] bool is_known_driver(std::string_view name);

}  // namespace whistler

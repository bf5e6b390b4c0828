// Opens an image as a tool's caller names it: a graph of nodes, each a driver on its children.
//
// Unlike open_image(), which serves the machine, this follows QEMU's names and its guesses: without a format
// it looks at the content. Errors are in QEMU's words: put "Could not open 'NAME': " before them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "block/block_device.hpp"
#include "block/cache_mode.hpp"
#include "block/node_options.hpp"
#include "block/open.hpp"
#include "block/uring/ring.hpp"

namespace whistler {

namespace qcow2 {
class Image;
}  // namespace qcow2
namespace crypto {
class LuksDevice;
}  // namespace crypto

struct NodeFlags {
  bool read_only = true;
  CacheMode cache = CacheMode::kWriteback;
  /// The tools' -U.
  bool force_share = false;
  bool lock = true;
  bool inline_writes = true;
  /// Do not open backing files: they read as zeroes.
  bool ignore_backing = false;
  /// Only the metadata is of interest: an external data file is not opened.
  bool no_io = false;
  /// For check: damage is no reason not to open.
  bool for_repair = false;
  DetectZeroes detect_zeroes = DetectZeroes::kOff;
  bool discard = true;
  /// How many images led to this one by naming it their parent, where a format opens that itself.
  unsigned nesting = 0;
  /// As in OpenOptions.
  Stop* stop = nullptr;
  Stop* let_go = nullptr;
  /// The values of --object secret, by id; for drivers that need a key.
  const std::map<std::string, std::string>* secrets = nullptr;
};

/// How the caller names an image.
struct NodeName {
  /// A file name, a name with a protocol, or "json:{...}"; empty if `options` say all.
  std::string filename = {};
  Options options = Options::object();
  [[nodiscard]] static NodeName of_file(std::string filename, const std::optional<std::string>& format = {});
};

/// A node of an open graph. Its device belongs to the node above, or to the OpenNode.
struct Node {
  std::string driver;
  /// As QEMU shows it: a name, or "json:{...}" where no name says enough.
  std::string filename;
  /// The name if one says enough, else empty.
  std::string exact_filename;
  Options full_options = Options::object();
  BlockDevice* device = nullptr;
  /// Set where the device is of that kind.
  qcow2::Image* qcow2 = nullptr;
  FileDevice* host_file = nullptr;
  crypto::LuksDevice* luks = nullptr;
  /// Whether the format was found by looking at the content.
  bool probed = false;
  bool backing_overridden = false;
  std::unique_ptr<Node> file;  ///< the primary child: "file", or blkdebug's "image"
  std::unique_ptr<Node> data_file;
  std::unique_ptr<Node> backing;
  std::vector<std::unique_ptr<Node>> others;  ///< further files of a format's own, which the device keeps

  /// The directory that relative names are seen from; nothing if the node has none.
  [[nodiscard]] std::optional<std::string> directory() const;
  /// The host file at the bottom of the primary children; null if there is none.
  [[nodiscard]] const FileDevice* lowest_file() const;
};

struct OpenNode {
  std::unique_ptr<BlockDevice> device;
  std::unique_ptr<Node> node;
};

/// Said of images that are opened for writing.
void warn_of_probed_raw(const std::string& filename);

[[nodiscard]] Task<Result<OpenNode>> open_node_task(Ring& ring, NodeName name, NodeFlags flags);
[[nodiscard]] Result<OpenNode> open_node(Ring& ring, const NodeName& name, const NodeFlags& flags);

/// A file name stored in `node`, seen from where the node is. QEMU's message if it cannot be.
[[nodiscard]] Result<std::string> resolve_stored_name(const Node& node, const std::string& stored);
/// The same for a node of which only the name is known.
[[nodiscard]] std::string combine_names(const std::string& base, const std::string& stored);

/// What QEMU's tools print of an error.
[[nodiscard]] std::string tool_text(const Error& error);

}  // namespace whistler

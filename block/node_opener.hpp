// What opening a node consists of: the parts of node.cpp, node_protocols.cpp and node_formats.cpp.
#pragma once

#include <sys/stat.h>

#include <array>
#include <initializer_list>
#include <string>
#include <string_view>

#include "block/node.hpp"
#include "block/node_drivers.hpp"

namespace whistler::node_detail {

inline std::unexpected<Error> refuse(std::string text) { return fail(ErrorCode::kInvalid, std::move(text)); }

/// A chain longer than this is taken to be a ring.
inline constexpr unsigned kMaxDepth = 200;

/// The files of the chain from the top to here.
struct Above {
  const Above* next = nullptr;
  dev_t device = 0;
  ino_t inode = 0;
  unsigned depth = 0;
  /// One more node that is no file.
  [[nodiscard]] static Above one_more(const Above* above) {
    return {.next = above, .depth = above != nullptr ? above->depth + 1 : 1};
  }
};

struct Opener {
  Ring& ring;

  Task<Result<OpenNode>> open(NodeName name, NodeFlags flags, const Above* above);
  Task<Result<OpenNode>> open_protocol(NodeName name, NodeFlags flags, const Above* above);
  Task<Result<OpenNode>> open_file(std::string driver, Options options, NodeFlags flags);
  Task<Result<OpenNode>> open_null(std::string filename, Options options, NodeFlags flags);
  Task<Result<OpenNode>> open_blkdebug(std::string filename, Options options, NodeFlags flags,
                                       const Above* above);
  Task<Result<OpenNode>> open_other_protocol(const ProtocolDriver& driver, std::string filename,
                                             Options options, NodeFlags flags);
  Task<Result<OpenNode>> open_filter(NodeName name, NodeFlags flags, const Above* above);
  Task<Result<OpenNode>> open_format(NodeName name, NodeFlags flags, const Above* above);
  Task<Result<OpenNode>> finish_raw(OpenNode file, Options options, bool probed, NodeFlags flags);
  Task<Result<OpenNode>> finish_qcow2(OpenNode file, Options options, NodeFlags flags, const Above* above);
  Task<Result<OpenNode>> finish_other(const FormatDriver& driver, OpenNode file, Options options,
                                      NodeFlags flags);
  Task<Result<void>> open_data_file(qcow2::Image& image, Node& node, Options& options, NodeFlags flags,
                                    const Above* above);
  Task<Result<void>> open_backing(qcow2::Image& image, Node& node, Options& options, NodeFlags flags,
                                  const Above* above);
};

/// Takes the options every node has out of `options`, into `flags`.
Result<void> take_common(Options& options, NodeFlags& flags);
Result<void> check_unused(const Options& options, std::string_view driver, bool protocol);
void erase_keys(Options& options, std::initializer_list<const char*> keys);
void name_format_node(Node& node, const Options& own, bool plain);
const ProtocolDriver* find_protocol(std::string_view name);
const FormatDriver* find_format(std::string_view name);
/// QEMU would go on until its memory is used up.
Result<void> check_depth(const Above* above);
/// A driver of files and devices of the host.
bool is_host_driver(std::string_view driver);
bool is_protocol(std::string_view driver);
bool is_filter(std::string_view driver);
/// The driver that a name asks for by its prefix.
Result<std::string> driver_of_name(const std::string& filename);
/// The format that the content looks like.
Task<Result<std::string>> probe_format(BlockDevice& file, const std::string& filename);
/// Whether the child `key` of `options` is given as an object or not at all.
Result<void> check_child(const Options& options, const char* key);
Options take_child(Options& options, const char* key);

}  // namespace whistler::node_detail

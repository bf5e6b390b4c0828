// Opens the images an img command was given, and complains as qemu-img does when it cannot.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "block/node.hpp"
#include "tools/tool.hpp"

namespace whistler::tools {

struct ImageArgument {
  std::string name;
  std::string format = {};           ///< empty: looked for
  bool image_opts = false;           ///< `name` is a list of options
  Options more = Options::object();  ///< further options of the node, nested
  bool gives_space_back = false;     ///< without the option `discard` too
};

/// An image of this run. Whoever leaves early has it closed without a word; who wants to know calls
/// close_image().
class OpenImage : public OpenNode {
 public:
  OpenImage() = default;
  /// `ring` outlives it.
  OpenImage(OpenNode opened, Ring& ring) : OpenNode(std::move(opened)), ring_(&ring) {}
  OpenImage(OpenImage&&) = default;
  OpenImage& operator=(OpenImage&& other) noexcept;
  ~OpenImage() { close_quietly(); }

 private:
  void close_quietly() noexcept;

  Ring* ring_ = nullptr;
};

/// The io_uring of this run; null after a complaint.
[[nodiscard]] std::unique_ptr<Ring> make_ring(const Call& call);
[[nodiscard]] std::optional<OpenImage> open_argument(const Call& call, Ring& ring, const ImageArgument& image,
                                                     const NodeFlags& flags);
/// Takes the argument of --object; a complaint and false for what is not understood.
bool add_object(const Call& call, const std::string& text, NodeFlags& flags);
/// The path of a file of the host's, which may be named with its protocol.
[[nodiscard]] std::string host_path(std::string name);
/// Whether both names, of files of the host's, lead to one file.
[[nodiscard]] bool same_file(const std::string& a, const std::string& b);
/// A complaint and false if a new file of that name would empty what `source` is read from.
[[nodiscard]] bool spares_source(const Call& call, const Node& source, const std::string& target);
/// Whether QEMU knows a format of that name.
[[nodiscard]] bool is_format(const std::string& name);
/// Closes; a complaint and false if what was written cannot be made safe.
bool close_image(const Call& call, Ring& ring, OpenNode& image);
/// The node's name and options, to open it once more.
[[nodiscard]] NodeName name_of(const Node& node);

}  // namespace whistler::tools

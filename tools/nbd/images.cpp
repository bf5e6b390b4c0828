#include "tools/nbd/images.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "base/unique_fd.hpp"
#include "block/create.hpp"
#include "block/dirty_bits.hpp"
#include "block/nbd/allocation.hpp"
#include "block/nbd/protocol.hpp"
#include "block/qcow2/bitmaps.hpp"
#include "block/qcow2/image.hpp"

namespace whistler::tools::nbd {

using whistler::nbd::Export;
using whistler::nbd::MetaContext;
using Wanted = whistler::tools::nbd::Options;

namespace {

/// A persistent bitmap, shown as "qemu:dirty-bitmap:NAME".
class BitmapContext final : public MetaContext {
 public:
  BitmapContext(std::shared_ptr<BlockDevice> keep, qcow2::Image& image, std::string name, bool fixed)
      : keep_(std::move(keep)), image_(image), name_(std::move(name)), fixed_(fixed) {}
  [[nodiscard]] std::string name() const override { return std::string(whistler::nbd::kDirtyBitmap) + name_; }
  [[nodiscard]] Task<Result<Extent>> extent(std::uint64_t offset, std::uint64_t bytes) override {
    if (!bits_ || !fixed_) {
      auto content = co_await image_.bitmaps().content(name_);
      if (!content) {
        co_return std::unexpected(content.error());
      }
      bits_ = std::make_unique<DirtyBits>(std::move(*content));
    }
    if (offset >= bits_->disk_bytes()) {
      co_return Extent{bytes, 0};
    }
    const auto stretch = bits_->stretch(offset);
    co_return Extent{std::min(stretch.bytes, bytes), stretch.dirty ? 1U : 0U};
  }

 private:
  std::shared_ptr<BlockDevice> keep_;
  qcow2::Image& image_;
  std::string name_;
  bool fixed_;  ///< nothing writes, so the bits stay as they are
  std::unique_ptr<DirtyBits> bits_;
};

Result<std::shared_ptr<MetaContext>> find_bitmap(Ring& ring, const Node& top,
                                                 const std::shared_ptr<BlockDevice>& device,
                                                 const std::string& name, bool read_only) {
  for (const Node* node = &top; node != nullptr; node = node->backing.get()) {
    if (node->qcow2 == nullptr) {
      continue;
    }
    const auto list = sync_wait(ring, node->qcow2->bitmaps().list());
    if (!list) {
      return std::unexpected(list.error());
    }
    for (const auto& bitmap : *list) {
      if (bitmap.name != name) {
        continue;
      }
      if (bitmap.in_use) {
        return fail(ErrorCode::kInvalid,
                    fmt::format("Bitmap '{}' is inconsistent and cannot be used\n"
                                "Try block-dirty-bitmap-remove to delete this bitmap from disk",
                                name));
      }
      if (read_only && bitmap.enabled && !node->device->read_only()) {  // it would change under the client
        return fail(ErrorCode::kInvalid,
                    fmt::format("Enabled bitmap '{}' incompatible with readonly export", name));
      }
      return std::make_shared<BitmapContext>(device, *node->qcow2, name, read_only || !bitmap.enabled);
    }
  }
  return fail(ErrorCode::kNotFound, fmt::format("Bitmap '{}' is not found", name));
}

/// "snapshot.id=X,snapshot.name=Y" taken apart, or one word that is either.
Result<void> show_snapshot(Ring& ring, const Node& node, const std::string& wanted) {
  if (node.qcow2 == nullptr) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("Failed to load snapshot: Block format '{}' used by device '' does not support "
                            "temporarily loading internal snapshots",
                            node.driver));
  }
  std::string id;
  std::string name;
  bool named = false;
  for (const auto& part : split_commas(wanted)) {
    if (part.starts_with("snapshot.id=")) {
      id = part.substr(12);
      named = true;
    } else if (part.starts_with("snapshot.name=")) {
      name = part.substr(14);
      named = true;
    }
  }
  Result<void> shown = fail(ErrorCode::kNotFound, "");
  if (named) {
    shown = sync_wait(ring, node.qcow2->show_snapshot(id, name));
  } else {
    shown = sync_wait(ring, node.qcow2->show_snapshot(wanted, ""));
    if (!shown && shown.error().code == ErrorCode::kNotFound) {
      shown = sync_wait(ring, node.qcow2->show_snapshot("", wanted));
    }
  }
  if (!shown) {
    return fail(shown.error().code, "Failed to load snapshot: " + (shown.error().code == ErrorCode::kNotFound
                                                                       ? "Can't find snapshot"
                                                                       : tool_text(shown.error())));
  }
  return {};
}

Result<OpenNode> open_named(Ring& ring, const NodeName& name, const std::string& file,
                            const NodeFlags& flags) {
  auto opened = open_node(ring, name, flags);
  if (!opened) {
    auto error = opened.error();
    error.message = fmt::format("Failed to blk_new_open '{}': {}", file, tool_text(error));
    error.brief.clear();
    return std::unexpected(std::move(error));
  }
  return opened;
}

/// A temporary overlay over what `below` is; its file has no name any more when it is open.
Result<OpenNode> open_overlay(Ring& ring, OpenNode below, const NodeFlags& flags) {
  const auto size = below.device->size();
  auto backing = below.node->filename;
  if (!backing.starts_with("json:") && below.node->lowest_file() != nullptr) {
    backing = std::filesystem::absolute(backing).string();
  }
  const auto driver = below.node->driver;
  auto closed = sync_wait(ring, below.device->close());
  if (!closed) {
    return std::unexpected(closed.error());
  }
  const char* folder = std::getenv("TMPDIR");
  std::string path = fmt::format("{}/vl.XXXXXX", folder != nullptr ? folder : "/var/tmp");
  const UniqueFd made(::mkstemp(path.data()));
  if (!made) {
    return fail_errno(errno, fmt::format("Could not get temporary filename: {}", path));
  }
  NewImage image{.path = path, .format = "qcow2", .size = size};
  image.qcow2.backing_file = backing;
  image.qcow2.backing_format = driver;
  auto created = create_image(ring, image);
  Result<OpenNode> opened = created ? open_named(ring, NodeName::of_file(path, "qcow2"), path, flags)
                                    : Result<OpenNode>(std::unexpected(created.error()));
  ::unlink(path.c_str());
  return opened;
}

NodeFlags flags_of(const Wanted& options, bool read_only) {
  return {.read_only = read_only,
          .cache = options.cache,
          .detect_zeroes = options.detect_zeroes,
          .discard = options.discard};
}

Result<OpenNode> open_main(Ring& ring, const Wanted& options) {
  NodeName name;
  if (options.image_opts) {
    auto tree = parse_dotted_options(*options.file, "file");
    if (!tree) {
      return std::unexpected(tree.error());
    }
    name.options = std::move(*tree);
  } else {
    name = NodeName::of_file(*options.file,
                             options.format.empty() ? std::nullopt : std::optional(options.format));
  }
  auto opened =
      open_named(ring, name, *options.file, flags_of(options, options.read_only || options.snapshot));
  if (opened && options.snapshot) {
    opened = open_overlay(ring, std::move(*opened), flags_of(options, false));
  }
  return opened;
}

Export describe(const OpenNode& opened, const std::shared_ptr<BlockDevice>& device, const Wanted& options) {
  Export described;
  described.device = device;
  described.bytes = device->size();
  described.multi_conn = options.shared != 1;
  // A guessed raw disk is asked for whole sectors only, as in QEMU.
  described.min_block =
      std::max(opened.node->probed && opened.node->driver == "raw" ? 512U : 1U, device->request_alignment());
  return described;
}

}  // namespace

Result<Images> open_images(Ring& ring, const Wanted& options) {
  Images images;
  const auto keep = [&](OpenNode& opened) {
    std::shared_ptr<BlockDevice> device = std::move(opened.device);
    images.devices.push_back(device);
    return device;
  };
  if (options.file) {
    auto opened = open_main(ring, options);
    if (!opened) {
      return std::unexpected(opened.error());
    }
    if (!options.load_snapshot.empty()) {
      if (auto ok = show_snapshot(ring, *opened->node, options.load_snapshot); !ok) {
        return std::unexpected(ok.error());
      }
    }
    const auto device = keep(*opened);
    if (options.negative_offset) {
      return fail(ErrorCode::kInvalid,
                  "Parameter 'offset' expects a non-negative number below 2^64\n"
                  "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
                  "and exabytes, respectively.");
    }
    auto described = describe(*opened, device, options);
    if (options.offset > described.bytes) {
      return fail(ErrorCode::kInvalid,
                  fmt::format("Failed to blk_new_open '{}': offset {} has to be smaller or equal to the "
                              "image size {}",
                              *options.file, options.offset, described.bytes));
    }
    described.offset = options.offset;
    described.bytes -= options.offset;
    described.name = options.export_name;
    described.description = options.description;
    described.read_only = options.read_only;
    if (options.allocation_depth) {
      described.contexts.push_back(whistler::nbd::make_allocation_depth(device));
    }
    for (const auto& name : options.bitmaps) {
      auto bitmap = find_bitmap(ring, *opened->node, device, name, options.read_only);
      if (!bitmap) {
        return std::unexpected(bitmap.error());
      }
      described.contexts.push_back(std::move(*bitmap));
    }
    images.exports.push_back(std::move(described));
    images.nodes.push_back(std::move(opened->node));
  }
  for (const auto& text : options.exports) {
    const auto wanted = parse_export(text);
    if (!wanted) {
      return std::unexpected(wanted.error());
    }
    for (const auto& other : images.exports) {
      if (other.name == wanted->name) {
        return fail(ErrorCode::kExists,
                    fmt::format("--export={}: there is an export '{}' already", text, wanted->name));
      }
    }
    const bool read_only = wanted->read_only || options.read_only;
    auto opened =
        open_named(ring,
                   NodeName::of_file(wanted->file,
                                     wanted->format.empty() ? std::nullopt : std::optional(wanted->format)),
                   wanted->file, flags_of(options, read_only));
    if (!opened) {
      return std::unexpected(opened.error());
    }
    auto described = describe(*opened, keep(*opened), options);
    described.name = wanted->name;
    described.description = wanted->description;
    described.read_only = read_only;
    images.exports.push_back(std::move(described));
    images.nodes.push_back(std::move(opened->node));
  }
  return images;
}

Task<Result<void>> close_images(Images images) {
  Result<void> result;
  images.exports.clear();
  for (const auto& device : images.devices) {
    auto closed = co_await device->close();
    if (!closed && result) {
      result = closed;
    }
  }
  co_return result;
}

}  // namespace whistler::tools::nbd

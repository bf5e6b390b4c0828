#include "block/formats/drivers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "block/file.hpp"
#include "block/formats/vdi.hpp"
#include "block/formats/vhd.hpp"
#include "block/formats/vhdx.hpp"
#include "block/formats/vmdk.hpp"
#include "block/open.hpp"

namespace whistler::formats {

namespace {

using Device = std::unique_ptr<BlockDevice>;
using Start = std::span<const std::uint8_t>;

/// Images that name each other as parents end somewhere.
constexpr unsigned kMaxParents = 200;

/// The same error, with what QEMU's tools say of it: they name the image themselves.
Error with_brief(Error error, const std::string& name) {
  if (error.brief.empty() && error.message.starts_with(name + ": ")) {
    error.brief = error.message.substr(name.size() + 2);
  }
  return error;
}

template <typename T>
Result<Device> as_device(Result<std::unique_ptr<T>> image, const std::string& name) {
  if (!image) {
    return std::unexpected(with_brief(std::move(image.error()), name));
  }
  return Device(std::move(*image));
}

int sure(bool is) { return is ? 100 : 0; }

class NodeSiblings final : public SiblingOpener {
 public:
  NodeSiblings(Ring& ring, Node& node, const NodeFlags& flags) : ring_(ring), node_(node), flags_(flags) {}
  [[nodiscard]] Task<Result<Device>> open_sibling(std::string name) override {
    const auto path = resolve_stored_name(node_, name);
    if (!path) {
      co_return std::unexpected(path.error());
    }
    auto file = FileDevice::open(ring_, {.path = *path,
                                         .read_only = true,
                                         .cache = flags_.cache,
                                         .lock = flags_.lock,
                                         .force_share = flags_.force_share});
    if (!file) {
      co_return std::unexpected(file.error());
    }
    auto other = std::make_unique<Node>();
    other->driver = "file";
    other->filename = *path;
    other->exact_filename = *path;
    other->device = file->get();
    other->host_file = file->get();
    node_.others.push_back(std::move(other));
    co_return Device(std::move(*file));
  }

 private:
  Ring& ring_;
  Node& node_;
  const NodeFlags& flags_;
};

class FileSiblings final : public SiblingOpener {
 public:
  FileSiblings(Ring& ring, std::string image, bool allowed)
      : ring_(ring), image_(std::move(image)), allowed_(allowed) {}
  [[nodiscard]] Task<Result<Device>> open_sibling(std::string name) override {
    if (!allowed_) {
      co_return fail(ErrorCode::kPermission,
                     fmt::format("{}: refers to the file '{}', which is not allowed here", image_, name));
    }
    const auto path = resolve_name(image_, name);
    if (!path) {
      co_return std::unexpected(path.error());
    }
    auto file = FileDevice::open(ring_, {.path = *path, .read_only = true});
    if (!file) {
      co_return std::unexpected(file.error());
    }
    co_return Device(std::move(*file));
  }

 private:
  Ring& ring_;
  std::string image_;
  bool allowed_;
};

Task<Result<Device>> open_vdi(Ring&, Device file, Options&, NodeFlags, Node&) {
  const auto name = file->name();
  auto image = co_await VdiImage::open(std::move(file));
  co_return as_device(std::move(image), name);
}

Task<Result<Device>> open_vhd(Ring&, Device file, Options& options, NodeFlags, Node&) {
  const auto name = file->name();
  auto size = VhdSize::kByCreator;
  if (const auto how = option_text(options, "force_size_calc")) {
    if (*how != "auto" && *how != "chs" && *how != "current_size") {
      co_return fail(ErrorCode::kInvalid, fmt::format("Invalid size calculation algorithm"));
    }
    size = *how == "chs" ? VhdSize::kGeometry : *how == "current_size" ? VhdSize::kCurrent : size;
    options.erase("force_size_calc");
  }
  auto image = co_await VhdImage::open(std::move(file), size);
  co_return as_device(std::move(image), name);
}

Task<Result<Device>> open_vhdx(Ring&, Device file, Options&, NodeFlags, Node&) {
  const auto name = file->name();
  auto image = co_await VhdxImage::open(std::move(file), VhdxDirtyLog::kRefuse);
  co_return as_device(std::move(image), name);
}

Task<Result<void>> open_parent(Ring& ring, VmdkImage& image, Options& options, NodeFlags flags, Node& node) {
  const auto stored = image.backing_name();
  const auto given = option_text(options, "backing");
  if (options.contains("backing") && (options["backing"].is_null() || given == "")) {
    options.erase("backing");
    node.backing_overridden = stored.has_value();
    co_return Result<void>{};
  }
  if (!stored || flags.ignore_backing) {
    co_return Result<void>{};
  }
  if (flags.nesting >= kMaxParents) {
    co_return fail(ErrorCode::kInvalid,
                   fmt::format("{}: has more than {} parents", image.name(), kMaxParents));
  }
  const auto path = resolve_stored_name(node, *stored);
  if (!path) {
    co_return std::unexpected(path.error());
  }
  ++flags.nesting;
  flags.read_only = true;
  auto parent = co_await open_node_task(ring, NodeName::of_file(*path, "vmdk"), flags);
  if (!parent) {
    auto error = parent.error();
    error.brief = "Could not open backing file: " + tool_text(error);
    co_return std::unexpected(std::move(error));
  }
  node.backing = std::move(parent->node);
  co_return join_parent(image, std::move(parent->device));
}

Task<Result<Device>> open_vmdk(Ring& ring, Device file, Options& options, NodeFlags flags, Node& node) {
  const auto name = file->name();
  NodeSiblings siblings(ring, node, flags);
  auto image = co_await VmdkImage::open(std::move(file), siblings);
  if (image) {
    auto parent = co_await open_parent(ring, **image, options, flags, node);
    if (!parent) {
      co_return std::unexpected(with_brief(parent.error(), name));
    }
  }
  co_return as_device(std::move(image), name);
}

}  // namespace

std::span<const FormatDriver> drivers() {
  static constexpr std::array kDrivers = {
      FormatDriver{"vdi", [](Start start, std::string_view) { return sure(is_vdi(start)); }, open_vdi},
      FormatDriver{"vmdk", [](Start start, std::string_view) { return sure(is_vmdk(start)); }, open_vmdk},
      FormatDriver{"vpc", [](Start start, std::string_view) { return sure(is_vhd(start)); }, open_vhd},
      FormatDriver{"vhdx", [](Start start, std::string_view) { return sure(is_vhdx(start)); }, open_vhdx},
  };
  return kDrivers;
}

bool is_foreign_format(std::string_view format) {
  return std::any_of(drivers().begin(), drivers().end(),
                     [&](const FormatDriver& driver) { return driver.name == format; });
}

template <typename T>
static Result<std::unique_ptr<Image>> as_image(Result<std::unique_ptr<T>> image) {
  if (!image) {
    return std::unexpected(std::move(image.error()));
  }
  return std::unique_ptr<Image>(std::move(*image));
}

Task<Result<std::unique_ptr<Image>>> open_foreign(Ring& ring, Device file, std::string format,
                                                  bool allow_more) {
  if (format == "vdi") {
    auto image = co_await VdiImage::open(std::move(file));
    co_return as_image(std::move(image));
  }
  if (format == "vpc") {
    auto image = co_await VhdImage::open(std::move(file));
    co_return as_image(std::move(image));
  }
  if (format == "vhdx") {
    auto image = co_await VhdxImage::open(std::move(file));
    co_return as_image(std::move(image));
  }
  FileSiblings siblings(ring, file->name(), allow_more);
  auto image = co_await VmdkImage::open(std::move(file), siblings);
  co_return as_image(std::move(image));
}

Result<void> join_parent(Image& image, std::unique_ptr<BlockDevice> parent) {
  const auto* const child = dynamic_cast<const VmdkImage*>(&image);
  const auto* const above = dynamic_cast<const VmdkImage*>(parent.get());
  if (child != nullptr && above != nullptr && child->descriptor().parent_cid != above->descriptor().cid) {
    return fail(
        ErrorCode::kCorrupt,
        fmt::format(
            "{}: vmdk descriptor: the parent {} has been changed since: its CID is {:08x}, not {:08x}",
            image.name(), above->name(), above->descriptor().cid, child->descriptor().parent_cid));
  }
  image.set_backing(std::move(parent));
  return {};
}

}  // namespace whistler::formats

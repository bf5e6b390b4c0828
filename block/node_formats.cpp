// Opening the nodes that give the bytes below them a meaning, with what else their images name.
#include "block/node_opener.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "block/blkdebug.hpp"
#include "block/node_drivers.hpp"
#include "block/node_encryption.hpp"
#include "block/node_opener.hpp"
#include "block/null_device.hpp"
#include "block/qcow2/image.hpp"
#include "block/qcow2_options.hpp"
#include "block/raw.hpp"
#include "block/write_policy.hpp"

namespace whistler::node_detail {

Task<Result<OpenNode>> Opener::open_format(NodeName name, NodeFlags flags, const Above* above) {
  auto options = std::move(name.options);
  const auto given = option_text(options, "driver");
  if (auto ok = take_common(options, flags); !ok) {
    co_return std::unexpected(ok.error());
  }
  if (auto ok = check_child(options, "file"); !ok) {
    co_return std::unexpected(ok.error());
  }
  auto child = take_child(options, "file");
  if (name.filename.empty() && child.empty()) {
    co_return refuse(given ? "A block device must be specified for \"file\""
                           : "Must specify either driver or file");
  }
  if (!name.filename.empty() && child.contains("filename")) {
    co_return refuse("Can't specify 'file' and 'filename' options at the same time");
  }
  auto below = flags;
  below.detect_zeroes = DetectZeroes::kOff;
  below.discard = true;
  NodeName child_name{name.filename, std::move(child)};  // g++ 12 miscompiles it in the call
  const auto file_place = Above::one_more(above);
  auto file = co_await open_protocol(std::move(child_name), below, &file_place);
  if (!file) {
    co_return file;
  }
  auto driver = given.value_or("");
  if (driver.empty()) {
    auto probed = co_await probe_format(*file->device, file->node->filename);
    if (!probed) {
      co_return std::unexpected(probed.error());
    }
    driver = *probed;
  }
  Above here{.next = above, .depth = above != nullptr ? above->depth + 1 : 0};
  struct stat status{};
  if (const auto* host = file->node->lowest_file();
      host != nullptr && ::stat(host->name().c_str(), &status) == 0) {
    here.device = status.st_dev;
    here.inode = status.st_ino;
    for (const auto* at = above; at != nullptr; at = at->next) {
      if (at->device == here.device && at->inode == here.inode) {
        co_return refuse(
            fmt::format("'{}' is its own backing file, directly or by way of others", file->node->filename));
      }
    }
  }
  Result<OpenNode> opened;
  if (driver == "raw") {
    opened = co_await finish_raw(std::move(*file), std::move(options), !given, flags);
  } else if (driver == "qcow2") {
    opened = co_await finish_qcow2(std::move(*file), std::move(options), flags, &here);
  } else {
    opened = co_await finish_other(*find_format(driver), std::move(*file), std::move(options), flags);
  }
  if (opened) {
    opened->node->probed = !given;
    if (flags.detect_zeroes != DetectZeroes::kOff && !flags.read_only) {
      opened->device = std::make_unique<WritePolicy>(std::move(opened->device), false, flags.detect_zeroes);
    }
  }
  co_return opened;
}

Task<Result<OpenNode>> Opener::finish_raw(OpenNode file, Options options, bool probed, NodeFlags flags) {
  const auto offset = option_size(options, "offset");
  const auto size = option_size(options, "size");
  if (!offset || !size) {
    co_return std::unexpected((!offset ? offset : size).error());
  }
  Options own = Options::object();
  for (const auto* key : {"offset", "size"}) {
    if (options.contains(key)) {
      own[key] = options[key];
      options.erase(key);
    }
  }
  if (auto ok = check_unused(options, "raw", false); !ok) {
    co_return std::unexpected(ok.error());
  }
  const bool window = !own.empty();
  const auto start = offset->value_or(0);
  const auto real = file.device->size();
  if (window && start > real) {
    co_return refuse(
        fmt::format("Offset ({}) cannot be greater than size of the containing file ({})", start, real));
  }
  if (window && *size && real - start < **size) {
    co_return refuse(fmt::format(
        "The sum of offset ({}) and size ({}) has to be smaller or equal to the  actual size of the "
        "containing file ({})",
        start, **size, real));
  }
  if (*size && **size % 512 != 0) {
    co_return refuse("Specified size is not multiple of 512");
  }
  if (probed && !flags.read_only) {
    warn_of_probed_raw(file.node->filename);
  }
  OpenNode opened;
  opened.node = std::make_unique<Node>();
  opened.node->driver = "raw";
  opened.node->file = std::move(file.node);
  name_format_node(*opened.node, own, !window);
  if (window) {
    opened.device =
        std::make_unique<RawDevice>(std::move(file.device), start, size->value_or(real - start) & ~511ULL);
  } else {
    opened.device = std::make_unique<RawDevice>(std::move(file.device));
  }
  opened.node->device = opened.device.get();
  co_return opened;
}

Task<Result<OpenNode>> Opener::finish_qcow2(OpenNode file, Options options, NodeFlags flags,
                                            const Above* above) {
  const auto runtime = take_qcow2_options(options);
  if (!runtime) {
    co_return std::unexpected(runtime.error());
  }
  Options encrypt = take_child(options, "encrypt");
  auto image = co_await qcow2::Image::open(std::move(file.device),
                                           {.read_only = flags.read_only,
                                            .metadata_cache_bytes = runtime->memory_for_l2(),
                                            .discard = flags.discard,
                                            .pass_discards = runtime->pass_discard_request.value_or(true),
                                            .lazy_refcounts = runtime->lazy_refcounts,
                                            .for_repair = flags.for_repair,
                                            .no_io = flags.no_io});
  if (!image) {
    co_return std::unexpected(image.error());
  }
  if (auto ok = check_qcow2_options(*runtime, (*image)->header()); !ok) {
    co_return std::unexpected(ok.error());
  }
  OpenNode opened;
  opened.node = std::make_unique<Node>();
  auto& node = *opened.node;
  node.driver = "qcow2";
  node.file = std::move(file.node);
  node.qcow2 = image->get();
  node.device = image->get();
  Options own = Options::object();
  auto done = co_await unlock_image(**image, std::move(encrypt), flags, own);
  const bool plain = own.empty();
  name_format_node(node, own, plain);
  if (done) {
    done = co_await open_data_file(**image, node, options, flags, above);
  }
  if (done) {
    done = co_await open_backing(**image, node, options, flags, above);
  }
  if (done) {
    done = check_unused(options, "qcow2", false);
  }
  if (done) {
    done = co_await (*image)->prepare();
  }
  if (!done) {
    co_return std::unexpected(done.error());
  }
  name_format_node(node, own, plain);
  opened.device = std::move(*image);
  co_return opened;
}

Task<Result<OpenNode>> Opener::finish_other(const FormatDriver& driver, OpenNode file, Options options,
                                            NodeFlags flags) {
  OpenNode opened;
  opened.node = std::make_unique<Node>();
  opened.node->driver = driver.name;
  opened.node->file = std::move(file.node);
  name_format_node(*opened.node, Options::object(), true);
  auto device = co_await driver.open(ring, std::move(file.device), options, flags, *opened.node);
  if (!device) {
    co_return std::unexpected(device.error());
  }
  if (auto ok = check_unused(options, driver.name, false); !ok) {
    co_return std::unexpected(ok.error());
  }
  opened.device = std::move(*device);
  opened.node->device = opened.device.get();
  co_return opened;
}

Task<Result<void>> Opener::open_data_file(qcow2::Image& image, Node& node, Options& options, NodeFlags flags,
                                          const Above* above) {
  const bool given = options.contains("data-file");
  if (auto ok = check_child(options, "data-file"); !ok) {
    co_return ok;
  }
  auto child = take_child(options, "data-file");
  if (!image.header().geometry().external_data) {
    if (given) {
      co_return refuse("'data-file' can only be set for images with an external data file");
    }
    co_return Result<void>{};
  }
  if (flags.no_io && !given) {
    co_return Result<void>{};
  }
  NodeName name{.options = std::move(child)};
  if (!given) {
    const auto stored = image.header().data_file();
    if (!stored) {
      co_return refuse("'data-file' is required for this image");
    }
    auto resolved = resolve_stored_name(node, *stored);
    if (!resolved) {
      co_return std::unexpected(resolved.error());
    }
    name.options["driver"] = "file";  // the image may be hostile: a file name, and nothing else
    name.options["filename"] = *resolved;
  }
  auto data = co_await open_protocol(std::move(name), flags, above);
  if (!data) {
    co_return std::unexpected(data.error());
  }
  node.data_file = std::move(data->node);
  image.set_data_file(std::move(data->device));
  co_return Result<void>{};
}

Task<Result<void>> Opener::open_backing(qcow2::Image& image, Node& node, Options& options, NodeFlags flags,
                                        const Above* above) {
  const auto found = options.find("backing");
  const bool given = found != options.end();
  if (given && (found->is_null() || (found->is_string() && found->get<std::string>().empty()))) {
    options.erase(found);
    node.backing_overridden = image.header().backing_file.has_value();
    co_return Result<void>{};
  }
  if (auto ok = check_child(options, "backing"); !ok) {
    co_return refuse("Could not open backing file: " + tool_text(ok.error()));
  }
  NodeName name{.options = take_child(options, "backing")};
  if (flags.ignore_backing || (!given && !image.header().backing_file)) {
    co_return Result<void>{};
  }
  const bool named = name.options.contains("file") || name.options.contains("filename") ||
                     option_text(name.options, "driver") == "null-co";
  if (named) {
    node.backing_overridden = true;
    if (name.options.contains("filename") && !name.options.contains("driver")) {
      name.options = {{"file", name.options}};
    }
  } else if (image.header().backing_file) {
    auto resolved = resolve_stored_name(node, *image.header().backing_file);
    if (!resolved) {
      co_return std::unexpected(resolved.error());
    }
    name.filename = *resolved;
    if (const auto format = image.header().backing_format(); format && !name.options.contains("driver")) {
      name.options["driver"] = *format;
    }
  }
  auto below = flags;
  below.read_only = true;
  below.for_repair = false;
  auto backing = co_await open(std::move(name), below, above);
  if (!backing) {
    auto error = backing.error();
    error.brief = "Could not open backing file: " + tool_text(error);
    co_return std::unexpected(std::move(error));
  }
  node.backing = std::move(backing->node);
  image.set_backing(std::move(backing->device));
  co_return Result<void>{};
}

}  // namespace whistler::node_detail

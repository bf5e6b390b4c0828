// Opening the nodes that reach something: a host file, a server, nothing, or another node by way of faults.
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
#include "block/raw.hpp"
#include "block/write_policy.hpp"

namespace whistler::node_detail {

Task<Result<OpenNode>> Opener::open_protocol(NodeName name, NodeFlags flags, const Above* above) {
  if (auto ok = check_depth(above); !ok) {
    co_return std::unexpected(ok.error());
  }
  auto options = std::move(name.options);
  auto filename = std::move(name.filename);
  if (filename.starts_with("json:")) {
    NodeName renamed{std::move(filename), std::move(options)};  // g++ 12 miscompiles it in the call
    auto opened = co_await open(std::move(renamed), flags, above);
    co_return opened;
  }
  auto driver = option_text(options, "driver").value_or("");
  if (driver.empty()) {
    if (filename.empty()) {
      if (!options.contains("filename")) {
        co_return refuse("Must specify either driver or file");
      }
      driver = "file";
    } else {
      auto found = driver_of_name(filename);
      if (!found) {
        co_return std::unexpected(found.error());
      }
      driver = *found;
    }
  } else if (!is_known_driver(driver)) {
    co_return refuse(fmt::format("Unknown driver '{}'", driver));
  }
  if (is_filter(driver)) {
    NodeName renamed{std::move(filename), std::move(options)};  // g++ 12 miscompiles it in the call
    auto opened = co_await open_filter(std::move(renamed), flags, above);
    co_return opened;
  }
  if (!is_protocol(driver)) {                                   // a format as the child of another
    NodeName renamed{std::move(filename), std::move(options)};  // g++ 12 miscompiles it in the call
    auto opened = co_await open_format(std::move(renamed), flags, above);
    co_return opened;
  }
  if (auto ok = take_common(options, flags); !ok) {
    co_return std::unexpected(ok.error());
  }
  if (is_host_driver(driver)) {
    if (!filename.empty()) {
      for (const std::string_view prefix : {"file:", "host_device:", "host_cdrom:"}) {
        if (filename.starts_with(prefix)) {
          filename.erase(0, prefix.size());
          if (has_protocol(filename)) {
            filename.insert(0, "./");  // said again, it must not be taken for one
          }
        }
      }
      options["filename"] = filename;
    }
    auto opened = co_await open_file(driver, std::move(options), flags);
    co_return opened;
  }
  if (driver == "null-co") {
    auto opened = co_await open_null(std::move(filename), std::move(options), flags);
    co_return opened;
  }
  if (driver == "blkdebug") {
    auto opened = co_await open_blkdebug(std::move(filename), std::move(options), flags, above);
    co_return opened;
  }
  auto opened =
      co_await open_other_protocol(*find_protocol(driver), std::move(filename), std::move(options), flags);
  co_return opened;
}

Task<Result<OpenNode>> Opener::open_file(std::string driver, Options options, NodeFlags flags) {
  const auto path = option_text(options, "filename");
  if (!path) {
    co_return refuse(fmt::format("The '{}' block driver requires a file name", driver));
  }
  const auto locking = option_text(options, "locking").value_or("auto");
  if (option_text(options, "aio").value_or("") == "native" && !is_direct(flags.cache)) {
    co_return refuse("aio=native was specified, but it requires cache.direct=on, which was not specified.");
  }
  erase_keys(options, {"filename", "locking", "aio", "aio-max-batch", "drop-cache", "x-check-cache-dropped",
                       "pr-manager", "fat-type"});
  if (auto ok = check_unused(options, "file", true); !ok) {
    co_return std::unexpected(ok.error());
  }
  FileOptions wanted{.path = *path,
                     .read_only = flags.read_only,
                     .cache = flags.cache,
                     .lock = flags.lock && locking != "off",
                     .force_share = flags.force_share,
                     .inline_writes = flags.inline_writes,
                     .driver = driver};
  auto file = co_await open_file_task(ring, std::move(wanted), flags.stop);
  if (!file) {
    co_return std::unexpected(file.error());
  }
  OpenNode opened;
  opened.node = std::make_unique<Node>();
  opened.node->driver = (*file)->is_block_device() ? "host_device" : "file";
  opened.node->filename = *path;
  opened.node->exact_filename = *path;
  opened.node->full_options = {{"driver", opened.node->driver}, {"filename", *path}};
  opened.node->host_file = file->get();
  opened.node->device = file->get();
  opened.device = std::move(*file);
  co_return opened;
}

Task<Result<OpenNode>> Opener::open_null(std::string filename, Options options, NodeFlags flags) {
  if (!filename.empty() && filename != "null-co://") {
    co_return refuse("The only allowed filename for this driver is 'null-co://'");
  }
  auto full = options;
  full["driver"] = "null-co";
  const auto size = option_size(options, "size");
  const auto zeroes = option_flag(options, "read-zeroes", false);
  if (!size || !zeroes) {
    co_return std::unexpected(!size ? size.error() : zeroes.error());
  }
  const bool plain = !options.contains("size") && !options.contains("latency-ns");
  erase_keys(options, {"size", "read-zeroes", "latency-ns"});
  if (auto ok = check_unused(options, "null-co", true); !ok) {
    co_return std::unexpected(ok.error());
  }
  OpenNode opened;
  opened.node = std::make_unique<Node>();
  opened.node->driver = "null-co";
  opened.node->full_options = std::move(full);
  opened.node->exact_filename = plain ? "null-co://" : "";
  opened.node->filename = plain ? "null-co://" : "json:" + print_json(opened.node->full_options, false);
  opened.device = std::make_unique<NullDevice>(size->value_or(NullDevice::kDefaultBytes), *zeroes,
                                               flags.read_only, opened.node->filename);
  opened.node->device = opened.device.get();
  co_return opened;
}

/// Takes "blkdebug:CONFIG:IMAGE" apart.
Result<void> parse_blkdebug_name(std::string_view filename, Options& options, std::string& image) {
  filename.remove_prefix(std::min(filename.size(), std::string_view("blkdebug:").size()));
  const auto colon = filename.find(':');
  if (colon == std::string_view::npos) {
    return refuse("blkdebug requires both config file and image path");
  }
  if (colon != 0) {
    options["config"] = std::string(filename.substr(0, colon));
  }
  image = filename.substr(colon + 1);
  return {};
}

Task<Result<OpenNode>> Opener::open_blkdebug(std::string filename, Options options, NodeFlags flags,
                                             const Above* above) {
  std::string image_name;
  if (filename.starts_with("blkdebug:")) {
    if (auto ok = parse_blkdebug_name(filename, options, image_name); !ok) {
      co_return std::unexpected(ok.error());
    }
  } else {
    image_name = filename;
  }
  if (image_name.empty()) {
    image_name = option_text(options, "x-image").value_or("");
  }
  BlkdebugRules rules;
  const auto config = option_text(options, "config").value_or("");
  if (!config.empty()) {
    std::ifstream file(config);
    std::stringstream text;
    if (!file || !(text << file.rdbuf())) {
      const int error = errno;
      struct stat status{};
      if (!file || ::stat(config.c_str(), &status) != 0 || status.st_size != 0) {
        co_return refuse(fmt::format("Could not read blkdebug config file: {}",
                                     std::generic_category().message(error != 0 ? error : EIO)));
      }
    }
    if (auto ok = parse_blkdebug_config(text.str(), rules); !ok) {
      co_return std::unexpected(ok.error());
    }
  }
  if (auto ok = parse_blkdebug_options(options, rules); !ok) {
    co_return std::unexpected(ok.error());
  }
  if (auto ok = check_child(options, "image"); !ok) {
    co_return std::unexpected(ok.error());
  }
  auto child = take_child(options, "image");
  const bool plain = !options.contains("inject-error") && !options.contains("set-state");
  auto full = options;
  erase_keys(options,
             {"config", "x-image", "inject-error", "set-state", "align", "max-transfer", "opt-write-zero",
              "max-write-zero", "opt-discard", "max-discard", "take-child-perms", "unshare-child-perms"});
  if (auto ok = check_unused(options, "blkdebug", true); !ok) {
    co_return std::unexpected(ok.error());
  }
  if (image_name.empty() && child.empty()) {
    co_return refuse("A block device must be specified for \"image\"");
  }
  NodeName child_name{image_name, std::move(child)};  // g++ 12 miscompiles it in the call
  const auto here = Above::one_more(above);
  auto below = co_await open_protocol(std::move(child_name), flags, &here);
  if (!below) {
    co_return below;
  }
  OpenNode opened;
  opened.node = std::make_unique<Node>();
  auto& node = *opened.node;
  node.driver = "blkdebug";
  node.file = std::move(below->node);
  full["driver"] = "blkdebug";
  full["image"] = node.file->full_options;
  full.erase("x-image");
  node.full_options = std::move(full);
  if (plain && !node.file->exact_filename.empty()) {
    node.exact_filename = fmt::format("blkdebug:{}:{}", config, node.file->exact_filename);
  }
  node.filename =
      node.exact_filename.empty() ? "json:" + print_json(node.full_options, false) : node.exact_filename;
  opened.device = std::make_unique<BlkdebugDevice>(std::move(below->device), std::move(rules));
  node.device = opened.device.get();
  co_return opened;
}

Task<Result<OpenNode>> Opener::open_other_protocol(const ProtocolDriver& driver, std::string filename,
                                                   Options options, NodeFlags flags) {
  OpenNode opened;
  opened.node = std::make_unique<Node>();
  opened.node->driver = driver.name;
  if (!filename.empty()) {
    if (auto ok = driver.parse_filename(filename, options); !ok) {
      co_return std::unexpected(ok.error());
    }
    opened.node->exact_filename = filename;
  }
  opened.node->full_options = options;
  opened.node->full_options["driver"] = driver.name;
  auto device = co_await driver.open(ring, options, flags, *opened.node);
  if (!device) {
    co_return std::unexpected(device.error());
  }
  if (auto ok = check_unused(options, driver.name, true); !ok) {
    co_return std::unexpected(ok.error());
  }
  auto& node = *opened.node;
  node.filename =
      node.exact_filename.empty() ? "json:" + print_json(node.full_options, false) : node.exact_filename;
  opened.device = std::move(*device);
  node.device = opened.device.get();
  co_return opened;
}

}  // namespace whistler::node_detail

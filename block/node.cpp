#include "block/node.hpp"

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

constexpr std::size_t kProbeBytes = 2048;

/// Options every node has.
constexpr std::array<std::string_view, 8> kCommonOptions = {"driver",         "node-name",   "read-only",
                                                            "auto-read-only", "discard",     "detect-zeroes",
                                                            "force-share",    "copy-on-read"};

/// cache.direct and cache.no-flush.
Result<void> take_cache_options(Options& options, NodeFlags& flags) {
  const auto found = options.find("cache");
  if (found == options.end() || !found->is_object()) {
    return {};
  }
  Options named = Options::object();  // a complaint gives the whole name
  for (const auto& [key, value] : found->items()) {
    named["cache." + key] = value;
  }
  const auto direct = option_flag(named, "cache.direct", is_direct(flags.cache));
  const auto no_flush = option_flag(named, "cache.no-flush", flags.cache == CacheMode::kUnsafe);
  if (!direct || !no_flush) {
    return std::unexpected((direct ? no_flush : direct).error());
  }
  const bool through = is_writethrough(flags.cache);
  if (*direct) {
    flags.cache = through ? CacheMode::kDirectsync : CacheMode::kNone;
  } else if (*no_flush) {
    flags.cache = CacheMode::kUnsafe;
  } else {
    flags.cache = through ? CacheMode::kWritethrough : CacheMode::kWriteback;
  }
  found->erase("direct");
  found->erase("no-flush");
  if (found->empty()) {
    options.erase(found);
  }
  return {};
}

Result<void> take_common(Options& options, NodeFlags& flags) {
  const auto read_only = option_flag(options, "read-only", flags.read_only);
  const auto automatic =
      option_flag(options, "auto-read-only", false);  // without effect: files stay as asked
  const auto force_share = option_flag(options, "force-share", flags.force_share);
  for (const auto* given : {&read_only, &automatic, &force_share}) {
    if (!*given) {
      return std::unexpected(given->error());
    }
  }
  flags.read_only = *read_only;
  flags.force_share = *force_share;
  if (flags.force_share && !flags.read_only) {
    return refuse("force-share=on can only be used with read-only images");
  }
  if (const auto discard = option_text(options, "discard")) {
    flags.discard = *discard == "unmap" || *discard == "on";
    if (!flags.discard && *discard != "ignore" && *discard != "off") {
      return refuse("Invalid discard option");
    }
  }
  if (auto ok = take_cache_options(options, flags); !ok) {
    return ok;
  }
  if (const auto detect = option_text(options, "detect-zeroes")) {
    if (*detect != "unmap" && *detect != "on" && *detect != "off") {
      return refuse(fmt::format("invalid parameter value: {}", *detect));
    }
    flags.detect_zeroes = *detect == "unmap" ? DetectZeroes::kUnmap
                          : *detect == "on"  ? DetectZeroes::kOn
                                             : DetectZeroes::kOff;
  }
  for (const auto key : kCommonOptions) {
    options.erase(std::string(key));
  }
  return {};
}

/// After the driver has taken its own options: QEMU's complaint about what is left.
Result<void> check_unused(const Options& options, std::string_view driver, bool protocol) {
  if (options.empty()) {
    return {};
  }
  std::string key = options.begin().key();
  for (const Options* at = &options.begin().value(); at->is_object() && !at->empty();
       at = &at->begin().value()) {
    key += "." + at->begin().key();
  }
  return refuse(protocol ? fmt::format("Block protocol '{}' doesn't support the option '{}'", driver, key)
                         : fmt::format("Block format '{}' does not support the option '{}'", driver, key));
}

void erase_keys(Options& options, std::initializer_list<const char*> keys) {
  for (const auto* key : keys) {
    options.erase(key);
  }
}

/// Names the node after its options, or after its file where that says enough.
void name_format_node(Node& node, const Options& own, bool plain) {
  node.full_options = own;
  node.full_options["driver"] = node.driver;
  node.full_options["file"] = node.file->full_options;
  if (node.backing_overridden) {
    if (node.backing) {
      node.full_options["backing"] = node.backing->full_options;
    } else {
      node.full_options["backing"] = nullptr;
    }
  }
  node.exact_filename = plain && !node.backing_overridden ? node.file->exact_filename : "";
  node.filename =
      node.exact_filename.empty() ? "json:" + print_json(node.full_options, false) : node.exact_filename;
}

const ProtocolDriver* find_protocol(std::string_view name) {
  for (const auto& driver : protocol_drivers()) {
    if (driver.name == name) {
      return &driver;
    }
  }
  return nullptr;
}

const FormatDriver* find_format(std::string_view name) {
  for (const auto& driver : format_drivers()) {
    if (driver.name == name) {
      return &driver;
    }
  }
  return nullptr;
}

Result<void> check_depth(const Above* above) {
  return above != nullptr && above->depth > kMaxDepth
             ? Result<void>(refuse(fmt::format(
                   "More than {} nodes stand on each other, or the chain comes back to itself", kMaxDepth)))
             : Result<void>{};
}

bool is_host_driver(std::string_view driver) {
  return driver == "file" || driver == "host_device" || driver == "host_cdrom";
}

bool is_protocol(std::string_view driver) {
  return is_host_driver(driver) || driver == "null-co" || driver == "blkdebug" ||
         find_protocol(driver) != nullptr;
}

/// The driver of a file name: by its protocol, else "file".
Result<std::string> driver_of_name(const std::string& filename) {
  if (!has_protocol(filename)) {
    struct stat status{};
    const bool block = ::stat(filename.c_str(), &status) == 0 && S_ISBLK(status.st_mode);
    return block ? "host_device" : "file";
  }
  const auto protocol = protocol_of(filename);
  if (is_host_driver(protocol) || protocol == "blkdebug" || protocol == "null-co") {
    return std::string(protocol);
  }
  for (const auto& driver : protocol_drivers()) {
    std::istringstream prefixes{std::string(driver.prefixes)};
    for (std::string prefix; prefixes >> prefix;) {
      if (prefix == protocol) {
        return std::string(driver.name);
      }
    }
  }
  return refuse(fmt::format("Unknown protocol '{}'", printable(protocol)));
}

Task<Result<std::string>> probe_format(BlockDevice& file, const std::string& filename) {
  std::array<std::uint8_t, kProbeBytes> start{};
  const auto bytes = static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), start.size()));
  const iovec vec{start.data(), bytes};
  if (bytes != 0) {
    auto read = co_await file.readv(0, {&vec, 1});
    if (!read) {
      auto error = read.error();
      error.brief = "Could not read image for determining its format: " +
                    std::generic_category().message(error.sys_errno != 0 ? error.sys_errno : EIO);
      co_return std::unexpected(std::move(error));
    }
  }
  if (bytes >= 8 && load_be<std::uint32_t>(start.data()) == qcow2::kMagic &&
      load_be<std::uint32_t>(&start[4]) >= 2) {
    co_return "qcow2";
  }
  std::string best = "raw";
  int best_score = 1;
  for (const auto& driver : format_drivers()) {
    const auto score = driver.probe != nullptr ? driver.probe({start.data(), bytes}, filename) : 0;
    if (score > best_score) {
      best_score = score;
      best = driver.name;
    }
  }
  co_return best;
}

/// QEMU's complaint where a driver needs a child and got none, or a reference to a node elsewhere.
Result<void> check_child(const Options& options, const char* key) {
  const auto found = options.find(key);
  if (found != options.end() && found->is_string()) {
    const auto name = found->get<std::string>();
    return refuse(fmt::format("Cannot find device='{}' nor node-name='{}'", name, name));
  }
  return {};
}

Options take_child(Options& options, const char* key) {
  Options child = Options::object();
  if (const auto found = options.find(key); found != options.end()) {
    child = *found;
    options.erase(found);
  }
  return child;
}

Task<Result<OpenNode>> Opener::open(NodeName name, NodeFlags flags, const Above* above) {
  if (auto ok = check_depth(above); !ok) {
    co_return std::unexpected(ok.error());
  }
  if (name.filename.starts_with("json:")) {
    auto parsed = parse_json_name(name.filename);
    if (!parsed) {
      co_return std::unexpected(parsed.error());
    }
    parsed->update(name.options);
    name.options = std::move(*parsed);
    name.filename.clear();
  }
  const auto driver = option_text(name.options, "driver");
  if (driver && !is_known_driver(*driver)) {
    co_return refuse(fmt::format("Unknown driver '{}'", printable(*driver)));
  }
  if (driver && is_protocol(*driver)) {
    auto opened = co_await open_protocol(std::move(name), flags, above);
    co_return opened;
  }
  if (driver && is_filter(*driver)) {
    auto opened = co_await open_filter(std::move(name), flags, above);
    co_return opened;
  }
  auto opened = co_await open_format(std::move(name), flags, above);
  co_return opened;
}

}  // namespace whistler::node_detail

namespace whistler {

using namespace node_detail;

NodeName NodeName::of_file(std::string filename, const std::optional<std::string>& format) {
  NodeName name{.filename = std::move(filename)};
  if (format) {
    name.options["driver"] = *format;
  }
  return name;
}

std::optional<std::string> Node::directory() const {
  if (host_file != nullptr) {
    const auto slash = exact_filename.rfind('/');
    return slash == std::string::npos ? "" : exact_filename.substr(0, slash + 1);
  }
  return file ? file->directory() : std::nullopt;
}

const FileDevice* Node::lowest_file() const {
  return host_file != nullptr || !file ? host_file : file->lowest_file();
}

std::string combine_names(const std::string& base, const std::string& stored) {
  if (stored.starts_with('/') || has_protocol(stored)) {
    return stored;
  }
  const auto start = has_protocol(base) ? base.find(':') + 1 : 0;
  const auto slash = base.rfind('/');
  const auto end = slash == std::string::npos || slash < start ? start : slash + 1;
  return base.substr(0, end) + stored;
}

Result<std::string> resolve_stored_name(const Node& node, const std::string& stored) {
  if (stored.starts_with('/') || has_protocol(stored)) {
    return stored;
  }
  if (const auto directory = node.directory()) {
    return *directory + stored;
  }
  if (node.exact_filename.empty()) {
    return refuse(fmt::format("Cannot use relative backing file names for '{}'", node.filename));
  }
  return combine_names(node.exact_filename, stored);
}

std::string tool_text(const Error& error) { return error.brief.empty() ? error.message : error.brief; }

void warn_of_probed_raw(const std::string& filename) {
  fmt::print(stderr,
             "WARNING: Image format was not specified for '{}' and probing guessed raw.\n"
             "         Automatically detecting the format is dangerous for raw images, write operations on "
             "block 0 will be restricted.\n"
             "         Specify the 'raw' format explicitly to remove the restrictions.\n",
             filename);
}

Task<Result<OpenNode>> open_node_task(Ring& ring, NodeName name, NodeFlags flags) {
  Opener opener{ring};
  auto opened = co_await opener.open(std::move(name), flags, nullptr);
  if (opened && is_writethrough(flags.cache) && !flags.read_only) {
    opened->device = std::make_unique<WritePolicy>(std::move(opened->device), true, DetectZeroes::kOff);
  }
  co_return opened;
}

Result<OpenNode> open_node(Ring& ring, const NodeName& name, const NodeFlags& flags) {
  return sync_wait(ring, open_node_task(ring, name, flags));
}

}  // namespace whistler

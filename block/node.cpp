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
#include "block/null_device.hpp"
#include "block/qcow2/image.hpp"
#include "block/raw.hpp"
#include "block/write_policy.hpp"

namespace whistler {

namespace {

using Device = std::unique_ptr<BlockDevice>;

/// A chain longer than this is taken to be a ring.
constexpr unsigned kMaxDepth = 200;
constexpr std::size_t kProbeBytes = 2048;

std::unexpected<Error> refuse(std::string text) { return fail(ErrorCode::kInvalid, std::move(text)); }

/// The files of the chain from the top to here.
struct Above {
  const Above* next = nullptr;
  dev_t device = 0;
  ino_t inode = 0;
  unsigned depth = 0;
};

struct Opener {
  Ring& ring;

  Task<Result<OpenNode>> open(NodeName name, NodeFlags flags, const Above* above);
  Task<Result<OpenNode>> open_protocol(NodeName name, NodeFlags flags, const Above* above);
  Task<Result<OpenNode>> open_file(Options options, NodeFlags flags);
  Task<Result<OpenNode>> open_null(std::string filename, Options options, NodeFlags flags);
  Task<Result<OpenNode>> open_blkdebug(std::string filename, Options options, NodeFlags flags,
                                       const Above* above);
  Task<Result<OpenNode>> open_other_protocol(const ProtocolDriver& driver, std::string filename,
                                             Options options, NodeFlags flags);
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

/// Options every node has.
constexpr std::array<std::string_view, 9> kCommonOptions = {"driver",         "node-name",   "read-only",
                                                            "auto-read-only", "discard",     "detect-zeroes",
                                                            "cache",          "force-share", "copy-on-read"};

Result<void> take_common(Options& options, NodeFlags& flags) {
  const auto read_only = option_flag(options, "read-only", flags.read_only);
  const auto force_share = option_flag(options, "force-share", flags.force_share);
  if (!read_only || !force_share) {
    return std::unexpected((read_only ? force_share : read_only).error());
  }
  flags.read_only = *read_only;
  flags.force_share = *force_share;
  if (const auto discard = option_text(options, "discard")) {
    flags.discard = *discard == "unmap" || *discard == "on";
    if (!flags.discard && *discard != "ignore" && *discard != "off") {
      return refuse("Invalid discard option");
    }
  }
  if (const auto found = options.find("cache"); found != options.end() && found->is_object()) {
    const auto direct = option_flag(*found, "direct", is_direct(flags.cache));
    const auto no_flush = option_flag(*found, "no-flush", flags.cache == CacheMode::kUnsafe);
    if (!direct || !no_flush) {
      return std::unexpected((direct ? no_flush : direct).error());
    }
    flags.cache = *direct ? (is_writethrough(flags.cache) ? CacheMode::kDirectsync : CacheMode::kNone)
                          : (*no_flush ? CacheMode::kUnsafe : flags.cache);
  }
  if (const auto detect = option_text(options, "detect-zeroes")) {
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

bool is_protocol(std::string_view driver) {
  return driver == "file" || driver == "host_device" || driver == "null-co" || driver == "blkdebug" ||
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
  if (protocol == "file" || protocol == "blkdebug" || protocol == "null-co" || protocol == "host_device") {
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
  return refuse(fmt::format("Unknown protocol '{}'", protocol));
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
  if (above != nullptr && above->depth > kMaxDepth) {
    co_return refuse("The backing chain is too long, or comes back to itself");
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
    co_return refuse(fmt::format("Unknown driver '{}'", *driver));
  }
  if (driver && is_protocol(*driver)) {
    auto opened = co_await open_protocol(std::move(name), flags, above);
    co_return opened;
  }
  auto opened = co_await open_format(std::move(name), flags, above);
  co_return opened;
}

Task<Result<OpenNode>> Opener::open_protocol(NodeName name, NodeFlags flags, const Above* above) {
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
  if (!is_protocol(driver)) {                                   // a format as the child of another
    NodeName renamed{std::move(filename), std::move(options)};  // g++ 12 miscompiles it in the call
    auto opened = co_await open_format(std::move(renamed), flags, above);
    co_return opened;
  }
  if (auto ok = take_common(options, flags); !ok) {
    co_return std::unexpected(ok.error());
  }
  if (driver == "file" || driver == "host_device") {
    if (!filename.empty()) {
      for (const std::string_view prefix : {"file:", "host_device:"}) {
        if (filename.starts_with(prefix)) {
          filename.erase(0, prefix.size());
        }
      }
      options["filename"] = filename;
    }
    auto opened = co_await open_file(std::move(options), flags);
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

Task<Result<OpenNode>> Opener::open_file(Options options, NodeFlags flags) {
  const auto path = option_text(options, "filename");
  if (!path) {
    co_return refuse("The 'file' block driver requires a file name");
  }
  const auto locking = option_text(options, "locking").value_or("auto");
  erase_keys(options, {"filename", "locking", "aio", "aio-max-batch", "drop-cache", "x-check-cache-dropped",
                       "pr-manager", "fat-type"});
  if (auto ok = check_unused(options, "file", true); !ok) {
    co_return std::unexpected(ok.error());
  }
  auto file = FileDevice::open(ring, {.path = *path,
                                      .read_only = flags.read_only,
                                      .cache = flags.cache,
                                      .lock = flags.lock && locking != "off",
                                      .force_share = flags.force_share,
                                      .inline_writes = flags.inline_writes});
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
  auto below = co_await open_protocol(std::move(child_name), flags, above);
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
  auto below = flags;
  below.detect_zeroes = DetectZeroes::kOff;
  below.discard = true;
  NodeName child_name{name.filename, std::move(child)};  // g++ 12 miscompiles it in the call
  auto file = co_await open_protocol(std::move(child_name), below, above);
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
    fmt::print(stderr,
               "WARNING: Image format was not specified for '{}' and probing guessed raw.\n"
               "         Automatically detecting the format is dangerous for raw images, write operations "
               "on block 0 will be restricted.\n"
               "         Specify the 'raw' format explicitly to remove the restrictions.\n",
               file.node->filename);
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
  const auto cache = option_size(options, "l2-cache-size");
  const auto total = option_size(options, "cache-size");
  if (!cache || !total) {
    co_return std::unexpected((!cache ? cache : total).error());
  }
  erase_keys(options, {"l2-cache-size", "cache-size", "refcount-cache-size", "l2-cache-entry-size",
                       "cache-clean-interval", "lazy-refcounts", "overlap-check", "pass-discard-request",
                       "pass-discard-snapshot", "pass-discard-other", "discard-no-unref"});
  Options encrypt = take_child(options, "encrypt");
  auto image = co_await qcow2::Image::open(std::move(file.device),
                                           {.read_only = flags.read_only,
                                            .metadata_cache_bytes = cache->value_or(total->value_or(0)),
                                            .discard = flags.discard,
                                            .for_repair = flags.for_repair,
                                            .no_io = flags.no_io});
  if (!image) {
    co_return std::unexpected(image.error());
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
    co_return ok;
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
  below.no_io = false;
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

}  // namespace

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

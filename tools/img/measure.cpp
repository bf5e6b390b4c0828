// img measure: how much space an image would need.
#include <fmt/format.h>

#include <algorithm>

#include "base/bytes.hpp"
#include "block/chain_status.hpp"
#include "block/node_drivers.hpp"
#include "block/qcow2/bitmaps.hpp"
#include "block/qcow2/image.hpp"
#include "tools/img/commands.hpp"
#include "tools/img/encryption.hpp"
#include "tools/img/new_qcow2.hpp"
#include "tools/img/opening.hpp"
#include "tools/img/options.hpp"
#include "tools/img/target.hpp"
#include "tools/img/wanted_snapshot.hpp"

namespace whistler::tools {

namespace {

struct Needs {
  std::uint64_t required = 0;
  std::uint64_t fully_allocated = 0;
  std::optional<std::uint64_t> bitmaps = {};
};

std::uint64_t divide_up(std::uint64_t number, std::uint64_t by) {
  return number / by + (number % by != 0 ? 1 : 0);
}

/// Bytes of the refcount structures of a file that has `clusters` others.
std::uint64_t refcount_bytes(std::uint64_t clusters, std::uint64_t cluster, std::uint64_t refcount_bits) {
  const auto per_block = cluster * 8 / refcount_bits;
  std::uint64_t blocks = 0;
  std::uint64_t tables = 0;
  for (std::uint64_t last = ~std::uint64_t{0}; last != blocks + tables;) {
    last = blocks + tables;
    blocks = divide_up(clusters + tables + blocks, per_block);
    tables = divide_up(blocks, cluster / 8);
  }
  return (blocks + tables) * cluster;
}

/// Bytes of a qcow2 file whose disk is allocated throughout.
std::uint64_t full_qcow2_bytes(std::uint64_t size, std::uint64_t cluster, std::uint64_t refcount_bits,
                               bool extended) {
  const std::uint64_t entry = extended ? 16 : 8;
  const auto data = align_up(size, cluster);
  const auto l2_entries = align_up(data / cluster, cluster / entry);
  const auto l1_entries = align_up(l2_entries * entry / cluster, cluster / 8);
  const auto tables = cluster + l2_entries * entry + l1_entries * 8;
  return tables + refcount_bytes((tables + data) / cluster, cluster, refcount_bits) + data;
}

/// Bytes of the clusters that hold data of `device`.
Result<std::uint64_t> data_bytes(Ring& ring, BlockDevice& device, std::uint64_t cluster) {
  std::uint64_t sum = 0;
  for (std::uint64_t at = 0; at < device.size();) {
    const auto ask = std::min<std::uint64_t>(std::uint64_t{1} << 30, device.size() - at);
    const auto status = sync_wait(ring, chain_status(device, nullptr, at, ask));
    if (!status) {
      return std::unexpected(status.error());
    }
    auto bytes = status->bytes;
    if (status->data) {
      bytes = align_up(at + bytes, cluster) - at;
      sum += at % cluster + bytes;
    }
    at += bytes;
  }
  return sum;
}

Result<std::optional<std::uint64_t>> bitmap_bytes(Ring& ring, const Node& node, std::uint64_t cluster) {
  if (node.qcow2 == nullptr || node.qcow2->header().version < 3) {
    return std::nullopt;
  }
  const auto bitmaps = sync_wait(ring, node.qcow2->bitmaps().list());
  if (!bitmaps) {
    return std::unexpected(bitmaps.error());
  }
  std::uint64_t sum = 0;
  std::uint64_t directory = 0;
  for (const auto& bitmap : *bitmaps) {
    if (bitmap.in_use) {
      continue;
    }
    const auto bits = divide_up(node.device->size(), bitmap.granularity);
    const auto clusters = divide_up(divide_up(bits, 8), cluster);
    sum += (clusters + divide_up(clusters * 8, cluster)) * cluster;
    directory += align_up(24 + bitmap.name.size(), 8);
  }
  return sum + align_up(directory, cluster);
}

/// Bytes of the LUKS header inside a qcow2 file made with these options.
Result<std::uint64_t> crypto_header_bytes(const Options& values) {
  if (option_text(values, "encrypt.format") != "luks") {
    return std::uint64_t{0};
  }
  auto without_alias = values;
  without_alias.erase("encryption");
  const auto encryption = read_encryption(without_alias);
  if (!encryption) {
    return std::unexpected(encryption.error());
  }
  return crypto::Luks::payload_offset((*encryption)->luks);
}

Result<Needs> measure_qcow2(Ring& ring, const OpenNode* source, const Options& values, std::uint64_t size) {
  if (auto ok = check_measured_values(values); !ok) {
    return std::unexpected(ok.error());
  }
  const auto header = crypto_header_bytes(values);
  if (!header) {
    return std::unexpected(header.error());
  }
  if (auto ok = check_measured_size(values, size); !ok) {
    return std::unexpected(ok.error());
  }
  const auto cluster = option_size(values, "cluster_size").value_or(std::nullopt).value_or(65536);
  const auto refcount_bits = option_size(values, "refcount_bits").value_or(std::nullopt).value_or(16);
  const bool extended = option_flag(values, "extended_l2", false).value_or(false);
  const auto preallocation = option_text(values, "preallocation").value_or("off");
  std::uint64_t required = 0;
  Needs needs;
  if (source != nullptr) {
    const auto bytes = data_bytes(ring, *source->device, cluster);
    if (!bytes) {
      return std::unexpected(bytes.error());
    }
    // Over a backing file, which parts the target must hold is not known.
    required = values.contains("backing_file") ? align_up(size, cluster) : *bytes;
    auto bitmaps = bitmap_bytes(ring, *source->node, cluster);
    if (!bitmaps) {
      return std::unexpected(bitmaps.error());
    }
    needs.bitmaps =
        parse_qcow2_version(option_text(values, "compat").value_or("v3")) == 3 ? *bitmaps : std::nullopt;
  }
  if (preallocation == "full" || preallocation == "falloc") {
    required = align_up(size, cluster);
  }
  needs.fully_allocated =
      full_qcow2_bytes(size, cluster, refcount_bits, extended) + align_up(*header, cluster);
  needs.required = needs.fully_allocated - align_up(size, cluster) + required;
  return needs;
}

Result<Needs> measure_luks(const Options& values, std::uint64_t size) {
  const auto header = luks_header_bytes(values);
  if (!header) {
    return std::unexpected(header.error());
  }
  return Needs{.required = *header + size, .fully_allocated = *header + size};
}

struct MeasureSettings {
  ImageArgument image;
  NodeFlags flags;
  std::string format = "raw";
  std::vector<std::string> options;
  std::optional<std::uint64_t> size;
  std::optional<WantedSnapshot> snapshot;
  bool json = false;
};

int measure(const Call& call, Ring& ring, const MeasureSettings& settings, const OpenNode* source) {
  const NewTarget target{.path = "", .format = settings.format, .options = settings.options};
  std::vector<OptionSpec> specs;
  const auto values = read_target_options(target, specs);
  if (!values) {
    complain(call, tool_text(values.error()));
    if (is_creatable(settings.format)) {
      complain(call, fmt::format("Invalid options for file format '{}'", settings.format));
    }
    return 1;
  }
  auto size = source != nullptr ? source->device->size() : settings.size.value_or(0);
  size = align_up(size, 512);
  Result<Needs> needs = Needs{.required = size, .fully_allocated = size};
  if (settings.format == "qcow2") {
    needs = measure_qcow2(ring, source, *values, size);
  } else if (settings.format == "luks") {
    needs = measure_luks(*values, source != nullptr ? size : settings.size.value_or(0));
  } else if (settings.format != "raw" && settings.format != "file") {
    complain(call, fmt::format("Block driver '{}' does not support size measurement", settings.format));
    return 1;
  }
  if (!needs) {
    complain(call, tool_text(needs.error()));
    return 1;
  }
  if (settings.json) {
    Options out = {{"required", needs->required}, {"fully-allocated", needs->fully_allocated}};
    if (needs->bitmaps) {
      out["bitmaps"] = *needs->bitmaps;
    }
    fmt::print("{}\n", print_json(out, true));
    return 0;
  }
  fmt::print("required size: {}\nfully allocated size: {}\n", needs->required, needs->fully_allocated);
  if (needs->bitmaps) {
    fmt::print("bitmaps size: {}\n", *needs->bitmaps);
  }
  return 0;
}

}  // namespace

int img_measure(const Call& call) {
  static const option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                  {"image-opts", no_argument, nullptr, kImageOpts},
                                  {"object", required_argument, nullptr, kObject},
                                  {"output", required_argument, nullptr, kOutput},
                                  {"size", required_argument, nullptr, kSize},
                                  {"force-share", no_argument, nullptr, 'U'},
                                  {nullptr, 0, nullptr, 0}};
  MeasureSettings settings;
  std::string output = "human";
  OptionReader reader(call, "hf:l:o:O:U", kLongs);
  for (int code = reader.next(); code != -1; code = reader.next()) {
    switch (code) {
      case 'h': return img_help(call);
      case 'f': settings.image.format = reader.argument(); break;
      case 'l':
        settings.snapshot = read_wanted_snapshot(call, reader.argument());
        if (!settings.snapshot) {
          return 1;
        }
        break;
      case 'o':
        if (!is_option_list(reader.argument())) {
          complain(call, fmt::format("Invalid option list: {}", reader.argument()));
          return 1;
        }
        settings.options.push_back(reader.argument());
        break;
      case 'O': settings.format = reader.argument(); break;
      case 'U': settings.flags.force_share = true; break;
      case kOutput:
        output = reader.argument();
        if (output != "human" && output != "json") {
          complain(call, "--output must be used with human or json as argument.");
          return 1;
        }
        break;
      case kSize:
        settings.size = parse_number(call, "image size", reader.argument());
        if (!settings.size) {
          return 1;
        }
        break;
      case kImageOpts: settings.image.image_opts = true; break;
      default:
        if (!add_object(call, reader.argument(), settings.flags)) {
          return 1;
        }
    }
  }
  if (reader.failed()) {
    return 1;
  }
  settings.json = output == "json";
  const auto operands = reader.operands();
  if (operands.size() > 1) {
    complain(call, "At most one filename argument is allowed.");
    return 1;
  }
  if (operands.empty() &&
      (settings.image.image_opts || !settings.image.format.empty() || settings.snapshot)) {
    complain(call, "--image-opts, -f, and -l require a filename argument.");
    return 1;
  }
  if (operands.empty() && !settings.size) {
    complain(call, "Either --size N or one filename must be specified.");
    return 1;
  }
  if (!operands.empty() && settings.size) {
    complain(call, "--size N cannot be used together with a filename.");
    return 1;
  }
  const auto ring = make_ring(call);
  if (!ring) {
    return 1;
  }
  std::optional<OpenImage> source;
  if (!operands.empty()) {
    settings.image.name = operands[0];
    source = open_argument(call, *ring, settings.image, settings.flags);
    if (!source) {
      return 1;
    }
    if (settings.snapshot && !show_wanted_snapshot(call, *ring, *source->node, *settings.snapshot)) {
      return 1;
    }
  }
  return measure(call, *ring, settings, source ? &*source : nullptr);
}

}  // namespace whistler::tools

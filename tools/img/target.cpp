#include "tools/img/target.hpp"

#include <fmt/format.h>

#include "block/create.hpp"
#include "block/node_options.hpp"

namespace whistler::tools {

bool is_creatable(const std::string& format) { return format == "raw" || format == "qcow2"; }

namespace {

Result<void> take_option(const std::string& key, const std::string& value, NewImage& image) {
  auto& qcow2 = image.qcow2;
  if (key == "size") {
    const auto size = parse_size_text(value);
    if (!size) {
      return std::unexpected(size.error());
    }
    image.size = *size;
  } else if (key == "compat") {
    qcow2.version = value == "0.10" || value == "v2" ? 2 : 3;
  } else if (key == "cluster_size") {
    const auto size = parse_size_text(value);
    if (!size) {
      return std::unexpected(size.error());
    }
    qcow2.cluster_size = *size;
  } else if (key == "refcount_bits") {
    qcow2.refcount_bits = static_cast<unsigned>(std::strtoul(value.c_str(), nullptr, 0));
  } else if (key == "lazy_refcounts") {
    qcow2.lazy_refcounts = value == "on";
  } else if (key == "extended_l2") {
    qcow2.extended_l2 = value == "on";
  } else if (key == "compression_type") {
    qcow2.compression = value == "zstd" ? qcow2::Compression::kZstd : qcow2::Compression::kZlib;
  } else if (key == "backing_file") {
    qcow2.backing_file = value;
  } else if (key == "backing_fmt") {
    qcow2.backing_format = value;
  } else if (key == "data_file") {
    qcow2.data_file = value;
  } else if (key == "data_file_raw") {
    qcow2.data_file_raw = value == "on";
  } else {
    return fail(ErrorCode::kInvalid, fmt::format("Invalid parameter '{}'", key));
  }
  return {};
}

}  // namespace

Result<void> create_target(Ring& ring, const NewTarget& target) {
  NewImage image{.path = target.path, .format = target.format, .size = target.size};
  image.qcow2.backing_file = target.backing_file;
  image.qcow2.backing_format = target.backing_format;
  for (const auto& text : target.options) {
    const auto options = parse_dotted_options(text);
    if (!options) {
      return std::unexpected(options.error());
    }
    for (const auto& [key, value] : options->items()) {
      auto taken = take_option(key, option_text(*options, key).value_or(""), image);
      if (!taken) {
        return taken;
      }
    }
  }
  return create_image(ring, image);
}

}  // namespace whistler::tools

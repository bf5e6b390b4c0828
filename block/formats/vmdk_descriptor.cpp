#include "block/formats/vmdk_descriptor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace whistler::formats {

namespace {

constexpr std::uint64_t kMaxSectors = std::uint64_t{1} << 53;
/// 8 TiB in files of 2 GiB, the largest disk of VMware's programs that splits them.
constexpr std::size_t kMaxExtents = 4096;

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r";
  const auto first = text.find_first_not_of(kSpace);
  return first == std::string_view::npos ? std::string_view()
                                         : text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

/// Takes the first word off `text`.
std::string_view next_word(std::string_view& text) {
  text = trimmed(text);
  const auto end = std::min(text.find_first_of(" \t"), text.size());
  const auto word = text.substr(0, end);
  text.remove_prefix(end);
  return word;
}

std::optional<std::uint64_t> number(std::string_view text, int base = 10) {
  std::uint64_t value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (status != std::errc() || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return value;
}

std::string_view unquoted(std::string_view text) {
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"') {
    text.remove_prefix(1);
    text.remove_suffix(1);
  }
  return text;
}

bool is_access(std::string_view word) { return word == "RW" || word == "RDONLY" || word == "NOACCESS"; }

Result<VmdkExtentLine> parse_extent(std::string_view line) {
  const auto invalid = [&line] {
    return fail(ErrorCode::kInvalid, fmt::format("Invalid extent line: {}", printable(line)));
  };
  auto rest = line;
  const auto access = next_word(rest);
  const auto sectors = number(next_word(rest));
  const auto type = next_word(rest);
  rest = trimmed(rest);
  if (!sectors || *sectors == 0 || *sectors > kMaxSectors) {
    return invalid();
  }
  VmdkExtentLine extent{.sectors = *sectors, .type_name = std::string(type)};
  if (access == "NOACCESS") {
    return fail(ErrorCode::kUnsupported,
                fmt::format("vmdk descriptor: access to an extent is forbidden: {}", printable(line)));
  }
  if (type == "ZERO") {
    extent.type = VmdkExtentType::kZero;
    return extent;
  }
  if (type == "FLAT" || type == "VMFS") {
    extent.type = VmdkExtentType::kFlat;
  } else if (type == "SPARSE") {
    extent.type = VmdkExtentType::kSparse;
  } else if (type == "VMFSSPARSE") {
    extent.type = VmdkExtentType::kVmfsSparse;
  } else {
    return fail(ErrorCode::kUnsupported, fmt::format("Unsupported extent type '{}'", printable(type)));
  }
  if (rest.size() < 2 || rest.front() != '"') {
    return invalid();
  }
  const auto quote = rest.find('"', 1);
  if (quote == std::string_view::npos || quote == 1) {
    return invalid();
  }
  extent.file = rest.substr(1, quote - 1);
  rest = trimmed(rest.substr(quote + 1));
  const bool must_have_offset = type == "FLAT";
  if (must_have_offset == rest.empty()) {
    return invalid();
  }
  if (must_have_offset) {
    const auto offset = number(next_word(rest));
    if (!offset || *offset > kMaxSectors) {
      return invalid();
    }
    extent.offset_sectors = *offset;
  }
  return extent;
}

}  // namespace

bool is_vmdk_descriptor(std::string_view start) {
  // Comments and blank lines, then the version.
  while (!start.empty()) {
    const auto end = std::min(start.find('\n'), start.size());
    const auto line = trimmed(start.substr(0, end));
    if (!line.empty() && line.front() != '#') {
      return line == "version=1" || line == "version=2" || line == "version=3";
    }
    start.remove_prefix(std::min(end + 1, start.size()));
  }
  return false;
}

Result<VmdkDescriptor> parse_vmdk_descriptor(std::string_view text) {
  VmdkDescriptor descriptor;
  text = text.substr(0, std::min(text.find('\0'), text.size()));
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto line = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    auto rest = line;
    if (line.empty() || line.front() == '#') {
      continue;
    }
    if (is_access(next_word(rest))) {
      if (descriptor.extents.size() == kMaxExtents) {
        return fail(ErrorCode::kUnsupported,
                    fmt::format("vmdk descriptor: more than {} extents", kMaxExtents));
      }
      auto extent = parse_extent(line);
      if (!extent) {
        return std::unexpected(extent.error());
      }
      descriptor.extents.push_back(std::move(*extent));
      continue;
    }
    const auto equals = line.find('=');
    if (equals == std::string_view::npos) {
      continue;
    }
    const auto key = trimmed(line.substr(0, equals));
    const auto value = unquoted(trimmed(line.substr(equals + 1)));
    if (key == "CID" || key == "parentCID") {
      const auto id = number(value, 16);
      if (!id || *id > 0xffffffff) {
        return fail(ErrorCode::kCorrupt, fmt::format("vmdk descriptor: {} '{}' is not a number of 32 bits",
                                                     key, printable(value)));
      }
      (key == "CID" ? descriptor.cid : descriptor.parent_cid) = static_cast<std::uint32_t>(*id);
    } else if (key == "createType") {
      descriptor.create_type = printable(value);
    } else if (key == "parentFileNameHint" && !value.empty()) {
      descriptor.parent_name = std::string(value);
    }
  }
  return descriptor;
}

}  // namespace whistler::formats

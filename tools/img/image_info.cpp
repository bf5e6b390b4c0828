#include "tools/img/image_info.hpp"

#include <fmt/format.h>

#include <ctime>

#include "block/file.hpp"
#include "block/qcow2/bitmaps.hpp"
#include "block/qcow2/image.hpp"
#include "block/qcow2/snapshots.hpp"
#include "tools/img/human_size.hpp"

namespace whistler::tools {

namespace {

constexpr std::uint64_t kNanoseconds = 1'000'000'000;

/// Bytes the host has allocated; nothing if nobody knows.
std::optional<std::uint64_t> allocated_bytes(const Node& node) {
  if (node.host_file != nullptr) {
    return node.host_file->allocated_bytes();
  }
  if (node.driver == "null-co") {
    return 0;
  }
  if (!node.file || node.driver == "blkdebug") {
    return std::nullopt;
  }
  auto sum = allocated_bytes(*node.file);
  if (sum && node.data_file) {
    const auto data = allocated_bytes(*node.data_file);
    sum = data ? std::optional(*sum + *data) : std::nullopt;
  }
  return sum;
}

Result<Options> qcow2_info(Ring& ring, qcow2::Image& image) {
  const auto& header = image.header();
  const bool v3 = header.version >= 3;
  Options data = {{"compat", v3 ? "1.1" : "0.10"},
                  {"compression-type", header.compression == qcow2::Compression::kZstd ? "zstd" : "zlib"},
                  {"refcount-bits", 1U << header.refcount_order}};
  if (!v3) {
    return data;
  }
  data["lazy-refcounts"] = (header.compatible & qcow2::kLazyRefcounts) != 0;
  data["corrupt"] = (header.incompatible & qcow2::kCorruptBit) != 0;
  data["extended-l2"] = header.geometry().extended_l2;
  if (const auto file = header.data_file()) {
    data["data-file"] = *file;
  }
  if (header.geometry().external_data) {
    data["data-file-raw"] = (header.autoclear & qcow2::kRawExternalData) != 0;
  }
  const auto bitmaps = sync_wait(ring, image.bitmaps().list());
  if (!bitmaps) {
    return std::unexpected(bitmaps.error());
  }
  for (const auto& bitmap : *bitmaps) {
    Options flags = Options::array();
    if (bitmap.in_use) {
      flags.push_back("in-use");
    }
    if (bitmap.enabled) {
      flags.push_back("auto");
    }
    data["bitmaps"].push_back({{"name", bitmap.name}, {"granularity", bitmap.granularity}, {"flags", flags}});
  }
  return data;
}

std::string readable(std::string key) {
  for (auto& c : key) {
    c = c == '-' ? ' ' : c;
  }
  return key;
}

/// Prints an object's or list's items, one a line, nested ones indented.
void dump(const Options& value, unsigned depth, std::string& out) {
  const auto item = [&](const std::string& label, const Options& content) {
    out.append(std::size_t{depth} * 4, ' ');
    out += label + ":";
    if (content.is_structured()) {
      out += "\n";
      dump(content, depth + 1, out);
    } else {
      out += " " + (content.is_string() ? content.get<std::string>() : content.dump()) + "\n";
    }
  };
  if (value.is_array()) {
    for (std::size_t i = 0; i < value.size(); ++i) {
      item(fmt::format("[{}]", i), value[i]);
    }
    return;
  }
  for (const auto& key : keys_in_order(value)) {
    item(readable(key), value[key]);
  }
}

std::string format_specific_text(const Options& info) {
  std::string text = "Format specific information:\n";
  dump(info["format-specific"]["data"], 1, text);
  return text;
}

std::string date_text(std::uint64_t seconds) {
  const auto when = static_cast<std::time_t>(seconds);
  std::tm parts{};
  ::localtime_r(&when, &parts);
  std::array<char, 64> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &parts);
  return text.data();
}

}  // namespace

Result<std::vector<qcow2::Snapshot>> list_snapshots(Ring& ring, const Node& node) {
  if (node.qcow2 == nullptr) {
    return std::vector<qcow2::Snapshot>{};
  }
  return sync_wait(ring, qcow2::Snapshots(*node.qcow2).list());
}

Options snapshots_info(const std::vector<qcow2::Snapshot>& snapshots) {
  Options list = Options::array();
  for (const auto& snapshot : snapshots) {
    Options info = {{"id", snapshot.id},
                    {"name", snapshot.name},
                    {"vm-state-size", snapshot.vm_state_size},
                    {"date-sec", snapshot.date_seconds},
                    {"date-nsec", snapshot.date_nanoseconds},
                    {"vm-clock-sec", snapshot.vm_clock_nanoseconds / kNanoseconds},
                    {"vm-clock-nsec", snapshot.vm_clock_nanoseconds % kNanoseconds}};
    if (snapshot.instruction_count != ~std::uint64_t{0}) {
      info["icount"] = snapshot.instruction_count;
    }
    list.push_back(std::move(info));
  }
  return list;
}

std::string show_snapshots(const Options& snapshots) {
  constexpr std::string_view kRow = "{:<9} {:<16} {:>8}{:>20}{:>13}{:>11}";
  auto text = fmt::format(kRow, "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
  for (const auto& snapshot : snapshots) {
    const auto seconds = snapshot["vm-clock-sec"].get<std::uint64_t>();
    const auto clock = fmt::format("{:02}:{:02}:{:02}.{:03}", seconds / 3600, seconds / 60 % 60, seconds % 60,
                                   snapshot["vm-clock-nsec"].get<std::uint64_t>() / 1'000'000);
    text += "\n";
    text += fmt::format(kRow, snapshot["id"].get<std::string>(), snapshot["name"].get<std::string>(),
                        human_size(snapshot["vm-state-size"].get<std::uint64_t>()),
                        date_text(snapshot["date-sec"].get<std::uint64_t>()), clock,
                        snapshot.contains("icount") ? snapshot["icount"].dump() : "");
  }
  return text + "\n";
}

Result<Options> collect_image_info(Ring& ring, const OpenNode& image) {
  const auto& node = *image.node;
  Options info = {{"filename", node.filename},
                  {"format", node.driver},
                  {"virtual-size", node.device->size()},
                  {"dirty-flag", false}};
  if (const auto bytes = allocated_bytes(node)) {
    info["actual-size"] = *bytes;
  }
  if (node.qcow2 == nullptr) {
    if (node.driver == "null-co") {
      info.erase("dirty-flag");
    }
    if (auto specific = format_specific_info(ring, node); !specific.is_null()) {
      info.update(specific);
    }
    return info;
  }
  const auto& header = node.qcow2->header();
  info["cluster-size"] = header.geometry().cluster_size();
  info["dirty-flag"] = (header.incompatible & qcow2::kDirty) != 0;
  if (node.qcow2->encrypted()) {
    info["encrypted"] = true;
  }
  if (header.backing_file) {
    info["backing-filename"] = *header.backing_file;
    if (const auto full = resolve_stored_name(node, *header.backing_file)) {
      info["full-backing-filename"] = *full;
    }
    if (const auto format = header.backing_format()) {
      info["backing-filename-format"] = *format;
    }
  }
  const auto snapshots = list_snapshots(ring, node);
  if (!snapshots) {
    return std::unexpected(snapshots.error());
  }
  if (!snapshots->empty()) {
    info["snapshots"] = snapshots_info(*snapshots);
  }
  auto data = qcow2_info(ring, *node.qcow2);
  if (!data) {
    return data;
  }
  info["format-specific"] = {{"type", "qcow2"}, {"data", std::move(*data)}};
  if (auto specific = format_specific_info(ring, node); !specific.is_null()) {
    info.merge_patch(specific);
  }
  return info;
}

std::string show_image_info(const Options& info) {
  const auto text_of = [&](const char* key) { return option_text(info, key).value_or(""); };
  const auto virtual_size = info["virtual-size"].get<std::uint64_t>();
  auto text = fmt::format(
      "image: {}\nfile format: {}\nvirtual size: {} ({} bytes)\ndisk size: {}\n", text_of("filename"),
      text_of("format"), human_size(virtual_size), virtual_size,
      info.contains("actual-size") ? human_size(info["actual-size"].get<std::uint64_t>()) : "unavailable");
  if (info.contains("encrypted")) {
    text += "encrypted: yes\n";
  }
  if (info.contains("cluster-size")) {
    text += fmt::format("cluster_size: {}\n", info["cluster-size"].get<std::uint64_t>());
  }
  if (info.value("dirty-flag", false)) {
    text += "cleanly shut down: no\n";
  }
  if (info.contains("backing-filename")) {
    const auto name = text_of("backing-filename");
    text += "backing file: " + name;
    if (!info.contains("full-backing-filename")) {
      text += " (cannot determine actual path)";
    } else if (const auto full = text_of("full-backing-filename"); full != name) {
      text += fmt::format(" (actual path: {})", full);
    }
    text += "\n";
    if (info.contains("backing-filename-format")) {
      text += fmt::format("backing file format: {}\n", text_of("backing-filename-format"));
    }
  }
  if (info.contains("snapshots")) {
    text += "Snapshot list:\n" + show_snapshots(info["snapshots"]);
  }
  if (info.contains("format-specific")) {
    text += format_specific_text(info);
  }
  return text;
}

Result<std::string> show_format_specific(Ring& ring, const Node& node) {
  Options info = Options::object();
  if (node.qcow2 != nullptr) {
    auto data = qcow2_info(ring, *node.qcow2);
    if (!data) {
      return std::unexpected(data.error());
    }
    info["format-specific"] = {{"type", "qcow2"}, {"data", std::move(*data)}};
  }
  if (auto specific = format_specific_info(ring, node); !specific.is_null()) {
    info.merge_patch(specific);
  }
  return info.contains("format-specific") ? format_specific_text(info) : std::string();
}

}  // namespace whistler::tools

#include "block/node_drivers.hpp"

#include "block/node_encryption.hpp"

#include <algorithm>
#include <vector>

#include "block/formats/drivers.hpp"
#include "block/nbd/node_driver.hpp"

namespace whistler {

using namespace std::string_view_literals;

std::span<const FormatDriver> format_drivers() {
  static const std::vector<FormatDriver> drivers = [] {
    const auto foreign = formats::drivers();
    std::vector<FormatDriver> all(foreign.begin(), foreign.end());
    all.push_back(luks_format());
    return all;
  }();
  return drivers;
}

std::span<const ProtocolDriver> protocol_drivers() {
  static const std::vector<ProtocolDriver> drivers = {
      // One line a protocol.
      {"nbd", "nbd nbd+tcp nbd+unix nbds nbds+tcp nbds+unix", nbd::parse_nbd_filename, nbd::open_nbd},
  };
  return drivers;
}

std::vector<std::string_view> known_drivers() {
  std::vector names = {"file"sv,        "raw"sv,        "qcow2"sv,    "null-co"sv,     "blkdebug"sv,
                       "host_device"sv, "host_cdrom"sv, "compress"sv, "copy-on-read"sv};
  for (const auto& driver : format_drivers()) {
    names.push_back(driver.name);
  }
  for (const auto& driver : protocol_drivers()) {
    names.push_back(driver.name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool is_known_driver(std::string_view name) {
  const auto names = known_drivers();
  return std::binary_search(names.begin(), names.end(), name);
}

}  // namespace whistler

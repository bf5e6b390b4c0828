#include "block/node_drivers.hpp"

#include "block/node_encryption.hpp"

#include <algorithm>
#include <array>
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

bool is_known_driver(std::string_view name) {
  constexpr std::array kBuiltIn = {"file"sv,       "raw"sv,      "qcow2"sv,
                                   "null-co"sv,    "blkdebug"sv, "host_device"sv,
                                   "host_cdrom"sv, "compress"sv, "copy-on-read"sv};
  const auto has_name = [&](const auto& driver) { return driver.name == name; };
  return std::find(kBuiltIn.begin(), kBuiltIn.end(), name) != kBuiltIn.end() ||
         std::any_of(format_drivers().begin(), format_drivers().end(), has_name) ||
         std::any_of(protocol_drivers().begin(), protocol_drivers().end(), has_name);
}

}  // namespace whistler

// What a command line of `whistler nbd` asks for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "block/open.hpp"
#include "tools/tool.hpp"

namespace whistler::tools::nbd {

/// One disk to serve, from FILE or --export.
struct ExportOptions {
  std::string file = {};
  std::string name = {};
  std::string description = {};
  std::string format = {};  ///< empty: by probing
  bool read_only = false;
};

struct Options {
  std::optional<std::string> file = {};
  std::string port = {};
  std::string bind = {};
  std::string socket = {};
  bool socket_given = false;
  unsigned shared = 1;
  bool persistent = false;
  bool verbose = false;
  std::string export_name = {};
  std::string description = {};
  std::uint64_t offset = 0;
  bool negative_offset = false;  ///< complained of once the image is open, as QEMU does
  bool allocation_depth = false;
  std::vector<std::string> bitmaps = {};
  bool list = false;
  bool per_device = false;  ///< something was said that means nothing to --list
  std::vector<std::string> objects = {};
  std::string tls_creds = {};
  std::string tls_authz = {};
  std::string tls_hostname = {};
  bool fork = false;
  std::string pid_file = {};
  std::string device = {};  ///< -c
  bool disconnect = false;
  std::string format = {};
  bool read_only = false;
  bool snapshot = false;
  std::string load_snapshot = {};
  CacheMode cache = CacheMode::kWriteback;
  bool discard = false;
  DetectZeroes detect_zeroes = DetectZeroes::kOff;
  bool image_opts = false;
  std::vector<std::string> exports = {};
};

/// Reads the command line. Nothing if the program ends here, with `status`.
[[nodiscard]] std::optional<Options> parse_options(const Call& call, int& status);

/// "NAME=FILE[,format=FMT][,readonly=on|off][,description=TEXT]"; a comma in a value is written twice.
[[nodiscard]] Result<ExportOptions> parse_export(const std::string& text);

/// Splits "a,b=c,d=e" at single commas, a double one standing for itself.
[[nodiscard]] std::vector<std::string> split_commas(const std::string& text);

}  // namespace whistler::tools::nbd

// whistler img: its commands by name.
#include <fmt/format.h>

#include <array>

#include "tools/img/bitmap.hpp"
#include "tools/img/commands.hpp"
#include "tools/img/options.hpp"
#include "tools/tool.hpp"

namespace whistler::tools {

namespace {

struct Command {
  std::string_view name;
  int (*run)(const Call&);
};

constexpr std::array kCommands = {Command{"amend", img_amend},       Command{"bench", img_bench},
                                  Command{"bitmap", bitmap_command}, Command{"check", img_check},
                                  Command{"commit", img_commit},     Command{"compact", img_compact},
                                  Command{"compare", img_compare},   Command{"convert", img_convert},
                                  Command{"create", img_create},     Command{"dd", img_dd},
                                  Command{"info", img_info},         Command{"map", img_map},
                                  Command{"measure", img_measure},   Command{"rebase", img_rebase},
                                  Command{"resize", img_resize},     Command{"snapshot", img_snapshot}};

}  // namespace

int img_main(const Call& call) {
  static const option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                  {"version", no_argument, nullptr, 'V'},
                                  {"trace", required_argument, nullptr, 'T'},
                                  {nullptr, 0, nullptr, 0}};
  if (call.arguments.empty()) {
    return complain_with_help(call, "Not enough arguments");
  }
  OptionReader reader(call, "+hVT:", kLongs);
  for (int code = reader.next(); code != -1; code = reader.next()) {
    switch (code) {
      case 'h': return img_help(call);
      case 'V': fmt::print("{} version 7.2.0 (Whistler)\n", call.program); return 0;
      default: break;  // tracing
    }
  }
  if (reader.failed()) {
    return 1;
  }
  const auto words = reader.operands();
  if (words.empty()) {
    return complain_with_help(call, "Not enough arguments");
  }
  for (const auto& command : kCommands) {
    if (command.name == words[0]) {
      return command.run({call.program, {words.begin() + 1, words.end()}});
    }
  }
  return complain_with_help(call, fmt::format("Command not found: {}", words[0]));
}

}  // namespace whistler::tools

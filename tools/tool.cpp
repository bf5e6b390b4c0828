#include "tools/tool.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>

namespace whistler::tools {

namespace {

struct Tool {
  std::string_view command;
  std::string_view link;
  int (*run)(const Call&);
};

constexpr std::array kTools = {Tool{"img", "qemu-img", img_main}, Tool{"io", "qemu-io", io_main},
                               Tool{"nbd", "qemu-nbd", nbd_main}};

}  // namespace

std::optional<int> run_tool(int argc, char** argv) {
  if (argc == 0) {
    return std::nullopt;
  }
  const std::vector<std::string> words(argv + 1, argv + argc);
  std::string_view name = argv[0];
  name.remove_prefix(name.rfind('/') + 1);  // all of it where there is none: npos + 1 is 0
  for (const auto& tool : kTools) {
    if (name == tool.link) {
      return tool.run({std::string(name), words});
    }
    if (!words.empty() && words.front() == tool.command) {
      return tool.run({fmt::format("whistler {}", tool.command), {words.begin() + 1, words.end()}});
    }
  }
  return std::nullopt;
}

void complain(const Call& call, std::string_view message) {
  // A name in it may come from an image, and shall not disturb a terminal.
  std::string clean(message);
  std::replace_if(
      clean.begin(), clean.end(), [](char c) { return (c >= 0 && c < ' ' && c != '\n') || c == 0x7f; }, '?');
  fmt::print(stderr, "{}: {}\n", call.program, clean);
}

}  // namespace whistler::tools

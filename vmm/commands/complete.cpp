// whistler complete WORD...: what the last word may become, a line each, for the completion of shells.
// Nothing: a file. All of it is taken from the program's own --help. People have no use for it, so it is in
// no help itself.
#include <fcntl.h>
#include <fmt/format.h>
#include <re2/re2.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <set>
#include <string_view>

#include "base/unique_fd.hpp"
#include "vmm/commands/commands.hpp"
#include "vmm/ctl/registry.hpp"

namespace whistler {
namespace {

/// What `whistler COMMAND --help` prints, or `whistler --help` without a command.
std::string help_of(const std::string& command) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return {};
  }
  const UniqueFd reading(ends[0]);
  UniqueFd writing(ends[1]);
  const auto child = ::fork();
  if (child == 0) {
    ::dup2(writing.get(), STDOUT_FILENO);
    if (command.empty()) {
      ::execl("/proc/self/exe", "whistler", "--help", nullptr);
    } else {
      ::execl("/proc/self/exe", "whistler", command.c_str(), "--help", nullptr);
    }
    ::_exit(1);
  }
  writing.reset();
  std::string text;
  std::array<char, 4096> buffer{};
  while (child > 0) {
    const auto got = ::read(reading.get(), buffer.data(), buffer.size());
    if (got > 0) {
      text.append(buffer.data(), static_cast<std::size_t>(got));
    } else if (got == 0 || errno != EINTR) {
      break;
    }
  }
  while (child > 0 && ::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  return text;
}

/// All that `expression` finds in `text`.
std::set<std::string> all_in(const std::string& text, const char* expression) {
  std::set<std::string> found;
  re2::StringPiece rest = text;
  const RE2 pattern(expression);
  for (std::string word; RE2::FindAndConsume(&rest, pattern, &word);) {
    found.insert(word);
  }
  return found;
}

std::set<std::string> commands_in(const std::string& help) { return all_in(help, "(?m)^  ([a-z][a-z-]*) "); }
std::set<std::string> options_in(const std::string& help) {
  return all_in(help, "(?m)(?:^|[ ,'(|[])(--?[a-zA-Z][a-zA-Z0-9-]*)");
}

std::set<std::string> candidates(const std::vector<std::string>& words) {
  auto commands = commands_in(help_of(""));
  if (words.size() <= 1) {
    commands.insert({"--help", "--version"});
    return commands;
  }
  const auto& command = words.front();
  if (!commands.contains(command)) {
    return {};
  }
  if (words.back().starts_with('-')) {
    return options_in(help_of(command));
  }
  if (command == "img" && words.size() == 2) {
    return commands_in(help_of(command));
  }
  if (command == "ctl" && words.size() == 2) {
    std::set<std::string> names = {"list"};
    for (const auto& machine : running_machines()) {
      names.insert(machine.name);
    }
    return names;
  }
  if (command == "ctl" && words.size() == 3) {
    return commands_in(help_of(command));
  }
  return {};
}

}  // namespace

int complete(const std::vector<std::string>& words) {
  const auto word = words.empty() ? std::string() : words.back();
  for (const auto& candidate : candidates(words)) {
    if (candidate.starts_with(word)) {
      fmt::print("{}\n", candidate);
    }
  }
  return 0;
}

}  // namespace whistler

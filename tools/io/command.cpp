#include "tools/io/command.hpp"

#include <fmt/format.h>
#include <getopt.h>

#include <cstdio>

namespace whistler::tools::io {

Words::Words(const std::string& line) {
  for (std::size_t at = 0; at < line.size();) {
    const auto end = std::min(line.find(' ', at), line.size());
    if (end != at) {
      auto& word = words_.emplace_back(line.begin() + static_cast<std::ptrdiff_t>(at),
                                       line.begin() + static_cast<std::ptrdiff_t>(end));
      word.push_back('\0');
    }
    at = end + 1;
  }
  for (auto& word : words_) {
    pointers_.push_back(word.data());
  }
  pointers_.push_back(nullptr);
}

void Words::rewind() {
  optind = 0;  // glibc: forget the last line altogether
}

int Words::next_option(const char* known) { return ::getopt(count(), pointers_.data(), known); }

const char* Words::value() { return optarg; }

int Words::left() const { return count() - optind; }

const char* Words::operand(int number) const { return pointers_[static_cast<std::size_t>(optind + number)]; }

bool usage(const Command& command) {
  fmt::print("{} {}{}-- {}\n", command.name, command.arguments != nullptr ? command.arguments : "",
             command.arguments != nullptr ? " " : "", command.summary);
  return false;
}

namespace {

/// Complains, if so, that the command cannot be given as many arguments as it was.
bool takes_as_many(const Command& command, int given) {
  if (given >= command.least && (command.most == -1 || given <= command.most)) {
    return true;
  }
  if (command.most == -1) {
    fmt::print(stderr, "bad argument count {} to {}, expected at least {} arguments\n", given, command.name,
               command.least);
  } else if (command.least == command.most) {
    fmt::print(stderr, "bad argument count {} to {}, expected {} arguments\n", given, command.name,
               command.least);
  } else {
    fmt::print(stderr, "bad argument count {} to {}, expected between {} and {} arguments\n", given,
               command.name, command.least, command.most);
  }
  return false;
}

}  // namespace

bool Session::run(const std::string& line) {
  Words words(line);
  if (words.count() == 0) {
    return true;
  }
  const auto* const command = find_command(words[0]);
  if (command == nullptr) {
    fmt::print(stderr, "command \"{}\" not found\n", words[0]);
    return false;
  }
  if (!command->without_file && !is_open()) {
    fmt::print(stderr, "no file open, try 'help open'\n");
    return false;
  }
  if (!takes_as_many(*command, words.count() - 1)) {
    return false;
  }
  if (command->permission != Permission::kNone && device().read_only()) {
    complain("Block node is read-only");
    return false;
  }
  words.rewind();
  return command->run(*this, words, *command);
}

}  // namespace whistler::tools::io

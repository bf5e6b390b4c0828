#include "tools/img/options.hpp"

#include <fmt/format.h>

#include <charconv>

#include "block/node_options.hpp"

namespace whistler::tools {

OptionReader::OptionReader(const Call& call, const char* letters, const option* longs)
    : call_(call),
      letters_(*letters == '+' ? std::string("+:") + (letters + 1) : std::string(":") + letters),
      longs_(longs) {
  words_.push_back(call.program);
  words_.insert(words_.end(), call.arguments.begin(), call.arguments.end());
  for (auto& word : words_) {
    argv_.push_back(word.data());
  }
  argv_.push_back(nullptr);
  ::optind = 0;  // glibc: start anew
}

int OptionReader::next() {
  const int code =
      ::getopt_long(static_cast<int>(words_.size()), argv_.data(), letters_.c_str(), longs_, nullptr);
  if (code == ':' || code == '?') {
    const std::string_view text = code == ':' ? "missing argument for option" : "unrecognized option";
    complain_with_help(call_, fmt::format("{} '{}'", text, argv_[static_cast<std::size_t>(::optind - 1)]));
    failed_ = true;
    return -1;
  }
  argument_ = ::optarg != nullptr ? ::optarg : "";
  return code;
}

std::vector<std::string> OptionReader::operands() const {
  std::vector<std::string> rest;
  for (auto i = static_cast<std::size_t>(::optind); i < words_.size(); ++i) {
    rest.emplace_back(argv_[i]);
  }
  return rest;
}

int complain_with_help(const Call& call, const std::string& text) {
  complain(call, text);
  fmt::print(stderr, "Try '{} --help' for more information\n", call.program);
  return 1;
}

std::optional<std::uint64_t> parse_number(const Call& call, const std::string& what, const std::string& text,
                                          std::uint64_t least, std::uint64_t most) {
  const auto number = parse_size_text(text);
  if ((!number && number.error().code == ErrorCode::kNoSpace) ||
      (number && (*number < least || *number > most))) {
    complain(call, fmt::format("Invalid {} specified. Must be between {} and {}.", what, least, most));
    return std::nullopt;
  }
  if (!number) {
    complain(call, fmt::format("Invalid {} specified. You may use k, M, G, T, P or E suffixes for", what));
    complain(call, "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
    return std::nullopt;
  }
  return *number;
}

std::optional<int> parse_plain_number(const std::string& text, int least, int most) {
  int number = 0;
  const bool hex = text.starts_with("0x") || text.starts_with("0X");
  const auto* begin = text.data() + (hex ? 2 : 0);
  const auto* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(begin, end, number, hex ? 16 : 10);
  if (error != std::errc{} || stop != end || number < least || number > most) {
    return std::nullopt;
  }
  return number;
}

std::optional<CacheMode> parse_cache(const std::string& text) {
  const auto mode = parse_cache_mode(text == "off" ? "none" : text);
  return mode ? std::optional(*mode) : std::nullopt;
}

}  // namespace whistler::tools

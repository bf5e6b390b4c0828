#include "block/node_options.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <utility>
#include <vector>

namespace whistler {

namespace {

/// Replaces QEMU's single-quoted strings by double-quoted ones.
std::string plain_json(std::string_view text) {
  std::string out;
  char quote = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote == 0) {
      quote = c == '\'' || c == '"' ? c : '\0';
      out += c == '\'' ? '"' : c;
    } else if (c == '\\' && i + 1 < text.size()) {
      ++i;
      out += text[i] == '\'' ? std::string("'") : std::string{'\\', text[i]};
    } else if (c == quote) {
      quote = 0;
      out += '"';
    } else {
      out += c == '"' ? std::string("\\\"") : std::string(1, c);
    }
  }
  return out;
}

/// A word outside of strings that is none of JSON's, or nothing.
std::string bad_keyword(std::string_view text) {
  char quote = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote != 0) {
      i += c == '\\' ? 1 : 0;
      quote = c == quote ? '\0' : quote;
    } else if (c == '\'' || c == '"') {
      quote = c;
    } else if (c >= 'a' && c <= 'z') {
      std::size_t end = i;
      while (end < text.size() && text[end] >= 'a' && text[end] <= 'z') {
        ++end;
      }
      const auto word = text.substr(i, end - i);
      if (word != "true" && word != "false" && word != "null") {
        return std::string(word);
      }
      i = end - 1;
    }
  }
  return "";
}

void set_nested(Options& into, std::string_view key, const Options& value) {
  Options* at = &into;
  // qcow2's "overlap-check" is a value of its own as well: what is below it keeps its dots.
  for (auto dot = key.find('.'); dot != std::string_view::npos && !key.starts_with("overlap-check.");
       dot = key.find('.')) {
    auto& child = (*at)[std::string(key.substr(0, dot))];
    if (!child.is_object()) {
      child = Options::object();
    }
    at = &child;
    key.remove_prefix(dot + 1);
  }
  auto& place = (*at)[std::string(key)];
  if (place.is_object() && value.is_object()) {
    place.update(value);
  } else {
    place = value;
  }
}

/// Takes the next part up to a single comma off `rest`.
std::string take_part(std::string_view& rest) {
  std::string part;
  std::size_t i = 0;
  for (; i < rest.size(); ++i) {
    if (rest[i] == ',') {
      if (i + 1 < rest.size() && rest[i + 1] == ',') {
        ++i;
      } else {
        break;
      }
    }
    part += rest[i];
  }
  rest.remove_prefix(std::min(rest.size(), i + 1));
  return part;
}

void print_string(const std::string& text, std::string& out) {
  out += Options(text).dump(-1, ' ', true, Options::error_handler_t::replace);
}

void print_value(const Options& value, bool pretty, unsigned depth, std::string& out) {
  const auto new_line = [&](unsigned to) {
    if (pretty) {
      out += '\n';
      out.append(std::size_t{to} * 4, ' ');
    }
  };
  const char* const separator = pretty ? "," : ", ";
  if (value.is_object()) {
    const auto keys = keys_in_order(value);
    out += '{';
    for (std::size_t i = 0; i < keys.size(); ++i) {
      out += i == 0 ? "" : separator;
      new_line(depth + 1);
      print_string(keys[i], out);
      out += ": ";
      print_value(value[keys[i]], pretty, depth + 1, out);
    }
    if (!keys.empty() || pretty) {
      new_line(depth);
    }
    out += '}';
  } else if (value.is_array()) {
    out += '[';
    for (std::size_t i = 0; i < value.size(); ++i) {
      out += i == 0 ? "" : separator;
      new_line(depth + 1);
      print_value(value[i], pretty, depth + 1, out);
    }
    if (!value.empty() || pretty) {
      new_line(depth);
    }
    out += ']';
  } else if (value.is_string()) {
    print_string(value.get_ref<const std::string&>(), out);
  } else {
    out += value.dump();
  }
}

/// The power of two of a suffix; nothing if it is none.
std::optional<unsigned> suffix_bits(char c) {
  switch (std::toupper(static_cast<unsigned char>(c))) {
    case 'B': return 0;
    case 'K': return 10;
    case 'M': return 20;
    case 'G': return 30;
    case 'T': return 40;
    case 'P': return 50;
    case 'E': return 60;
    default: return std::nullopt;
  }
}

std::unexpected<Error> no_size(std::string_view text) {
  return fail(ErrorCode::kInvalid, fmt::format("'{}' is not a size", text));
}

}  // namespace

bool has_protocol(std::string_view name) {
  const auto at = name.find_first_of(":/");
  return at != std::string_view::npos && name[at] == ':';
}

std::string_view protocol_of(std::string_view name) {
  return has_protocol(name) ? name.substr(0, name.find(':')) : std::string_view{};
}

/// As QEMU's parser.
constexpr int kDeepestNesting = 1024;

Result<Options> parse_json_name(std::string_view name) {
  auto text = name;
  if (text.starts_with("json:")) {
    text.remove_prefix(5);
  }
  const auto failed = [](const std::string& why) {
    return fail(ErrorCode::kInvalid, fmt::format("Could not parse the JSON options: {}", why));
  };
  if (const auto word = bad_keyword(text); !word.empty()) {
    return failed(fmt::format("JSON parse error, invalid keyword '{}'", word));
  }
  bool too_deep = false;
  const auto shallow = [&](int depth, auto, const auto&) {
    too_deep = too_deep || depth > kDeepestNesting;
    return !too_deep;
  };
  auto parsed = Options::parse(plain_json(text), shallow, false);
  if (too_deep) {
    return failed(fmt::format("it is nested deeper than {} levels", kDeepestNesting));
  }
  if (parsed.is_discarded()) {
    return failed("JSON parse error, expecting value");
  }
  if (!parsed.is_object()) {
    return fail(ErrorCode::kInvalid, "Invalid JSON object given");
  }
  return nest_options(parsed);
}

Options nest_options(const Options& flat) {
  Options nested = Options::object();
  for (const auto& [key, value] : flat.items()) {
    set_nested(nested, key, value.is_object() ? nest_options(value) : value);
  }
  return nested;
}

Result<Options> parse_dotted_options(std::string_view text, std::string_view implied_key) {
  Options options = Options::object();
  for (bool first = true; !text.empty(); first = false) {
    // A key ends at '=': a comma before it ends the part.
    const auto end = text.find_first_of("=,");
    std::string key;
    std::string value;
    if (end != std::string_view::npos && text[end] == '=') {
      key = std::string(text.substr(0, end));
      text.remove_prefix(end + 1);
      value = take_part(text);
    } else {
      const auto part = take_part(text);
      if (first && !implied_key.empty()) {
        key = std::string(implied_key);
        value = part;
      } else if (part.starts_with("no") && part.size() > 2) {
        key = part.substr(2);
        value = "off";
      } else {
        key = part;
        value = "on";
      }
    }
    set_nested(options, key, value);
  }
  return options;
}

std::optional<std::string> option_text(const Options& options, std::string_view key) {
  const auto found = options.find(std::string(key));
  if (found == options.end() || found->is_structured() || found->is_null()) {
    return std::nullopt;
  }
  if (found->is_string()) {
    return found->get<std::string>();
  }
  if (found->is_boolean()) {
    return found->get<bool>() ? "on" : "off";
  }
  return found->dump();
}

Result<bool> option_flag(const Options& options, std::string_view key, bool otherwise) {
  const auto text = option_text(options, key);
  if (!text) {
    return otherwise;
  }
  if (*text == "on" || *text == "yes" || *text == "true" || *text == "y") {
    return true;
  }
  if (*text == "off" || *text == "no" || *text == "false" || *text == "n") {
    return false;
  }
  return fail(ErrorCode::kInvalid, fmt::format("Parameter '{}' expects 'on' or 'off'", key));
}

Result<std::optional<std::uint64_t>> option_size(const Options& options, std::string_view key) {
  const auto text = option_text(options, key);
  if (!text) {
    return std::nullopt;
  }
  const auto size = parse_size_text(*text);
  if (!size && size.error().code == ErrorCode::kNoSpace) {
    return fail(ErrorCode::kInvalid,
                fmt::format("Value '{}' is out of range for parameter '{}'", *text, key));
  }
  if (!size) {
    return fail(ErrorCode::kInvalid,
                fmt::format("Parameter '{}' expects a non-negative number below 2^64\n"
                            "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
                            "and exabytes, respectively.",
                            key));
  }
  return *size;
}

Result<std::optional<std::uint64_t>> option_number(const Options& options, std::string_view key) {
  const auto text = option_text(options, key);
  if (!text) {
    return std::nullopt;
  }
  std::string_view digits = *text;
  const bool negative = digits.starts_with('-');
  digits.remove_prefix(negative ? 1 : 0);
  std::uint64_t number = 0;
  const auto [end, bad] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (bad == std::errc::result_out_of_range) {
    return fail(ErrorCode::kInvalid, fmt::format("Value '{}' is too large for parameter '{}'", *text, key));
  }
  if (bad != std::errc{} || end != digits.data() + digits.size()) {
    return fail(ErrorCode::kInvalid, fmt::format("Parameter '{}' expects a number", key));
  }
  return negative ? 0 - number : number;
}

Result<std::uint64_t> parse_size_text(std::string_view text) {
  const auto overflow = [&] {
    return fail(ErrorCode::kNoSpace, fmt::format("'{}' does not fit into 64 bits", text));
  };
  auto rest = text;
  while (!rest.empty() && std::isspace(static_cast<unsigned char>(rest.front())) != 0) {
    rest.remove_prefix(1);
  }
  if (!rest.empty() && rest.front() == '+') {
    rest.remove_prefix(1);
  }
  if (rest.empty() || std::isdigit(static_cast<unsigned char>(rest.front())) == 0) {
    return no_size(text);
  }
  std::uint64_t whole = 0;
  const bool hex = rest.starts_with("0x") || rest.starts_with("0X");
  if (hex) {
    rest.remove_prefix(2);
  }
  const auto* const end = rest.data() + rest.size();
  const auto [after, bad] = std::from_chars(rest.data(), end, whole, hex ? 16 : 10);
  if (bad == std::errc::result_out_of_range) {
    return overflow();
  }
  if (bad != std::errc{}) {
    return no_size(text);
  }
  rest.remove_prefix(static_cast<std::size_t>(after - rest.data()));
  double fraction = 0;
  if (!hex && rest.starts_with('.')) {
    rest.remove_prefix(1);
    for (double digit = 0.1; !rest.empty() && std::isdigit(static_cast<unsigned char>(rest.front())) != 0;
         digit /= 10) {
      fraction += (rest.front() - '0') * digit;
      rest.remove_prefix(1);
    }
  }
  unsigned shift = 0;
  if (!rest.empty()) {
    const auto bits = suffix_bits(rest.front());
    if (!bits || rest.size() > 1 || (hex && *bits == 0)) {
      return no_size(text);
    }
    shift = *bits;
  }
  if (fraction != 0 && shift == 0) {
    return no_size(text);
  }
  if (shift != 0 && whole > (~std::uint64_t{0} >> shift)) {
    return overflow();
  }
  const auto unit = static_cast<double>(std::uint64_t{1} << shift);
  const auto part = static_cast<std::uint64_t>(fraction * unit + 0.5);
  if ((whole << shift) > ~std::uint64_t{0} - part) {
    return overflow();
  }
  return (whole << shift) + part;
}

unsigned json_key_bucket(std::string_view key) {
  // The hash of Samba's tdb, in QEMU's table of 512 places.
  auto value = static_cast<std::uint32_t>(0x238f13afU * key.size());
  for (std::size_t i = 0; i < key.size(); ++i) {
    value += static_cast<std::uint32_t>(static_cast<unsigned char>(key[i])) << (i * 5 % 24);
  }
  return (1103515243U * value + 12345U) % 512;
}

std::vector<std::string> keys_in_order(const Options& object) {
  std::vector<std::string> keys;
  for (const auto& item : object.items()) {
    keys.push_back(item.key());
  }
  // Those of one place of the table stay in the order they have here: that of the alphabet.
  std::ranges::sort(keys, [](const std::string& a, const std::string& b) {
    return std::pair(json_key_bucket(a), std::string_view(a)) <
           std::pair(json_key_bucket(b), std::string_view(b));
  });
  return keys;
}

std::string print_json(const Options& value, bool pretty) {
  std::string out;
  print_value(value, pretty, 0, out);
  return out;
}

}  // namespace whistler

#include "vmm/import/qemu_settings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace whistler {
namespace {

constexpr int kDeepestSettings = 8;

/// Nested JSON as QEMU's dotted keys. False if it is nested beyond reason.
bool flatten(const nlohmann::json& value, const std::string& key, int depth, QemuSettings& to) {
  if (!value.is_structured()) {
    to.set(key, value.is_string()    ? value.get<std::string>()
                : value.is_boolean() ? (value.get<bool>() ? "on" : "off")
                                     : value.dump());
    return true;
  }
  if (depth == kDeepestSettings) {
    return false;
  }
  for (const auto& [name, inner] : value.items()) {
    if (!flatten(inner, key.empty() ? name : key + "." + name, depth + 1, to)) {
      return false;
    }
  }
  return true;
}

/// Settings are apart by single commas; two of them stand for one in a value.
std::vector<std::string> split_at_commas(std::string_view text) {
  std::vector<std::string> parts(1);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != ',') {
      parts.back() += text[i];
    } else if (i + 1 < text.size() && text[i + 1] == ',') {
      parts.back() += ',';
      ++i;
    } else {
      parts.emplace_back();
    }
  }
  return parts;
}

}  // namespace

bool is_on(std::string_view value) {
  return value == "on" || value == "yes" || value == "true" || value == "y";
}

std::optional<QemuSettings> QemuSettings::parse(std::string_view text, std::string_view first) {
  QemuSettings settings;
  if (text.starts_with('{')) {
    const auto document = nlohmann::json::parse(text, nullptr, false);
    if (document.is_discarded() || !flatten(document, "", 0, settings)) {
      return std::nullopt;
    }
    return settings;
  }
  bool is_first = true;
  for (const auto& part : split_at_commas(text)) {
    const auto equals = part.find('=');
    if (equals != std::string::npos) {
      settings.set(part.substr(0, equals), part.substr(equals + 1));
    } else if (is_first && !first.empty()) {
      settings.set(first, part);
    } else if (part.starts_with("no") && part.size() > 2) {
      settings.set(part.substr(2), "off");
    } else if (!part.empty()) {
      settings.set(part, "on");
    }
    is_first = false;
  }
  return settings;
}

std::string QemuSettings::take(std::string_view key) {
  std::string value;
  for (auto& setting : settings_) {
    if (setting.key == key) {
      setting.taken = true;
      value = setting.value;  // the last one counts
    }
  }
  return value;
}

bool QemuSettings::has(std::string_view key) const {
  return std::ranges::find(settings_, key, &Setting::key) != settings_.end();
}

bool QemuSettings::flag(std::string_view key, bool otherwise) {
  return has(key) ? is_on(take(key)) : otherwise;
}

void QemuSettings::set(std::string_view key, std::string value) {
  settings_.push_back({.key = std::string(key), .value = std::move(value)});
}

std::vector<std::string> QemuSettings::left() const {
  std::vector<std::string> keys;
  for (const auto& setting : settings_) {
    if (!setting.taken) {
      keys.push_back(setting.key);
    }
  }
  return keys;
}

std::vector<std::pair<std::string, std::string>> QemuSettings::all() const {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const auto& setting : settings_) {
    pairs.emplace_back(setting.key, setting.value);
  }
  return pairs;
}

Result<std::vector<std::string>> split_shell_words(std::string_view line) {
  std::vector<std::string> words;
  std::string word;
  bool in_word = false;
  char quote = 0;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    const char next = i + 1 < line.size() ? line[i + 1] : '\0';
    if (quote == '\'') {
      quote = c == '\'' ? '\0' : quote;
      word += c == '\'' ? "" : std::string(1, c);
    } else if (c == '$' || c == '`') {
      return fail(
          ErrorCode::kInvalid,
          fmt::format("character {}: \"{}\" is for the shell to replace: give the words after --, so that "
                      "the shell sees them first",
                      i + 1, line.substr(i, std::min<std::size_t>(line.find_first_of(" \t\n", i) - i, 40))));
    } else if (c == '\\' && i + 1 == line.size()) {
      return fail(ErrorCode::kInvalid, fmt::format("character {}: nothing follows the backslash", i + 1));
    } else if (c == '\\' && next == '\n') {
      ++i;  // the line goes on
    } else if (quote == '"' && c == '\\' && std::string_view("\\\"$`").find(next) != std::string_view::npos) {
      word += next;
      ++i;
    } else if (quote == '"') {
      quote = c == '"' ? '\0' : quote;
      word += c == '"' ? "" : std::string(1, c);
    } else if (c == '\'' || c == '"') {
      quote = c;
      in_word = true;
    } else if (c == '\\') {
      word += next;
      in_word = true;
      ++i;
    } else if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
      if (in_word) {
        words.push_back(std::exchange(word, {}));
      }
      in_word = false;
    } else if (std::string_view("|&;<>()").find(c) != std::string_view::npos) {
      return fail(
          ErrorCode::kInvalid,
          fmt::format("character {}: \"{}\" is for the shell to act on: give the one command that starts "
                      "QEMU, and quote the words that have such characters",
                      i + 1, c));
    } else {
      word += c;
      in_word = true;
    }
  }
  if (quote != 0) {
    return fail(ErrorCode::kInvalid, fmt::format("a quote {} is never closed", quote));
  }
  if (in_word) {
    words.push_back(word);
  }
  return words;
}

}  // namespace whistler

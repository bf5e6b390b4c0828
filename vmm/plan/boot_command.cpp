#include "vmm/plan/boot_command.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <utility>

#include "vmm/config/json_reader.hpp"
#include "vmm/monitor/key_names.hpp"
#include "vmm/plan/lower_case.hpp"

namespace whistler::plan {
namespace {

constexpr double kLongestWait = 3600;
constexpr std::string_view kShift = "shift";

/// Names in angle brackets, in lower case, and QMP's names.
constexpr auto kSpecial = std::to_array<std::pair<std::string_view, std::string_view>>({
    {"enter", "ret"},
    {"return", "ret"},
    {"esc", "esc"},
    {"tab", "tab"},
    {"bs", "backspace"},
    {"del", "delete"},
    {"spacebar", "spc"},
    {"up", "up"},
    {"down", "down"},
    {"left", "left"},
    {"right", "right"},
    {"insert", "insert"},
    {"home", "home"},
    {"end", "end"},
    {"pageup", "pgup"},
    {"pagedown", "pgdn"},
    {"f1", "f1"},
    {"f2", "f2"},
    {"f3", "f3"},
    {"f4", "f4"},
    {"f5", "f5"},
    {"f6", "f6"},
    {"f7", "f7"},
    {"f8", "f8"},
    {"f9", "f9"},
    {"f10", "f10"},
    {"f11", "f11"},
    {"f12", "f12"},
    {"leftctrl", "ctrl"},
    {"rightctrl", "ctrl_r"},
    {"leftalt", "alt"},
    {"rightalt", "alt_r"},
    {"leftshift", "shift"},
    {"rightshift", "shift_r"},
    {"leftsuper", "meta_l"},
    {"rightsuper", "meta_r"},
    {"menu", "menu"},
    {"capslock", "caps_lock"},
    {"numlock", "num_lock"},
    {"scrolllock", "scroll_lock"},
    {"printscreen", "print"},
    {"pause", "pause"},
});

/// The keys that have signs on them: without Shift and with it.
struct Sign {
  char plain, shifted;
  std::string_view key;
};
constexpr auto kSigns = std::to_array<Sign>({
    {'1', '!', "1"},
    {'2', '@', "2"},
    {'3', '#', "3"},
    {'4', '$', "4"},
    {'5', '%', "5"},
    {'6', '^', "6"},
    {'7', '&', "7"},
    {'8', '*', "8"},
    {'9', '(', "9"},
    {'0', ')', "0"},
    {'-', '_', "minus"},
    {'=', '+', "equal"},
    {'[', '{', "bracket_left"},
    {']', '}', "bracket_right"},
    {';', ':', "semicolon"},
    {'\'', '"', "apostrophe"},
    {'`', '~', "grave_accent"},
    {'\\', '|', "backslash"},
    {',', '<', "comma"},
    {'.', '>', "dot"},
    {'/', '?', "slash"},
    {' ', ' ', "spc"},
    {'\n', '\n', "ret"},
    {'\t', '\t', "tab"},
});

struct CharacterKey {
  std::string key;
  bool shift = false;
};

std::optional<CharacterKey> key_for(char c) {
  if (c >= 'a' && c <= 'z') {
    return CharacterKey{std::string(1, c)};
  }
  if (c >= 'A' && c <= 'Z') {
    return CharacterKey{std::string(1, static_cast<char>(c - 'A' + 'a')), true};
  }
  for (const auto& sign : kSigns) {
    if (c == sign.plain || c == sign.shifted) {
      return CharacterKey{std::string(sign.key), c != sign.plain};
    }
  }
  return std::nullopt;
}

/// "", "5", "5s", "500ms", "2m", "1.5s": seconds. Nothing if it is none, or too long.
std::optional<double> read_span(std::string_view text) {
  if (text.empty()) {
    return 1;
  }
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  const double scale = unit.empty() || unit == "s" ? 1 : unit == "ms" ? 0.001 : unit == "m" ? 60 : 0;
  const double seconds = number * scale;
  if (error != std::errc() || scale == 0 || !(seconds > 0) || seconds > kLongestWait) {
    return std::nullopt;
  }
  return seconds;
}

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  Result<std::vector<Typing>> read() {
    while (at_ < text_.size()) {
      auto done = text_[at_] == '<' ? bracket() : character(text_[at_++]);
      if (!done) {
        return std::unexpected(done.error());
      }
    }
    if (!held_.empty()) {
      return fail(ErrorCode::kInvalid, fmt::format("the key {} is pressed and never let go", held_.back()));
    }
    return std::move(typed_);
  }

 private:
  Result<void> character(char c) {
    const auto key = key_for(c);
    if (!key) {
      return fail(ErrorCode::kInvalid, fmt::format("character {} cannot be typed: a US keyboard has no key "
                                                   "for it (byte {:#04x})",
                                                   at_, static_cast<unsigned char>(c)));
    }
    const bool press_shift = key->shift && !is_held("shift") && !is_held("shift_r");
    if (press_shift) {
      change(std::string(kShift), true);
    }
    tap(key->key);
    if (press_shift) {
      change(std::string(kShift), false);
    }
    return {};
  }

  Result<void> bracket() {
    const auto end = text_.find('>', at_);
    const auto place = at_ + 1;
    if (end == std::string_view::npos) {
      return fail(ErrorCode::kInvalid,
                  fmt::format("the \"<\" at character {} is never closed; <lt> types a \"<\"", place));
    }
    const auto word = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    const auto name = lower_case(word);
    if (name == "lt") {
      return character('<');
    }
    if (name.starts_with("wait")) {
      const auto span = read_span(std::string_view(name).substr(4));
      if (!span) {
        return fail(ErrorCode::kInvalid,
                    fmt::format("<{}> at character {} is no wait of up to an hour, like <wait>, <wait5>, "
                                "<wait500ms>, <wait2m>",
                                word, place));
      }
      typed_.push_back({.wait = *span});
      return {};
    }
    const bool on = name.size() > 2 && name.ends_with("on") && !special(name);
    const bool off = name.size() > 3 && name.ends_with("off") && !special(name);
    // The case of a single character matters, and is that of the word itself.
    const auto stem = word.substr(0, word.size() - (on ? 2 : off ? 3 : 0));
    auto key = special(lower_case(stem));
    if (!key && stem.size() == 1 && (on || off)) {
      const auto found = key_for(stem[0]);
      key = found && !found->shift ? std::optional(found->key) : std::nullopt;
    }
    if (!key) {
      return unknown(word, place);
    }
    if (!on && !off) {
      tap(*key);
      return {};
    }
    if (off && !is_held(*key)) {
      return fail(ErrorCode::kInvalid, fmt::format("<{}> at character {}: the key is not down", word, place));
    }
    if (on && is_held(*key)) {
      return fail(ErrorCode::kInvalid,
                  fmt::format("<{}> at character {}: the key is down already", word, place));
    }
    change(*key, on);
    return {};
  }

  static std::optional<std::string> special(std::string_view name) {
    const auto found =
        std::ranges::find(kSpecial, name, &std::pair<std::string_view, std::string_view>::first);
    return found == kSpecial.end() ? std::nullopt : std::optional(std::string(found->second));
  }

  static Result<void> unknown(std::string_view word, std::size_t place) {
    std::vector<std::string> known = {"wait", "lt"};
    for (const auto& [name, key] : kSpecial) {
      known.emplace_back(name);
      known.push_back(std::string(name) + "on");
      known.push_back(std::string(name) + "off");
    }
    const auto near = nearest_word(lower_case(word), known);
    return fail(ErrorCode::kInvalid,
                fmt::format("<{}> at character {} is no key; {}", word.substr(0, 40), place,
                            near ? fmt::format("did you mean <{}>?", *near) : "<lt> types a \"<\""));
  }

  void tap(const std::string& key) {
    if (is_held(key)) {
      return;  // pressed already; nothing more can be said with it
    }
    change(key, true);
    change(key, false);
  }
  void change(const std::string& key, bool down) {
    typed_.push_back({.key = key, .down = down});
    if (down) {
      held_.push_back(key);
    } else {
      std::erase(held_, key);
    }
  }
  [[nodiscard]] bool is_held(std::string_view key) const {
    return std::ranges::find(held_, key) != held_.end();
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::vector<Typing> typed_;
  std::vector<std::string> held_;
};

}  // namespace

Result<std::vector<Typing>> parse_boot_command(std::string_view text) {
  if (text.empty()) {
    return fail(ErrorCode::kInvalid, "is empty: there is nothing to type");
  }
  return Reader(text).read();
}

Result<std::vector<Typing>> parse_key_chord(std::string_view text) {
  std::vector<Typing> typed;
  std::vector<Typing> releases;
  for (std::size_t start = 0; start <= text.size();) {
    const auto end = std::min(text.find('-', start), text.size());
    const std::string name(text.substr(start, end - start));
    if (!key_by_name(name)) {
      return fail(ErrorCode::kInvalid,
                  fmt::format("\"{}\" is no key; names are QMP's, like \"ctrl-alt-delete\", "
                              "\"f8\", \"ret\", \"minus\"",
                              name.substr(0, 40)));
    }
    typed.push_back({.key = name, .down = true});
    releases.insert(releases.begin(), Typing{.key = name, .down = false});
    start = end + 1;
  }
  typed.insert(typed.end(), releases.begin(), releases.end());
  return typed;
}

}  // namespace whistler::plan

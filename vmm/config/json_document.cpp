#include "vmm/config/json_document.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace whistler {
namespace {

constexpr std::size_t kDeepestNesting = 16;

}  // namespace

Result<nlohmann::json> parse_json(std::string_view text) {
  using Event = nlohmann::json::parse_event_t;
  bool too_deep = false;
  std::vector<std::set<std::string>> keys;  // of the objects around what is read
  std::optional<std::string> twice;
  const auto guard = [&](int depth, Event event, nlohmann::json& value) {
    too_deep = too_deep || depth > static_cast<int>(kDeepestNesting);
    if (too_deep) {
      return false;
    }
    if (event == Event::object_start) {
      keys.emplace_back();
    } else if (event == Event::object_end) {
      keys.pop_back();
    } else if (event == Event::key && !keys.back().insert(value.get_ref<const std::string&>()).second &&
               !twice) {
      twice = value.get<std::string>();
    }
    return true;
  };
  try {
    auto document = nlohmann::json::parse(text, guard, true, true);
    if (too_deep) {
      return fail(ErrorCode::kInvalid, fmt::format("is nested deeper than {} levels", kDeepestNesting));
    }
    if (twice) {
      return fail(ErrorCode::kInvalid, fmt::format("{}: is there twice in one object", *twice));
    }
    return document;
  } catch (const nlohmann::json::exception& e) {
    // "[json.exception.parse_error.101] parse error at line 3, column 5: ..." -> from "line" on.
    std::string_view what = e.what();
    if (const auto at = what.find("at line"); at != std::string_view::npos) {
      what = what.substr(at + 3);
    }
    std::string shown(what.substr(0, 200));
    std::ranges::replace(shown, '\n', ' ');
    return fail(ErrorCode::kInvalid, "is not JSON: " + shown);
  }
}

namespace {

/// The value of an override: JSON where it is JSON, else a string.
Result<nlohmann::json> parse_value(const Override& change) {
  if (!nlohmann::json::accept(change.value)) {
    return nlohmann::json(change.value);
  }
  auto parsed = parse_json(change.value);
  if (!parsed) {
    return std::unexpected(parsed.error().within("--set " + change.path));
  }
  return parsed;
}

}  // namespace

Result<void> apply_override(nlohmann::json& document, const Override& change) {
  // null takes the key away, which is how to ask for no "vnc".
  const auto value = parse_value(change);
  if (!value) {
    return std::unexpected(value.error());
  }
  nlohmann::json* at = &document;
  std::string_view rest = change.path;
  while (true) {
    const auto dot = rest.find('.');
    const std::string key(rest.substr(0, dot));
    const bool index = !key.empty() && key.size() < 4 &&
                       std::ranges::all_of(key, [](char c) { return c >= '0' && c <= '9'; });
    if (key.empty()) {
      return fail(ErrorCode::kInvalid, fmt::format("--set {}: the path has an empty part", change.path));
    }
    if (at->is_array()) {
      const auto position = index ? static_cast<std::size_t>(std::stoul(key)) : at->size() + 1;
      if (position > at->size()) {
        return fail(ErrorCode::kInvalid, fmt::format("--set {}: \"{}\" is not an index of an array of {}",
                                                     change.path, key, at->size()));
      }
      if (position == at->size()) {
        at->push_back(nlohmann::json::object());
      }
      at = &(*at)[position];
    } else if (at->is_object() && value->is_null() && dot == std::string_view::npos) {
      at->erase(key);
      return {};
    } else if (at->is_object() || at->is_null()) {
      at = &(*at)[key];
    } else {
      return fail(ErrorCode::kInvalid,
                  fmt::format("--set {}: there is nothing below a plain value at \"{}\"", change.path, key));
    }
    if (dot == std::string_view::npos) {
      break;
    }
    rest = rest.substr(dot + 1);
  }
  *at = *value;
  return {};
}

}  // namespace whistler

#include "vmm/config/json_reader.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "vmm/config/description.hpp"

namespace whistler {
namespace {

const nlohmann::json& empty_object() {
  static const nlohmann::json instance = nlohmann::json::object();
  return instance;
}

std::string quoted_type(const nlohmann::json& value) {
  constexpr std::size_t kMostShown = 40;
  if (value.is_structured()) {
    return value.is_array() ? "an array" : "an object";
  }
  auto text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (text.size() > kMostShown) {
    text = text.substr(0, kMostShown) + "...";
  }
  return text;
}

/// How many letters to change, add, leave out or swap with their neighbour to get from one to the other.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1);
  std::vector<std::size_t> above(b.size() + 1);
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    before = std::exchange(above, row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substitute = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({substitute, above[j] + 1, row[j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
  }
  return row[b.size()];
}

}  // namespace

std::optional<std::string> nearest_word(std::string_view word, const std::vector<std::string>& known) {
  constexpr std::size_t kLongestWord = 64;
  if (word.size() > kLongestWord || known.empty()) {
    return std::nullopt;
  }
  const auto best =
      std::ranges::min_element(known, {}, [&](const std::string& k) { return edit_distance(word, k); });
  const std::size_t allowed = std::max<std::size_t>(2, word.size() / 3);
  return edit_distance(word, *best) <= allowed ? std::optional(*best) : std::nullopt;
}

void JsonErrors::add(std::string path, std::string reason) {
  if (!first_) {
    first_ = path.empty() ? std::move(reason) : fmt::format("{}: {}", path, reason);
  }
}

void JsonErrors::add_missing(std::string object, std::string path, std::string reason) {
  if (!first_) {
    lacks_key_ = std::move(object);
    add(std::move(path), std::move(reason));
  }
}

void JsonErrors::add_unknown(const std::string& object, std::string path, std::string reason) {
  if (lacks_key_ == object) {
    first_.reset();
    lacks_key_.reset();
  }
  add(std::move(path), std::move(reason));
}

JsonObject::JsonObject(const nlohmann::json& value, std::string path, JsonErrors& errors)
    : value_(&value), path_(std::move(path)), errors_(errors) {
  if (!value.is_object()) {
    errors_.add(path_, fmt::format("is {} where an object {{...}} is needed", quoted_type(value)));
    value_ = &empty_object();
  }
}

std::string JsonObject::path_of(std::string_view key) const {
  return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
}

const nlohmann::json* JsonObject::take(std::string_view key) {
  if (std::ranges::find(known_, key) == known_.end()) {
    known_.emplace_back(key);
  }
  const auto found = value_->find(key);
  return found == value_->end() ? nullptr : &*found;
}

bool JsonObject::has(std::string_view key) { return take(key) != nullptr; }

void JsonObject::boolean(std::string_view key, bool& to) {
  if (const auto* value = take(key)) {
    if (value->is_boolean()) {
      to = value->get<bool>();
    } else {
      error(key, fmt::format("is {} where true or false is needed", quoted_type(*value)));
    }
  }
}

void JsonObject::text(std::string_view key, std::string& to) {
  if (const auto* value = take(key)) {
    if (value->is_string()) {
      to = value->get<std::string>();
      if (to.find('\0') != std::string::npos) {
        error(key, "has a NUL character in it");
      }
    } else {
      error(key, fmt::format("is {} where a string is needed", quoted_type(*value)));
    }
  }
}

void JsonObject::number(std::string_view key, std::int64_t lowest, std::int64_t highest, std::int64_t& to) {
  const auto* value = take(key);
  if (value == nullptr) {
    return;
  }
  const bool fits =
      value->is_number_integer() &&
      !(value->is_number_unsigned() && value->get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX)) &&
      value->get<std::int64_t>() >= lowest && value->get<std::int64_t>() <= highest;
  if (fits) {
    to = value->get<std::int64_t>();
  } else {
    error(key, fmt::format("is {} where a whole number from {} to {} is needed", quoted_type(*value), lowest,
                           highest));
  }
}

void JsonObject::real(std::string_view key, double lowest, double highest, double& to) {
  const auto* value = take(key);
  if (value == nullptr) {
    return;
  }
  if (value->is_number() && value->get<double>() >= lowest && value->get<double>() <= highest) {
    to = value->get<double>();
  } else {
    error(key,
          fmt::format("is {} where a number from {} to {} is needed", quoted_type(*value), lowest, highest));
  }
}

void JsonObject::size(std::string_view key, std::uint64_t lowest, std::uint64_t highest, std::uint64_t& to) {
  const auto* value = take(key);
  if (value == nullptr) {
    return;
  }
  std::uint64_t bytes = 0;
  if (value->is_number_unsigned()) {
    bytes = value->get<std::uint64_t>();
  } else if (value->is_string()) {
    const auto parsed = parse_size(value->get_ref<const std::string&>());
    if (!parsed) {
      error(key, parsed.error().message);
      return;
    }
    bytes = *parsed;
  } else {
    error(key, fmt::format("is {} where a number of bytes or a string like \"1024M\" is needed",
                           quoted_type(*value)));
    return;
  }
  if (bytes < lowest || bytes > highest) {
    error(key, fmt::format("is {} bytes; it must be from {} to {}", bytes, lowest, highest));
    return;
  }
  to = bytes;
}

std::optional<std::ptrdiff_t> JsonObject::choose(std::string_view key,
                                                 const std::vector<std::string_view>& names) {
  const auto* value = take(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (value->is_string()) {
    const auto found = std::ranges::find(names, value->get_ref<const std::string&>());
    if (found != names.end()) {
      return found - names.begin();
    }
  }
  error(key, fmt::format("is {}; it must be one of \"{}\"", quoted_type(*value), fmt::join(names, "\", \"")));
  return std::nullopt;
}

JsonObject JsonObject::object(std::string_view key) {
  const auto* value = take(key);
  return {value != nullptr ? *value : empty_object(), path_of(key), errors_};
}

std::vector<std::pair<const nlohmann::json*, std::string>> JsonObject::array(std::string_view key,
                                                                             std::size_t most) {
  const auto* value = take(key);
  std::vector<std::pair<const nlohmann::json*, std::string>> elements;
  if (value == nullptr) {
    return elements;
  }
  if (!value->is_array() || value->size() > most) {
    error(key, value->is_array()
                   ? fmt::format("has {} elements; at most {} are possible", value->size(), most)
                   : fmt::format("is {} where an array [...] is needed", quoted_type(*value)));
    return elements;
  }
  for (std::size_t i = 0; i < value->size(); ++i) {
    elements.emplace_back(&(*value)[i], fmt::format("{}[{}]", path_of(key), i));
  }
  return elements;
}

void JsonObject::need(std::string_view key, std::string_view why) {
  if (!value_->contains(key)) {
    errors_.add_missing(path_, path_of(key), why.empty() ? "is missing" : fmt::format("is missing: {}", why));
  }
}

void JsonObject::error(std::string_view key, std::string reason) {
  errors_.add(path_of(key), std::move(reason));
}

void JsonObject::finish() {
  for (const auto& [key, value] : value_->items()) {
    if (std::ranges::find(known_, key) != known_.end()) {
      continue;
    }
    const auto shown = nlohmann::json(key).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
    const auto name = shown.substr(1, shown.size() - 2);
    const auto near = nearest_word(key, known_);
    errors_.add_unknown(path_, path_of(name),
                        near ? fmt::format("is not a key here; did you mean \"{}\"?", *near)
                             : fmt::format("is not a key here; the keys are {}", fmt::join(known_, ", ")));
  }
}

}  // namespace whistler

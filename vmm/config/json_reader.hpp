// Reading JSON with every key accounted for: a mistyped or unknown key is an error that names its path.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hpp"

namespace whistler {

/// The first error met in a document; later ones are dropped.
class JsonErrors {
 public:
  void add(std::string path, std::string reason);
  /// The same for a key that is not there: an unknown key of the same object, probably the one mistyped, goes
  /// before it.
  void add_missing(std::string object, std::string path, std::string reason);
  void add_unknown(const std::string& object, std::string path, std::string reason);
  [[nodiscard]] const std::optional<std::string>& first() const { return first_; }

 private:
  std::optional<std::string> first_;
  std::optional<std::string> lacks_key_;  // the object, if first_ is about a missing key
};

/// One object of the document. Ask for each key it may have, then call finish(), which reports the keys
/// nobody asked for.
class JsonObject {
 public:
  /// `value` must outlive the reader. What is not an object is reported and read as an empty one.
  JsonObject(const nlohmann::json& value, std::string path, JsonErrors& errors);

  [[nodiscard]] bool has(std::string_view key);
  void boolean(std::string_view key, bool& to);
  void text(std::string_view key, std::string& to);
  /// A whole number in [lowest, highest].
  void number(std::string_view key, std::int64_t lowest, std::int64_t highest, std::int64_t& to);
  template <typename T>
  void number(std::string_view key, std::int64_t lowest, std::int64_t highest, T& to) {
    std::int64_t wide = static_cast<std::int64_t>(to);
    number(key, lowest, highest, wide);
    to = static_cast<T>(wide);
  }
  /// Any number in [lowest, highest].
  void real(std::string_view key, double lowest, double highest, double& to);
  /// Bytes: a number, or a string like "1024M".
  void size(std::string_view key, std::uint64_t lowest, std::uint64_t highest, std::uint64_t& to);
  /// One of a few words.
  template <typename Enum>
  void choice(std::string_view key, std::initializer_list<std::pair<std::string_view, Enum>> choices,
              Enum& to) {
    std::vector<std::string_view> names;
    for (const auto& [name, value] : choices) {
      names.push_back(name);
    }
    if (const auto index = choose(key, names)) {
      to = (choices.begin() + *index)->second;
    }
  }
  /// The object at `key`; empty if absent. Call finish() on it too.
  [[nodiscard]] JsonObject object(std::string_view key);
  /// The elements of the array at `key` with their paths; none if absent.
  [[nodiscard]] std::vector<std::pair<const nlohmann::json*, std::string>> array(std::string_view key,
                                                                                 std::size_t most);
  /// Whatever is at `key`; null if absent.
  [[nodiscard]] const nlohmann::json* any(std::string_view key) { return take(key); }

  /// Reports that the key is not there, if so.
  void need(std::string_view key, std::string_view why = {});
  void error(std::string_view key, std::string reason);
  void finish();
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const nlohmann::json& value() const { return *value_; }
  [[nodiscard]] JsonErrors& errors() { return errors_; }

 private:
  [[nodiscard]] const nlohmann::json* take(std::string_view key);
  [[nodiscard]] std::optional<std::ptrdiff_t> choose(std::string_view key,
                                                     const std::vector<std::string_view>& names);
  [[nodiscard]] std::string path_of(std::string_view key) const;

  const nlohmann::json* value_;
  std::string path_;
  JsonErrors& errors_;
  std::vector<std::string> known_;
};

/// The word of `known` nearest to `word`, if it is near enough to be a slip.
[[nodiscard]] std::optional<std::string> nearest_word(std::string_view word,
                                                      const std::vector<std::string>& known);

}  // namespace whistler

// Regular expressions of plans: RE2's syntax, whose matching time grows with the text and nothing else.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace re2 {
class RE2;
}

namespace whistler::plan {

/// Where a pattern was found.
struct Found {
  std::size_t start = 0, end = 0;
  bool operator==(const Found&) const = default;
};

/// One expression, compiled. `.` matches a line end too, `^` and `$` match at lines. Copies share it; any
/// thread.
class Pattern {
 public:
  /// kInvalid, saying where, for what is no expression, for one too large, and for one that matches the empty
  /// text: waiting for that would always succeed.
  [[nodiscard]] static Result<Pattern> compile(const std::string& text);
  /// An expression that matches exactly `text`, which is not empty.
  [[nodiscard]] static Pattern literal(const std::string& text);

  /// The first place at or after `from`.
  [[nodiscard]] std::optional<Found> search(std::string_view text, std::size_t from = 0) const;
  /// As it was written.
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  Pattern(std::string text, std::shared_ptr<const re2::RE2> compiled);

  std::string text_;
  std::shared_ptr<const re2::RE2> compiled_;
};

}  // namespace whistler::plan

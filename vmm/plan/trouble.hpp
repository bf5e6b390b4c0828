// Signs of a guest that will not recover, in what it says and shows.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/plan/plan.hpp"

namespace whistler::plan {

/// A sign of trouble that was found.
struct Trouble {
  std::string what;    ///< "Linux has panicked"
  std::size_t at = 0;  ///< where in the text
  /// "Linux has panicked: ..." with the line it stands in.
  [[nodiscard]] std::string with_line(std::string_view text) const;
  /// Whether that line has come to its end.
  [[nodiscard]] bool line_is_whole(std::string_view text) const;
};

/// Looks for the texts of a plan's fail_on. One thread.
class TroubleFinder {
 public:
  explicit TroubleFinder(const FailOn& fail_on);

  /// What is wrong in text that only grows; `seen` says how much of it has been looked at before, and is
  /// moved on.
  [[nodiscard]] std::optional<Trouble> in_stream(std::string_view text, std::size_t& seen) const;
  /// The same in a screen, with its line.
  [[nodiscard]] std::optional<std::string> in_screen(std::string_view text) const;

 private:
  struct Sign {
    Pattern pattern;
    std::string what;
  };
  std::vector<Sign> signs_;
};

/// The whole line of `text` around `at`, without its control characters and blanks at the ends, shortened.
[[nodiscard]] std::string line_around(std::string_view text, std::size_t at);

/// The last 200 bytes of `text` in quotes, with what is no plain character written out.
[[nodiscard]] std::string quoted_end(std::string_view text);

}  // namespace whistler::plan

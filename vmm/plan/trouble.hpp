// Signs of a guest that will not recover, in what it says and shows.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/plan/plan.hpp"

namespace whistler::plan {

/// Looks for the texts of a plan's fail_on. One thread.
class TroubleFinder {
 public:
  explicit TroubleFinder(const FailOn& fail_on);

  /// What is wrong in text that only grows, "Linux has panicked: ..." with the line it stands in; `seen` says
  /// how much of it has been looked at before, and is moved on.
  [[nodiscard]] std::optional<std::string> in_stream(std::string_view text, std::size_t& seen) const;
  /// The same in a screen.
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

}  // namespace whistler::plan

// The arguments of QEMU's options: "file=xp.img,if=ide,index=0", or the same as JSON; and the words of a
// shell command line. Source: QEMU's manual, "Invocation".
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace whistler {

class QemuSettings {
 public:
  /// `first` is the key that the first setting may leave out, if it has a value of its own; other settings
  /// without a value are switched on, or off for "noKEY". Nothing if the text is JSON gone wrong.
  [[nodiscard]] static std::optional<QemuSettings> parse(std::string_view text, std::string_view first);

  /// The value, "" if it is not there. It counts as read.
  [[nodiscard]] std::string take(std::string_view key);
  [[nodiscard]] bool has(std::string_view key) const;
  /// on, yes, true, y; `otherwise` where it is not there.
  [[nodiscard]] bool flag(std::string_view key, bool otherwise);
  void set(std::string_view key, std::string value);
  /// The keys that nobody took.
  [[nodiscard]] std::vector<std::string> left() const;
  /// All keys, each with its value.
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> all() const;

 private:
  struct Setting {
    std::string key, value;
    bool taken = false;
  };
  std::vector<Setting> settings_;
};

/// on, yes, true, y.
[[nodiscard]] bool is_on(std::string_view value);

/// The words a shell would make of a line: quotes and backslashes are understood, what the shell would
/// replace or act on is refused.
[[nodiscard]] Result<std::vector<std::string>> split_shell_words(std::string_view line);

}  // namespace whistler

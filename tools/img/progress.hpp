// The progress line of the tools: "    (12.34/100%)" over and over in one place of the terminal.
#pragma once

namespace whistler::tools {

/// Prints nothing unless enabled. A step is shown when at least one percent came together since the last one
/// shown, and at 0 and 100.
class Progress {
 public:
  explicit Progress(bool enabled) : enabled_(enabled) {}
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  /// Ends the line.
  ~Progress();

  [[nodiscard]] bool enabled() const { return enabled_; }
  /// `percent` of the whole is done.
  void show(double percent);

 private:
  bool enabled_;
  double shown_ = 0;
};

}  // namespace whistler::tools

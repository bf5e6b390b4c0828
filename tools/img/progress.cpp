#include "tools/img/progress.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

namespace whistler::tools {

namespace {
constexpr double kStep = 1.0;
}

Progress::~Progress() {
  if (enabled_) {
    fmt::print("\n");
    std::fflush(stdout);
  }
}

void Progress::show(double percent) {
  if (!enabled_) {
    return;
  }
  percent = std::min(percent, 100.0);
  if (percent <= shown_ + kStep && percent >= shown_ - kStep && percent != 0.0 && percent != 100.0) {
    return;
  }
  shown_ = percent;
  fmt::print("    ({:3.2f}/100%)\r", percent);
  std::fflush(stdout);
}

}  // namespace whistler::tools

// --fork: the server as a process of its own, whose caller learns when it is ready.
#pragma once

#include <optional>

#include "base/unique_fd.hpp"

namespace whistler::tools::nbd {

class Daemon {
 public:
  /// Forks. The parent waits until the child is ready or has failed, passes on what it said, and gets the
  /// status to end with; the child gets nothing and goes on, in the background.
  [[nodiscard]] std::optional<int> start(bool keep_errors);
  /// In the child: it serves from now on. Later messages go where they went before the fork, or nowhere.
  void ready();

 private:
  UniqueFd later_errors_;
};

}  // namespace whistler::tools::nbd

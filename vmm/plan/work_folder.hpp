// Where machines under test keep their files, and who takes them away however the tests end.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/result.hpp"
#include "base/unique_fd.hpp"

namespace whistler::plan {

/// A folder of this run, below whistler-test-UID in the folder for temporary files; only this user may look
/// into either. A process of its own removes it when this one ends, also by SIGKILL. What a run leaves that
/// was killed together with that process, the next run removes.
class WorkFolder {
 public:
  /// Before any thread is started.
  [[nodiscard]] static Result<WorkFolder> create();
  WorkFolder(WorkFolder&& other) noexcept;
  WorkFolder& operator=(WorkFolder&&) = delete;
  /// Removes it.
  ~WorkFolder();

  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  WorkFolder(std::string path, UniqueFd lock) : path_(std::move(path)), lock_(std::move(lock)) {}
  [[nodiscard]] Result<void> start_guard();

  std::string path_;
  UniqueFd lock_;
  UniqueFd life_;  // the guard reads its other end, and sees when this process is no more
  pid_t guard_ = -1;
};

}  // namespace whistler::plan

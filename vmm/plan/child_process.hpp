// One program started by this one, which does not outlive it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/unique_fd.hpp"

namespace whistler::plan {

/// What is started.
struct Program {
  std::string path = "/proc/self/exe";        ///< this very program unless given
  std::string name = "whistler";              ///< as it sees itself
  std::vector<std::string> environment = {};  ///< NAME=VALUE: goes before what this program's own has
  std::uint64_t largest_file = UINT64_MAX;    ///< bytes: it is killed when it writes a larger one
};

/// Killed when it is destroyed, or when the thread that started it ends. One thread.
class ChildProcess {
 public:
  /// `program` with `arguments`, in the folder `folder`; what it prints is added to the file `output`, it
  /// reads nothing, and no signal of the terminal reaches it.
  [[nodiscard]] static Result<ChildProcess> start(const std::vector<std::string>& arguments,
                                                  const std::string& folder, const std::string& output,
                                                  const Program& program = {});
  /// Held while a child is born. Until it has become another program it has all files open that this one had,
  /// and keeps their locks: whoever opens a file that a child is to lock holds this until it is closed.
  [[nodiscard]] static std::mutex& birth();
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) = delete;
  ~ChildProcess() { kill(); }

  /// Its exit status once it has ended; 128 + N if signal N ended it.
  [[nodiscard]] std::optional<int> status();
  /// The signal that ended it; 0 if it left by itself, or runs.
  [[nodiscard]] int signal() const { return signal_; }
  /// Waits for its end, at most `seconds`.
  [[nodiscard]] std::optional<int> wait(double seconds);
  /// Ends it at once, if it still runs.
  void kill();
  /// Readable once it has ended; -1 on a host without such descriptors.
  [[nodiscard]] int fd() const { return pidfd_.get(); }

 private:
  explicit ChildProcess(pid_t pid);

  pid_t pid_ = -1;
  UniqueFd pidfd_;
  std::optional<int> status_;
  int signal_ = 0;
};

}  // namespace whistler::plan

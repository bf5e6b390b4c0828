// Programs of other Debian packages, which only some plans need.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "vmm/plan/child_process.hpp"
#include "vmm/plan/plan.hpp"
#include "vmm/plan/result.hpp"

namespace whistler::plan {

struct Tool {
  std::string_view program;
  std::string_view package;  ///< Debian's
  bool operator==(const Tool&) const = default;
};

inline constexpr Tool kXorriso = {"xorriso", "xorriso"};
inline constexpr Tool kMformat = {"mformat", "mtools"};
inline constexpr Tool kMcopy = {"mcopy", "mtools"};
inline constexpr Tool kFsckFat = {"fsck.fat", "dosfstools"};
inline constexpr Tool kTesseract = {"tesseract", "tesseract-ocr"};

/// Where it is, in PATH or where Debian keeps what is for administrators. kUnsupported, with the name of its
/// package, if it is not installed.
[[nodiscard]] Result<std::string> find_tool(const Tool& tool);

/// That all programs are there that the plan needs of other packages.
[[nodiscard]] Result<void> check_tools(const Plan& plan);

/// One of them at work. Killed when this is destroyed. One thread.
class ToolRun {
 public:
  /// `folder` is where it works, and where what it prints is kept. `largest_file`, in bytes: it is killed
  /// when it writes a larger one.
  [[nodiscard]] static Result<ToolRun> start(const Tool& tool, const std::vector<std::string>& arguments,
                                             const std::string& folder,
                                             std::uint64_t largest_file = UINT64_MAX);
  /// The same for a command of this program.
  [[nodiscard]] static Result<ToolRun> start_whistler(const std::vector<std::string>& arguments,
                                                      const std::string& folder);

  /// Whether it has ended, and well. Else the error is one line: its name and what it said.
  [[nodiscard]] Result<bool> done();
  /// Its exit status once it has ended; 128 + N if signal N ended it.
  [[nodiscard]] std::optional<int> status() { return child_.status(); }
  /// Waits for its end, at most `seconds`.
  void wait(double seconds) { static_cast<void>(child_.wait(seconds)); }
  /// What it is called in messages.
  [[nodiscard]] const std::string& name() const { return name_; }
  /// All it has printed so far.
  [[nodiscard]] std::string output() const;

 private:
  ToolRun(std::string name, std::string output, ChildProcess child)
      : name_(std::move(name)), output_(std::move(output)), child_(std::move(child)) {}
  [[nodiscard]] static Result<ToolRun> start(const std::string& name, const Program& program,
                                             const std::vector<std::string>& arguments,
                                             const std::string& folder);

  std::string name_;
  std::string output_;  // a path
  ChildProcess child_;
};

/// Waits until it is done, and looks after whatever may end that sooner.
using Await = std::function<Done(ToolRun& run)>;

/// Starts it and waits for its end.
[[nodiscard]] Done run_tool(const Tool& tool, const std::vector<std::string>& arguments,
                            const std::string& folder, const Await& await,
                            std::uint64_t largest_file = UINT64_MAX);

}  // namespace whistler::plan

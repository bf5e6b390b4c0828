// A machine under test with all that watches over it: every wait ends, with what was waited for, with the
// reason why it will never come, or at its time limit.
#pragma once

#include <array>
#include <atomic>
#include <expected>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "vmm/plan/guest_process.hpp"
#include "vmm/plan/picture.hpp"
#include "vmm/plan/plan.hpp"
#include "vmm/plan/result.hpp"
#include "vmm/plan/trouble.hpp"

namespace whistler::plan {

/// What all plans of a run share.
struct RunOptions {
  std::string artifacts;  ///< a folder; empty: none are kept
  double scale = 1;       ///< all time limits are multiplied by it
};

/// The screen as it was looked at last.
struct Screen {
  bool text_mode = false;
  std::string text;  ///< of a text mode: rows with a newline each
  unsigned width = 0, height = 0;
  std::uint64_t generation = 0;  ///< rises with every change
  bool exists = true;            ///< there is a video card
};

/// One thread. `guest`, `plan` and `interrupted` outlive it.
class Session {
 public:
  Session(GuestProcess& guest, const Plan& plan, const RunOptions& options,
          const std::atomic<int>& interrupted);

  /// Calls `attempt` whenever something may have changed until it gives true or a failure. `seconds`: the
  /// limit, before it is scaled; the plan's own goes on beside it. `what` comes into the reasons: "X did not
  /// come within 5 s".
  [[nodiscard]] Done until(const std::string& what, double seconds,
                           const std::function<std::expected<bool, Failure>()>& attempt);
  /// The same, and done too if the machine ends: whatever comes next judges that.
  [[nodiscard]] Done until_or_end(const std::string& what, double seconds,
                                  const std::function<std::expected<bool, Failure>()>& attempt);
  /// The same for the machine's end: `attempt` is about its status. That it ends is then no failure.
  [[nodiscard]] Done until_end(const std::string& what, double seconds,
                               const std::function<std::expected<bool, Failure>(int status)>& attempt);
  /// Lets time pass, which is not scaled.
  [[nodiscard]] Done pause(double seconds);

  /// A look at the screen, at most a quarter of a second old.
  [[nodiscard]] std::expected<const Screen*, Failure> screen();
  /// A picture of it.
  [[nodiscard]] std::expected<Picture, Failure> look();
  /// The last look at it.
  [[nodiscard]] const Screen& last_screen() const { return screen_; }
  /// Asks the monitor; that it cannot is a failure.
  [[nodiscard]] std::expected<nlohmann::json, Failure> ask(
      std::string_view command, nlohmann::json arguments = nlohmann::json::object());

  /// Takes an event of that name, if one has come since the last was taken.
  [[nodiscard]] bool take_event(std::string_view name);
  /// Whether the guest has read all keys of that x-type-keys.
  [[nodiscard]] bool typed(std::uint64_t id) const { return typed_ >= id; }
  /// That a reset is what is waited for.
  void expect_reset(bool yes) { reset_expected_ = yes; }

  /// Why the machine has ended though nothing waited for it.
  [[nodiscard]] Failure unexpected_end() const;
  /// Why the guest powered off: "guest-shutdown", "guest-reset", ...; empty if it has not said so.
  [[nodiscard]] const std::string& end_reason() const { return end_reason_; }
  /// Signs of trouble in what it said at the last.
  [[nodiscard]] Done last_check() { return check(); }

  /// What all plans of the run share.
  [[nodiscard]] const RunOptions& options() const { return options_; }
  /// What time limits are multiplied by.
  [[nodiscard]] double scale() const { return options_.scale; }
  [[nodiscard]] GuestProcess& guest() { return guest_; }
  /// Where a search for text goes on, by Where.
  [[nodiscard]] std::size_t& position(Where where) { return positions_[static_cast<std::size_t>(where)]; }
  /// The last pictures that were taken for artifacts, oldest first.
  [[nodiscard]] const std::vector<std::string>& pictures() const { return pictures_; }

 private:
  [[nodiscard]] Done check();
  /// Trouble in what came on a line, which is called `line`.
  [[nodiscard]] Done check_stream(const std::string& text, std::size_t& seen, std::string_view line);
  [[nodiscard]] Done check_screen();
  [[nodiscard]] Done check_life();
  void take_events();
  void take_picture();
  [[nodiscard]] Failure too_late(const std::string& what, double limit, bool plan_limit) const;
  [[nodiscard]] Done wait(const std::string& what, double seconds, bool end_expected,
                          const std::function<std::expected<bool, Failure>()>& attempt);

  GuestProcess& guest_;
  const Plan& plan_;
  const RunOptions& options_;
  const std::atomic<int>& interrupted_;
  TroubleFinder trouble_;
  double ends_;  // of the whole plan
  std::size_t serial_seen_ = 0, debug_seen_ = 0;
  std::array<std::size_t, 3> positions_{};
  Screen screen_;
  double screen_time_ = 0;
  std::uint64_t screen_checked_ = 0;  // generation
  std::vector<std::string> events_;
  std::uint64_t typed_ = 0;
  bool reset_expected_ = false;
  bool unexpected_reset_ = false;
  std::string end_reason_;
  // Signs of life.
  double life_checked_ = 0;
  double last_life_ = 0;
  std::uint64_t last_exits_ = 0, last_generation_ = 0;
  double last_cpu_time_ = 0;
  std::size_t last_said_ = 0;
  std::vector<std::string> pictures_;
  double picture_time_ = 0;
  std::uint64_t picture_generation_ = 0;
};

}  // namespace whistler::plan

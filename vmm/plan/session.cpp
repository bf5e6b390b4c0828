#include "vmm/plan/session.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "vmm/exit_status.hpp"

namespace whistler::plan {
namespace {

using Json = nlohmann::json;

constexpr double kScreenAge = 0.25;  // seconds: how old a look at the screen may be
constexpr double kScreenCheck = 1;   // seconds between looks for a sign of trouble
constexpr double kLifeCheck = 1;     // seconds between looks for a sign of life
constexpr double kRest = 5e6;        // nanoseconds of processor time between two such looks
constexpr double kRestOfLine = 3;    // seconds for the rest of a line with a sign of trouble
constexpr double kPictureEvery = 2;  // seconds
constexpr std::size_t kMostPictures = 8;
constexpr std::size_t kMostEvents = 1000;
constexpr std::size_t kShownRows = 3;

std::string last_rows(std::string_view text) {
  std::vector<std::string> rows;
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find('\n', at), text.size());
    if (auto row = line_around(text, at); !row.empty()) {
      rows.push_back(std::move(row));
    }
    at = end + 1;
  }
  std::string shown;
  for (std::size_t i = rows.size() - std::min(rows.size(), kShownRows); i < rows.size(); ++i) {
    shown += (shown.empty() ? "" : " / ") + rows[i];
  }
  return shown.empty() ? "is empty" : fmt::format("ends with \"{}\"", shown);
}

}  // namespace

Session::Session(GuestProcess& guest, const Plan& plan, const RunOptions& options,
                 const std::atomic<int>& interrupted)
    : guest_(guest),
      plan_(plan),
      options_(options),
      interrupted_(interrupted),
      trouble_(plan.fail_on),
      ends_(now() + plan.time_limit * options.scale),
      last_life_(now()) {}

Done Session::until(const std::string& what, double seconds,
                    const std::function<std::expected<bool, Failure>()>& attempt) {
  return wait(what, seconds, false, attempt);
}

Done Session::until_or_end(const std::string& what, double seconds,
                           const std::function<std::expected<bool, Failure>()>& attempt) {
  return wait(what, seconds, true, [&]() -> std::expected<bool, Failure> {
    return guest_.status() ? std::expected<bool, Failure>(true) : attempt();
  });
}

Done Session::until_end(const std::string& what, double seconds,
                        const std::function<std::expected<bool, Failure>(int status)>& attempt) {
  return wait(what, seconds, true, [&]() -> std::expected<bool, Failure> {
    const auto status = guest_.status();
    return status ? attempt(*status) : std::expected<bool, Failure>(false);
  });
}

Done Session::wait(const std::string& what, double seconds, bool end_expected,
                   const std::function<std::expected<bool, Failure>()>& attempt) {
  const double limit = seconds * options_.scale;
  const double end = now() + limit;
  guest_.pump(0);
  while (true) {
    if (auto sound = check(); !sound) {
      return sound;
    }
    const auto done = attempt();
    if (!done) {
      return std::unexpected(done.error());
    }
    if (*done) {
      return {};
    }
    if (guest_.status() && !end_expected) {
      return std::unexpected(unexpected_end());
    }
    if (now() >= std::min(end, ends_)) {
      return std::unexpected(too_late(what, limit, ends_ < end));
    }
    guest_.pump(std::min(end, ends_) - now());
  }
}

Done Session::pause(double seconds) {
  const double end = now() + seconds;
  // The limit of the plan is all that can end it early.
  return wait("the end of a pause", plan_.time_limit, false,
              [&]() -> std::expected<bool, Failure> { return now() >= end && !guest_.status(); });
}

Done Session::check() {
  take_events();
  if (interrupted_ != 0) {
    return std::unexpected(
        Failure{Verdict::kInterrupted, fmt::format("interrupted by signal {}", interrupted_.load())});
  }
  if (auto sound = check_stream(guest_.serial(), serial_seen_, "serial line"); !sound) {
    return sound;
  }
  if (auto sound = check_stream(guest_.debug(), debug_seen_, "debug console"); !sound) {
    return sound;
  }
  if (guest_.floods()) {
    return std::unexpected(Failure{Verdict::kFailed, "the guest says more than 64 MiB: it runs wild"});
  }
  if (unexpected_reset_ && plan_.fail_on.reset) {
    return std::unexpected(Failure{Verdict::kFailed, "the guest has reset, and no step waits for that"});
  }
  if (guest_.status() || !guest_.running()) {
    return {};
  }
  if (auto sound = check_screen(); !sound) {
    return sound;
  }
  return check_life();
}

Done Session::check_stream(const std::string& text, std::size_t& seen, std::string_view line) {
  const auto found = trouble_.in_stream(text, seen);
  if (!found) {
    return {};
  }
  // What it says of the reason is still on its way, at the speed of a serial line.
  const double end = now() + kRestOfLine;
  while (!found->line_is_whole(text) && !guest_.status() && now() < end) {
    guest_.pump(end - now());
  }
  return std::unexpected(Failure{Verdict::kFailed, fmt::format("{} ({})", found->with_line(text), line)});
}

void Session::take_events() {
  while (auto event = guest_.take_event()) {
    if (event->name == "X_KEYS_TYPED") {
      typed_ = std::max(typed_, event->data.value("id", std::uint64_t{0}));
      continue;
    }
    if (event->name == "SHUTDOWN") {
      end_reason_ = event->data.value("reason", "");
    }
    unexpected_reset_ = unexpected_reset_ || (event->name == "RESET" && !reset_expected_);
    if (events_.size() < kMostEvents) {
      events_.push_back(event->name);
    }
  }
}

bool Session::take_event(std::string_view name) {
  const auto found = std::ranges::find(events_, name);
  if (found == events_.end()) {
    return false;
  }
  events_.erase(events_.begin(), found + 1);
  return true;
}

std::expected<Json, Failure> Session::ask(std::string_view command, Json arguments) {
  auto answer = guest_.ask(command, std::move(arguments), GuestProcess::kAnswerLimit * options_.scale);
  if (answer) {
    return std::move(*answer);
  }
  if (answer.error().code == ErrorCode::kCancelled) {
    // The status comes a moment after the monitor has gone.
    constexpr double kMoment = 30;
    for (const auto end = now() + kMoment; !guest_.status() && now() < end;) {
      guest_.pump(end - now());
    }
    take_events();
    return std::unexpected(unexpected_end());
  }
  return std::unexpected(Failure{Verdict::kFailed, answer.error().message});
}

std::expected<const Screen*, Failure> Session::screen() {
  if (now() - screen_time_ < kScreenAge || !screen_.exists) {
    return &screen_;
  }
  if (plan_.machine.contains("display") && plan_.machine["display"].value("vga", "std") == "none") {
    screen_.exists = false;
    return &screen_;
  }
  auto answer = ask("x-screen-text");
  if (!answer) {
    return std::unexpected(answer.error());
  }
  screen_.text_mode = answer->value("mode", "") == "text";
  screen_.width = answer->value("width", 0U);
  screen_.height = answer->value("height", 0U);
  screen_.generation = answer->value("generation", std::uint64_t{0});
  screen_.text.clear();
  for (const auto& row : answer->value("rows", Json::array())) {
    screen_.text += row.get<std::string>() + "\n";
  }
  screen_time_ = now();
  return &screen_;
}

std::expected<Picture, Failure> Session::look() {
  if (!screen_.exists) {
    return std::unexpected(Failure{Verdict::kFailed, "this machine has no screen"});
  }
  const auto path = guest_.folder() + "/look.png";
  const auto taken = ask("screendump", {{"filename", path}, {"format", "png"}});
  if (!taken) {
    return std::unexpected(taken.error());
  }
  auto picture = read_png(path);
  return picture ? std::expected<Picture, Failure>(std::move(*picture))
                 : std::unexpected(Failure{Verdict::kFailed, picture.error().message});
}

Done Session::check_screen() {
  if (!screen_.exists || now() - screen_time_ < kScreenCheck) {
    return {};
  }
  const auto seen = screen();
  if (!seen) {
    // That the machine has ended is for whoever waits to judge.
    return guest_.status() ? Done() : std::unexpected(seen.error());
  }
  if (screen_.generation != screen_checked_) {
    screen_checked_ = screen_.generation;
    if (auto found = trouble_.in_screen(screen_.text)) {
      return std::unexpected(Failure{Verdict::kFailed, *found + " (screen)"});
    }
  }
  take_picture();
  return {};
}

void Session::take_picture() {
  if (options_.artifacts.empty() || now() - picture_time_ < kPictureEvery ||
      screen_.generation == picture_generation_ || !screen_.exists) {
    return;
  }
  picture_time_ = now();
  picture_generation_ = screen_.generation;
  const auto path = fmt::format("{}/picture-{}.png", guest_.folder(), screen_.generation);
  if (!guest_.ask("screendump", {{"filename", path}, {"format", "png"}})) {
    return;
  }
  pictures_.push_back(path);
  if (pictures_.size() > kMostPictures) {
    std::error_code ignored;
    std::filesystem::remove(pictures_.front(), ignored);
    pictures_.erase(pictures_.begin());
  }
}

Done Session::check_life() {
  if (now() - life_checked_ < kLifeCheck || (!plan_.fail_on.halt && plan_.fail_on.hang <= 0)) {
    return {};
  }
  life_checked_ = now();
  const auto said = guest_.serial().size() + guest_.debug().size();
  const bool still = screen_.generation == last_generation_ && said == last_said_;
  last_generation_ = screen_.generation;
  last_said_ = said;
  if (!still) {
    last_life_ = now();
    return {};
  }
  const auto activity = ask("x-query-activity");
  if (!activity) {
    return guest_.status() ? Done() : std::unexpected(activity.error());
  }
  const auto exits = activity->value("exits", std::uint64_t{0});
  const auto cpu_time = activity->value("cpu-time", 0.0);
  const bool rests = exits == last_exits_ && cpu_time - std::exchange(last_cpu_time_, cpu_time) < kRest;
  // Only what rests is looked at closely, which disturbs it a little.
  if (plan_.fail_on.halt && rests) {
    const auto halted = ask("x-query-halted");
    if (!halted) {
      return guest_.status() ? Done() : std::unexpected(halted.error());
    }
    if (halted->value("for-good", false)) {
      return std::unexpected(
          Failure{Verdict::kFailed, "the guest hangs: every processor halts with interrupts off"});
    }
  }
  if (exits != last_exits_) {
    last_exits_ = exits;
    last_life_ = now();
  }
  const double limit = plan_.fail_on.hang * options_.scale;
  if (limit > 0 && now() - last_life_ >= limit) {
    return std::unexpected(Failure{
        Verdict::kFailed,
        fmt::format("the guest hangs: no exit, no output and no change of the screen for {:.0f} s", limit)});
  }
  return {};
}

Failure Session::unexpected_end() const {
  const auto status = guest_.status().value_or(0);
  auto said = guest_.log();
  // The last words of the program, without those a crash adds below them.
  const auto at = said.rfind("whistler: ");
  said = at == std::string::npos ? "" : line_around(said, at).substr(std::string_view("whistler: ").size());
  const auto because = said.empty() ? "" : ": " + said;
  if (guest_.signal() != 0) {
    return {Verdict::kFailed, fmt::format("whistler run was killed by signal {}", guest_.signal())};
  }
  const auto by_status = [&] {
    return Failure{Verdict::kFailed,
                   fmt::format("the machine ended too soon, with status {} (exit port: {}){}", status,
                               status >> 1, because)};
  };
  if ((status & 1) != 0 && end_reason_ == "guest-shutdown") {
    return by_status();  // though the program has statuses of its own among these
  }
  switch (status) {
    case kExitPoweredOff:
      return {Verdict::kFailed, end_reason_ == "guest-reset"
                                    ? "the guest has reset, and on.reboot is \"exit\""
                                    : "the guest has powered off too soon"};
    case kExitUsage: return {Verdict::kPlanWrong, said.empty() ? "whistler run refuses the machine" : said};
    case kExitHost: return {Verdict::kHostCannot, said.empty() ? "whistler run cannot start" : said};
    case kExitGuestCrashed: return {Verdict::kFailed, said.empty() ? "the guest crashed" : said};
    default: break;
  }
  if (status > kExitSignalled && (status & 1) == 0) {
    return {Verdict::kFailed, fmt::format("whistler run ended with status {}{}", status, because)};
  }
  return by_status();
}

Failure Session::too_late(const std::string& what, double limit, bool plan_limit) const {
  std::string reason = plan_limit ? fmt::format("{} did not come before the plan's time limit of {:g} s",
                                                what, plan_.time_limit * options_.scale)
                                  : fmt::format("{} did not come within {:g} s", what, limit);
  if (!guest_.serial().empty()) {
    reason += fmt::format("; the serial line ends with {}", quoted_end(guest_.serial()));
  }
  if (screen_.exists && screen_.generation != 0) {
    reason += screen_.text_mode
                  ? fmt::format("; the screen {}", last_rows(screen_.text))
                  : fmt::format("; the screen shows graphics of {}x{}", screen_.width, screen_.height);
  }
  return {Verdict::kTimeLimit, reason};
}

}  // namespace whistler::plan

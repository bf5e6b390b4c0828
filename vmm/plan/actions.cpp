#include "vmm/plan/actions.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "vmm/exit_status.hpp"
#include "vmm/plan/artifacts.hpp"
#include "vmm/plan/copy_out.hpp"
#include "vmm/plan/folder_image.hpp"
#include "vmm/plan/ocr.hpp"
#include "vmm/plan/picture.hpp"

namespace whistler::plan {
namespace {

using Json = nlohmann::json;
using Attempt = std::expected<bool, Failure>;

constexpr std::size_t kKeysAtOnce = 4096;  // in one message

std::unexpected<Failure> failed(std::string reason) {
  return std::unexpected(Failure{Verdict::kFailed, std::move(reason)});
}

class Performer {
 public:
  Performer(Session& session, const Plan& plan, const Step& step)
      : session_(session), plan_(plan), step_(step) {}

  Done operator()(const WaitText& wait) {
    if (wait.where == Where::kScreen) {
      return session_.until(step_.name, step_.time_limit, [&]() -> Attempt {
        const auto screen = session_.screen();
        if (!screen) {
          return std::unexpected(screen.error());
        }
        return (*screen)->exists ? Attempt(wait.pattern.search((*screen)->text).has_value())
                                 : failed("this machine has no screen");
      });
    }
    const auto& text = wait.where == Where::kSerial ? session_.guest().serial() : session_.guest().debug();
    auto& position = session_.position(wait.where);
    std::size_t looked_at = std::string::npos;
    return session_.until(step_.name, step_.time_limit, [&]() -> Attempt {
      if (text.size() == looked_at) {
        return false;
      }
      looked_at = text.size();
      const auto found = wait.pattern.search(text, position);
      if (found) {
        position = found->end;
      }
      return found.has_value();
    });
  }

  Done operator()(const WaitEvent& wait) {
    session_.expect_reset(wait.name == "RESET");
    auto done = session_.until(step_.name, step_.time_limit,
                               [&]() -> Attempt { return session_.take_event(wait.name); });
    session_.expect_reset(false);
    return done;
  }

  Done operator()(const WaitPowerOff&) {
    return session_.until_end("the power-off", step_.time_limit, [&](int status) -> Attempt {
      if (status == kExitPoweredOff && session_.end_reason() == "guest-shutdown") {
        return true;
      }
      auto failure = session_.unexpected_end();
      if (status == kExitPoweredOff && session_.end_reason() != "guest-reset") {
        failure.reason = "the machine ended, and its monitor did not say that the guest powered off";
      }
      return std::unexpected(failure);
    });
  }

  Done operator()(const WaitExit& wait) {
    return session_.until_end(fmt::format("the end with status {}", wait.status), step_.time_limit,
                              [&](int status) -> Attempt {
                                if (status == wait.status && session_.guest().signal() == 0) {
                                  return true;
                                }
                                auto failure = session_.unexpected_end();
                                if (failure.verdict == Verdict::kFailed) {
                                  failure.reason = fmt::format("the machine ended with status {}, not {}: {}",
                                                               status, wait.status, failure.reason);
                                }
                                return std::unexpected(failure);
                              });
  }

  Done operator()(const Type& type) {
    for (const auto& one : type.typed) {
      pauses_ += one.wait;
    }
    // What is between two waits goes out together.
    Json keys = Json::array();
    for (const auto& one : type.typed) {
      if (!one.key.empty()) {
        keys.push_back({{"key", one.key}, {"down", one.down}});
      }
      if (!keys.empty() && (one.key.empty() || keys.size() >= kKeysAtOnce)) {
        if (auto done = send_keys(std::exchange(keys, Json::array())); !done) {
          return done;
        }
      }
      if (one.key.empty()) {
        if (auto done = session_.pause(one.wait); !done) {
          return done;
        }
      }
    }
    return keys.empty() ? Done() : send_keys(std::move(keys));
  }

  Done operator()(const SendSerial& send) {
    session_.guest().send_serial(send.text);
    return session_.until_or_end(
        fmt::format("the guest to take {} bytes from the serial line", send.text.size()), step_.time_limit,
        [&]() -> Attempt { return session_.guest().serial_sent(); });
  }

  Done operator()(const PowerButton&) { return tell("system_powerdown"); }

  Done operator()(const ResetButton&) {
    session_.expect_reset(true);
    if (auto done = tell("system_reset"); !done) {
      return done;
    }
    auto done = session_.until("the reset", step_.time_limit,
                               [&]() -> Attempt { return session_.take_event("RESET"); });
    session_.expect_reset(false);
    return done;
  }

  Done operator()(const Sleep& sleep) { return session_.pause(sleep.seconds); }

  Done operator()(const WaitStill& wait) {
    std::optional<Picture> first;
    double since = 0;
    std::uint64_t generation = 0;
    return session_.until(step_.name, step_.time_limit, [&]() -> Attempt {
      const auto screen = session_.screen();
      if (!screen) {
        return std::unexpected(screen.error());
      }
      if (!first || (*screen)->generation != generation) {
        generation = (*screen)->generation;
        auto picture = session_.look();
        if (!picture) {
          return std::unexpected(picture.error());
        }
        // Compared with the first of a row, so that slow changes add up.
        if (!first || different_pixels(*first, *picture) > wait.pixels) {
          first = std::move(*picture);
          since = now();
        }
      }
      return now() - since >= wait.seconds;
    });
  }

  Done operator()(const WaitSize& wait) {
    return session_.until(step_.name, step_.time_limit, [&]() -> Attempt {
      const auto screen = session_.screen();
      if (!screen) {
        return std::unexpected(screen.error());
      }
      return (*screen)->width == wait.width && (*screen)->height == wait.height;
    });
  }

  Done operator()(const WaitImage& wait) {
    const auto wanted = read_wanted(wait.file);
    if (!wanted) {
      return std::unexpected(wanted.error());
    }
    std::optional<Picture> mask;
    if (!wait.mask.empty()) {
      auto read = read_wanted(wait.mask);
      if (!read) {
        return std::unexpected(read.error());
      }
      if (read->width != wanted->width || read->height != wanted->height) {
        return std::unexpected(
            Failure{Verdict::kPlanWrong, fmt::format("{}: is not of the size of {}", wait.mask, wait.file)});
      }
      mask = std::move(*read);
    }
    double best = 100;
    std::uint64_t generation = 0;
    auto done = session_.until(fmt::format("the picture {}", wait.file), step_.time_limit, [&]() -> Attempt {
      const auto screen = session_.screen();
      if (!screen) {
        return std::unexpected(screen.error());
      }
      if (generation == (*screen)->generation) {
        return false;
      }
      generation = (*screen)->generation;
      const auto picture = session_.look();
      if (!picture) {
        return std::unexpected(picture.error());
      }
      const auto off = share_different(*picture, *wanted, mask ? &*mask : nullptr,
                                       {.x = wait.x, .y = wait.y, .tolerance = wait.tolerance});
      best = std::min(best, off);
      return off <= wait.different;
    });
    if (!done && done.error().verdict == Verdict::kTimeLimit) {
      done.error().reason += fmt::format("; at best {:.2f} % of its pixels were different", best);
    }
    return done;
  }

  Done operator()(const WaitOcr& wait) { return wait_ocr(session_, wait, step_.name, step_.time_limit); }

  Done operator()(const Pointer& pointer) {
    if (pointer.by) {
      const auto [x, y] = *pointer.by;
      if (auto done = pointer_events(Json::array({axis("x", x), axis("y", y)})); !done) {
        return done;
      }
    }
    for (unsigned i = 0; i < pointer.clicks; ++i) {
      for (const bool down : {true, false}) {
        const Json event = {{"type", "btn"}, {"data", {{"button", pointer.button}, {"down", down}}}};
        if (auto done = pointer_events(Json::array({event})); !done) {
          return done;
        }
        constexpr double kHeld = 0.1;  // a mouse is asked a hundred times a second at the most
        if (auto done = session_.pause(kHeld); !done) {
          return done;
        }
      }
    }
    return {};
  }

  Done operator()(const Login& login) {
    static const auto kName = Pattern::literal("login: ");
    static const auto kPassword = Pattern::compile("(?i)password: ");
    if (auto asked = comes(kName, "the question for the name"); !asked) {
      return asked;
    }
    session_.guest().send_serial(login.user + "\n");
    if (!login.password.empty()) {
      if (auto asked = comes(*kPassword, "the question for the password"); !asked) {
        return asked;
      }
      session_.guest().send_serial(login.password + "\n");
    }
    return comes(login.prompt, fmt::format("the prompt \"{}\"", login.prompt.text()));
  }

  Done operator()(const ChangeMedium& change) {
    Json arguments = {{"device", change.drive}, {"force", change.force}};
    auto file = change.file;
    if (!change.folder.empty()) {
      const auto number = &step_ - plan_.script->steps.data();
      file = fmt::format("{}/inserted{}.iso", session_.guest().folder(), number);
      if (auto made = make_cd(change.drive, change.folder, file, session_.guest().folder(), awaiting());
          !made) {
        return made;
      }
    }
    if (!file.empty()) {
      arguments.update({{"filename", file}, {"format", change.format}});
    }
    const auto* command = file.empty() ? "eject" : "blockdev-change-medium";
    std::string refusal;
    auto done = session_.until(step_.name, time_left(), [&]() -> Attempt {
      const auto answer = session_.guest().ask(command, arguments);
      if (answer) {
        return true;
      }
      refusal = answer.error().message;
      // The guest is asked to let go of it, and may take its time. That the machine has ended is seen at
      // once.
      const bool locked = refusal.find("is locked") != std::string::npos;
      return locked || answer.error().code == ErrorCode::kCancelled ? Attempt(false) : failed(refusal);
    });
    if (!done && done.error().verdict == Verdict::kTimeLimit) {
      done.error().reason = fmt::format("{}: {}", refusal, done.error().reason);
    }
    return done;
  }

  Done operator()(const CopyOut& copy) {
    const auto& disks = session_.guest().overlays();
    const auto disk = std::ranges::find(disks, copy.drive, &Overlay::drive);
    const auto artifacts = artifacts_folder(session_.options(), plan_);
    const auto& folder = session_.guest().folder();
    const auto to = files_folder(artifacts.empty() ? folder : artifacts, copy.drive);
    if (auto taken = take_files(*disk, to, Damage::kFails, folder, awaiting()); !taken) {
      return taken;
    }
    for (const auto& [name, pattern] : copy.expect) {
      if (auto good = check_file(to, name, pattern); !good) {
        return good;
      }
    }
    return {};
  }

  Done operator()(const Command& command) {
    // The line itself, which the shell echoes, does not hold what its end is known by.
    const auto line = fmt::format("{}; echo WHISTLER-$((40000 + 2323))-$?-END\n", command.text);
    auto& position = session_.position(Where::kSerial);
    const auto& text = session_.guest().serial();
    const auto start = text.size();
    session_.guest().send_serial(line);
    const auto end = Pattern::compile("WHISTLER-42323-[0-9]+-END");
    std::optional<Found> found;
    auto done = session_.until(fmt::format("the end of {}", step_.name), step_.time_limit, [&]() -> Attempt {
      found = end->search(text, start);
      return found.has_value();
    });
    if (!done) {
      return done;
    }
    position = found->end;
    const auto status = text.substr(found->start + std::string_view("WHISTLER-42323-").size());
    const auto output = text.substr(start, found->start - start);
    if (std::atoi(status.c_str()) != command.status) {
      return failed(fmt::format("\"{}\" ended with status {}, not {}; it said {}", command.text,
                                std::atoi(status.c_str()), command.status, quoted_end(output)));
    }
    // What stands in the first line is the command's own echo.
    const auto body = std::min(output.find('\n'), output.size());
    if (command.output && !command.output->search(output, body)) {
      return failed(fmt::format("\"{}\" did not say \"{}\", but {}", command.text, command.output->text(),
                                quoted_end(output.substr(body))));
    }
    return {};
  }

 private:
  /// How a program is waited for: with all that watches over the machine, if it still runs.
  [[nodiscard]] Await awaiting() {
    return [this](ToolRun& run) {
      const auto attempt = [&]() -> Attempt {
        const auto done = run.done();
        return done ? Attempt(*done) : std::unexpected(Failure{Verdict::kHostCannot, done.error().message});
      };
      return session_.guest().status()
                 ? session_.until_end(step_.name, time_left(), [&](int) { return attempt(); })
                 : session_.until(step_.name, time_left(), attempt);
    };
  }

  /// Waits for that on the serial line within what is left of the step's time; a refused login ends it at
  /// once.
  Done comes(const Pattern& pattern, const std::string& what) {
    static const auto kRefused = Pattern::compile("(?i)login incorrect|login failed");
    auto& position = session_.position(Where::kSerial);
    const auto& text = session_.guest().serial();
    return session_.until(what, time_left(), [&]() -> Attempt {
      if (const auto refused = kRefused->search(text, position)) {
        return failed(fmt::format("the guest refuses the login: {}", quoted_end(text.substr(position))));
      }
      const auto found = pattern.search(text, position);
      if (found) {
        position = found->end;
      }
      return found.has_value();
    });
  }

  /// Of the step's limit, which goes on from one message to the next; what the plan itself waits does not
  /// count.
  [[nodiscard]] double time_left() const {
    return std::max(0.0, step_.time_limit - (now() - started_ - pauses_) / session_.scale());
  }

  /// Whether the machine's end comes next, beside what it says before.
  [[nodiscard]] bool end_follows() const {
    auto next = static_cast<std::size_t>(&step_ - plan_.script->steps.data()) + 1;
    const auto is_said = [](const Step& step) {
      const auto* text = std::get_if<WaitText>(&step.action);
      return text != nullptr && text->where != Where::kScreen;
    };
    while (next < plan_.script->steps.size() && is_said(plan_.script->steps[next])) {
      ++next;
    }
    return next < plan_.script->steps.size() &&
           (std::holds_alternative<WaitPowerOff>(plan_.script->steps[next].action) ||
            std::holds_alternative<WaitExit>(plan_.script->steps[next].action));
  }

  Done tell(std::string_view command) {
    const auto told = session_.ask(command);
    return told ? Done() : std::unexpected(told.error());
  }

  Done send_keys(Json keys) {
    const auto count = keys.size();
    const auto interval = static_cast<int>(plan_.type_interval * 1000);
    const auto answer = session_.ask("x-type-keys", {{"keys", std::move(keys)}, {"interval", interval}});
    if (!answer) {
      return std::unexpected(answer.error());
    }
    const auto id = answer->value("id", std::uint64_t{0});
    const auto what = fmt::format("the guest to read {} presses and releases of keys", count);
    const auto all_read = [&]() -> Attempt { return session_.typed(id); };
    // A guest that a key ends may not read that the key is let go.
    auto done = end_follows() ? session_.until_or_end(what, time_left(), all_read)
                              : session_.until(what, time_left(), all_read);
    if (!done && done.error().verdict == Verdict::kTimeLimit) {
      if (const auto left = session_.ask("x-query-keys")) {
        done.error().reason = fmt::format("the guest has not read {} of {} presses and releases of keys: {}",
                                          left->value("left", 0U), count, done.error().reason);
      }
    }
    return done;
  }

  static Json axis(const char* name, int value) {
    return {{"type", "rel"}, {"data", {{"axis", name}, {"value", value}}}};
  }
  Done pointer_events(Json events) {
    const auto answer = session_.ask("input-send-event", {{"events", std::move(events)}});
    return answer ? Done() : std::unexpected(answer.error());
  }

  static std::expected<Picture, Failure> read_wanted(const std::string& path) {
    auto picture = read_png(path);
    if (!picture) {
      return std::unexpected(Failure{Verdict::kPlanWrong, picture.error().message});
    }
    return std::move(*picture);
  }

  Session& session_;
  const Plan& plan_;
  const Step& step_;
  double started_ = now();
  double pauses_ = 0;  // seconds
};

}  // namespace

Done perform(Session& session, const Plan& plan, const Step& step) {
  return std::visit(Performer(session, plan, step), step.action);
}

}  // namespace whistler::plan

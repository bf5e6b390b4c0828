#include "vmm/plan/runner.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "vmm/config/description.hpp"
#include "vmm/exit_status.hpp"
#include "vmm/plan/actions.hpp"
#include "vmm/plan/artifacts.hpp"
#include "vmm/plan/folder_image.hpp"

namespace whistler::plan {
namespace {

constexpr double kStartLimit = 60;  // seconds
constexpr double kEndLimit = 60;
constexpr double kKeepLimit = 60;
constexpr std::string_view kStart = "the machine starts";
constexpr std::string_view kEnd = "the machine ends with its disks whole";
constexpr std::uint64_t kOverhead = 64 * kMiB;  // of a machine beside its memory

Verdict verdict_for(const Error& error) {
  return error.code == ErrorCode::kInvalid || error.code == ErrorCode::kNotFound ||
                 error.code == ErrorCode::kCorrupt
             ? Verdict::kPlanWrong
             : Verdict::kHostCannot;
}

/// One plan on its way.
class PlanRun {
 public:
  PlanRun(const Plan& plan, const RunOptions& options, const std::atomic<int>& interrupted,
          const Progress& progress)
      : plan_(plan), options_(options), interrupted_(interrupted), progress_(progress) {
    result_.name = plan.name;
    result_.source = plan.source.string();
    result_.steps.push_back({.name = std::string(kStart)});
    for (const auto& step : plan.script->steps) {
      result_.steps.push_back({.name = step.name});
    }
    result_.steps.push_back({.name = std::string(kEnd)});
  }

  PlanResult run(const std::string& folder, const std::string& base) {
    bool good = do_step(0, [&] { return start(folder, base); });
    for (std::size_t i = 0; good && i < plan_.script->steps.size(); ++i) {
      good = do_step(i + 1, [&] { return perform(*session_, plan_, plan_.script->steps[i]); });
    }
    good = good && do_step(result_.steps.size() - 1, [&] { return end(); });
    if (!good) {
      keep();
    }
    result_.seconds = now() - started_;
    say(good ? fmt::format("PASSED ({:.1f} s)", result_.seconds)
             : fmt::format("{} ({:.1f} s): {}",
                           result_.verdict == Verdict::kTimeLimit ? "TIME LIMIT" : "FAILED", result_.seconds,
                           result_.reason));
    session_.reset();
    guest_.reset();
    return std::move(result_);
  }

 private:
  void say(const std::string& text) { progress_(fmt::format("{}: {}", plan_.name, text)); }

  bool do_step(std::size_t number, const std::function<Done()>& action) {
    auto& step = result_.steps[number];
    const double begun = now();
    const auto done = action();
    step.seconds = now() - begun;
    step.status = done ? StepStatus::kPassed : StepStatus::kFailed;
    if (!done) {
      step.reason = done.error().reason;
      result_.verdict = done.error().verdict;
      result_.reason = fmt::format("{}: {}", step.name, step.reason);
    }
    say(fmt::format("{}/{} {}: {} after {:.1f} s ({:.1f} s)", number + 1, result_.steps.size(), step.name,
                    done ? "passed" : "FAILED", step.seconds, now() - started_));
    return done.has_value();
  }

  /// How a program is waited for while no machine runs: so long, and until a signal comes.
  [[nodiscard]] Await awaiting(double seconds) const {
    const double limit = seconds * options_.scale;
    return [this, limit, end = now() + limit](ToolRun& run) -> Done {
      constexpr double kLook = 0.05;
      for (auto done = run.done(); !done || !*done; done = run.done()) {
        if (!done) {
          return std::unexpected(Failure{Verdict::kHostCannot, done.error().message});
        }
        if (interrupted_ != 0) {
          return std::unexpected(Failure{Verdict::kInterrupted, "interrupted"});
        }
        if (now() >= end) {
          return std::unexpected(
              Failure{Verdict::kTimeLimit, fmt::format("{} is not done after {:g} s", run.name(), limit)});
        }
        run.wait(kLook);
      }
      return {};
    };
  }

  Done start(const std::string& folder, const std::string& base) {
    std::error_code error;
    if (!std::filesystem::create_directory(folder, error)) {
      return std::unexpected(
          Failure{Verdict::kHostCannot, fmt::format("{}: cannot be created: {}", folder, error.message())});
    }
    if (base.empty()) {
      if (auto made = make_media(plan_, folder, awaiting(plan_.time_limit)); !made) {
        return made;
      }
    }
    auto guest = GuestProcess::start(plan_, folder, base);
    if (!guest) {
      return std::unexpected(Failure{verdict_for(guest.error()), guest.error().message});
    }
    guest_ = std::move(*guest);
    session_ = std::make_unique<Session>(*guest_, plan_, options_, interrupted_);
    auto connected = session_->until("the machine's monitor", kStartLimit,
                                     [&]() -> std::expected<bool, Failure> { return guest_->connected(); });
    if (!connected) {
      if (connected.error().verdict == Verdict::kTimeLimit) {
        connected.error().verdict = Verdict::kHostCannot;
      }
      return connected;
    }
    if (auto resumed = guest_->resume(kStartLimit * options_.scale); !resumed) {
      if (resumed.error().code == ErrorCode::kCancelled) {
        return session_->until_end("the reason", kStartLimit, [&](int) -> std::expected<bool, Failure> {
          return std::unexpected(session_->unexpected_end());
        });
      }
      return std::unexpected(Failure{Verdict::kHostCannot, resumed.error().message});
    }
    return {};
  }

  /// A machine that still runs is stopped, in order, so that what it leaves can be judged.
  Done end() {
    if (auto sound = session_->last_check(); !sound) {
      return sound;
    }
    const bool ended_by_step = guest_->status().has_value();
    if (!ended_by_step) {
      if (const auto told = session_->ask("quit"); !told && !guest_->status()) {
        return std::unexpected(told.error());
      }
      auto ended = session_->until_end(
          "the machine's end", kEndLimit, [&](int status) -> std::expected<bool, Failure> {
            if (status == kExitPoweredOff && session_->end_reason() == "host-qmp-quit") {
              return true;
            }
            return std::unexpected(session_->unexpected_end());
          });
      if (!ended) {
        return ended;
      }
    }
    for (const auto& overlay : guest_->overlays()) {
      if (const auto said = check_disk(overlay, guest_->folder()); !said.empty()) {
        return std::unexpected(Failure{
            Verdict::kFailed, fmt::format("{}: the disk is not whole: {}", overlay.drive,
                                          line_around(said, std::min(said.find('\n') + 1, said.size())))});
      }
    }
    return {};
  }

  /// Saves what tells why it failed.
  void keep() {
    if (!guest_) {
      return;
    }
    if (result_.verdict != Verdict::kInterrupted) {
      result_.detail = last_look(*guest_);
    }
    guest_->kill();
    if (result_.detail.empty()) {
      result_.detail = guest_->log();  // registers, if it crashed
    }
    const auto to = artifacts_folder(options_, plan_);
    if (to.empty()) {
      return;
    }
    if (auto written = write_artifacts(to, plan_, result_, *guest_, session_.get(), awaiting(kKeepLimit));
        !written) {
      say("artifacts: " + written.error().message);
    } else {
      say("artifacts are in " + to);
    }
  }

  const Plan& plan_;
  const RunOptions& options_;
  const std::atomic<int>& interrupted_;
  const Progress& progress_;
  double started_ = now();
  PlanResult result_;
  std::unique_ptr<GuestProcess> guest_;
  std::unique_ptr<Session> session_;
};

std::uint64_t memory_available() {
  std::ifstream info("/proc/meminfo");
  for (std::string name, unit; info >> name;) {
    std::uint64_t value = 0;
    info >> value;
    std::getline(info, unit);
    if (name == "MemAvailable:") {
      return value * kKiB;
    }
  }
  return UINT64_MAX;  // it does not say: no bound
}

/// Which plan comes next: the first that has not begun and whose predecessor has ended. Any thread.
class Order {
 public:
  explicit Order(const std::vector<Plan>& plans) : plans_(plans), states_(plans.size()) {}

  /// Waits until there is one; nothing once all have begun.
  std::optional<std::size_t> take() {
    std::unique_lock lock(lock_);
    while (std::ranges::find(states_, State::kWaits) != states_.end()) {
      for (std::size_t i = 0; i < plans_.size(); ++i) {
        const auto after = plans_[i].after;
        if (states_[i] == State::kWaits && (after == 0 || states_[i - after] == State::kEnded)) {
          states_[i] = State::kRuns;
          return i;
        }
      }
      changed_.wait(lock);
    }
    return std::nullopt;
  }
  void ended(std::size_t which) {
    const std::scoped_lock lock(lock_);
    states_[which] = State::kEnded;
    changed_.notify_all();
  }

 private:
  enum class State : std::uint8_t { kWaits, kRuns, kEnded };
  const std::vector<Plan>& plans_;
  std::mutex lock_;
  std::condition_variable changed_;
  std::vector<State> states_;
};

/// What the host has for machines, and who waits for it.
class Host {
 public:
  explicit Host(unsigned jobs)
      : jobs_(jobs),
        cores_(std::max(jobs_, std::thread::hardware_concurrency())),
        memory_(memory_available()) {}

  void take(const Plan& plan) {
    std::unique_lock lock(lock_);
    changed_.wait(lock, [&] {
      return running_ == 0 || (running_ < jobs_ && cores_taken_ + plan.cores <= cores_ &&
                               memory_taken_ + plan.memory + kOverhead <= memory_);
    });
    ++running_;
    cores_taken_ += plan.cores;
    memory_taken_ += plan.memory + kOverhead;
  }
  void give_back(const Plan& plan) {
    const std::scoped_lock lock(lock_);
    --running_;
    cores_taken_ -= plan.cores;
    memory_taken_ -= plan.memory + kOverhead;
    changed_.notify_all();
  }

 private:
  std::mutex lock_;
  std::condition_variable changed_;
  unsigned jobs_, cores_;
  std::uint64_t memory_;
  unsigned running_ = 0, cores_taken_ = 0;
  std::uint64_t memory_taken_ = 0;
};

}  // namespace

PlanResult run_plan(const Plan& plan, const std::string& folder, const std::string& base,
                    const RunOptions& options, const std::atomic<int>& interrupted,
                    const Progress& progress) {
  return PlanRun(plan, options, interrupted, progress).run(folder, base);
}

std::vector<PlanResult> run_plans(const std::vector<Plan>& plans, const std::string& folder, unsigned jobs,
                                  const RunOptions& options, const std::atomic<int>& interrupted,
                                  const Progress& progress) {
  std::vector<PlanResult> results(plans.size());
  Host host(std::max(jobs, 1U));
  std::mutex lock;
  Order order(plans);
  const Progress one_at_a_time = [&](const std::string& line) {
    const std::scoped_lock hold(lock);
    progress(line);
  };
  const auto work = [&] {
    const auto folder_of = [&](std::size_t number) { return fmt::format("{}/{}", folder, number); };
    while (const auto mine = order.take()) {
      const auto& plan = plans[*mine];
      auto& result = results[*mine];
      const auto before = *mine - plan.after;
      const auto not_run = [&](Verdict verdict, const std::string& why) {
        result = {.name = plan.name,
                  .source = plan.source.string(),
                  .verdict = verdict,
                  .reason = "not run: " + why};
        one_at_a_time(fmt::format("{}: {}", plan.name, result.reason));
      };
      if (plan.after != 0 && results[before].verdict != Verdict::kPassed) {
        not_run(results[before].verdict, fmt::format("{} did not pass", plans[before].name));
        order.ended(*mine);
        continue;
      }
      host.take(plan);
      if (interrupted == 0) {
        const auto base = plan.after == 0 ? std::string() : folder_of(before);
        result = run_plan(plan, folder_of(*mine), base, options, interrupted, one_at_a_time);
      } else {
        not_run(Verdict::kInterrupted, "interrupted");
      }
      host.give_back(plan);
      order.ended(*mine);
    }
  };
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < std::min<std::size_t>(std::max(jobs, 1U), plans.size()); ++i) {
    threads.emplace_back(work);
  }
  for (auto& thread : threads) {
    thread.join();
  }
  return results;
}

}  // namespace whistler::plan

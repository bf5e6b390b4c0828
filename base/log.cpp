#include "base/log.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <mutex>
#include <set>
#include <utility>

#include "base/service.hpp"

namespace whistler {
namespace {

constexpr std::size_t kMaxOnceKeys = 1024;
constexpr std::array<std::string_view, 4> kLevelNames = {"error", "warning", "info", "debug"};
constexpr std::array<std::string_view, 4> kJournalLevels = {"<3>", "<4>", "<6>", "<7>"};  // of syslog(3)

std::atomic<LogLevel> current_level{LogLevel::kWarning};

struct Sink {
  std::mutex mutex;
  std::function<void(LogLevel, std::string_view)> function;
  std::set<std::string, std::less<>> once;
};
Sink& sink() {
  static Sink instance;
  return instance;
}

}  // namespace

void set_log_level(LogLevel level) { current_level = level; }
LogLevel log_level() { return current_level; }

std::string log_line(LogLevel level, std::string_view message, bool for_journal) {
  const auto index = static_cast<std::size_t>(level);
  return fmt::format("{}whistler: {}: {}\n", for_journal ? kJournalLevels[index] : "", kLevelNames[index],
                     message);
}

void log(LogLevel level, std::string_view message) {
  if (level > current_level) {
    return;
  }
  std::scoped_lock lock(sink().mutex);
  if (sink().function) {
    sink().function(level, message);
    return;
  }
  static const bool for_journal = leads_to_journal(STDERR_FILENO);
  const auto line = log_line(level, message, for_journal);
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
}

void log_once(LogLevel level, std::string_view key, std::string_view message) {
  {
    std::scoped_lock lock(sink().mutex);
    if (sink().once.size() >= kMaxOnceKeys || !sink().once.emplace(key).second) {
      return;
    }
  }
  log(level, message);
}

void set_log_sink(std::function<void(LogLevel, std::string_view)> function) {
  std::scoped_lock lock(sink().mutex);
  sink().function = std::move(function);
  sink().once.clear();
}

}  // namespace whistler

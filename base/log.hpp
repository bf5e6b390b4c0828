// Messages for the person who runs Whistler: one line each to standard error, by level.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace whistler {

enum class LogLevel : std::uint8_t { kError, kWarning, kInfo, kDebug };

/// Messages above this level are dropped; kWarning unless told otherwise. Any thread.
void set_log_level(LogLevel level);
[[nodiscard]] LogLevel log_level();

/// Writes "whistler: <level>: <message>\n" in one write. Any thread.
void log(LogLevel level, std::string_view message);
/// That line; for systemd's journal it begins with the level as a number.
[[nodiscard]] std::string log_line(LogLevel level, std::string_view message, bool for_journal);

/// The same, but a given `key` is written only the first time: for what a guest can repeat at will
/// (an access to a register that is not modelled). At most 1024 keys are remembered; later ones are dropped.
void log_once(LogLevel level, std::string_view key, std::string_view message);

/// Sends messages to `sink` instead of standard error (tests); an empty function restores standard error.
void set_log_sink(std::function<void(LogLevel, std::string_view)> sink);

}  // namespace whistler

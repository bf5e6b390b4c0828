// The commands of `whistler io`: what each is called, takes and does.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tools/io/session.hpp"

namespace whistler::tools::io {

/// The words of one command line, as getopt wants them; the first is the command itself.
class Words {
 public:
  explicit Words(const std::string& line);
  Words(const Words&) = delete;
  Words& operator=(const Words&) = delete;

  [[nodiscard]] int count() const { return static_cast<int>(words_.size()); }
  [[nodiscard]] const char* operator[](int index) const {
    return words_[static_cast<std::size_t>(index)].data();
  }
  /// Starts getopt over; next_option() then gives option by option, or -1. Operands come behind them all.
  void rewind();
  int next_option(const char* known);
  /// The value of the option just read.
  [[nodiscard]] static const char* value();
  /// After the options: how many words are left, and the nth of them.
  [[nodiscard]] int left() const;
  [[nodiscard]] const char* operand(int number) const;

 private:
  std::vector<std::vector<char>> words_;
  std::vector<char*> pointers_;
};

struct Command;
/// False: the command failed, and has said why.
using Run = bool (*)(Session& session, Words& words, const Command& command);

enum class Permission : std::uint8_t { kNone, kWrite, kResize };

struct Command {
  const char* name;
  const char* alias;  ///< may be null
  Run run;
  int least;  ///< arguments
  int most;   ///< -1: any number
  bool without_file;
  Permission permission;
  const char* arguments;  ///< null: none are mentioned
  const char* summary;
  const char* help;  ///< null: no more is said than the summary
};

/// The command called so, by name or alias; null if there is none.
[[nodiscard]] const Command* find_command(const std::string& name);
/// All of them, in alphabetical order.
[[nodiscard]] std::span<const Command> all_commands();

/// Prints the line that says how `command` is used. Returns false, for the caller to return.
bool usage(const Command& command);

// read_write.cpp
bool read_command(Session& session, Words& words, const Command& command);
bool write_command(Session& session, Words& words, const Command& command);
// vectors.cpp
bool readv_command(Session& session, Words& words, const Command& command);
bool writev_command(Session& session, Words& words, const Command& command);
// asynchronous.cpp
bool aio_read_command(Session& session, Words& words, const Command& command);
bool aio_write_command(Session& session, Words& words, const Command& command);
bool aio_flush_command(Session& session, Words& words, const Command& command);
// image_commands.cpp
bool flush_command(Session& session, Words& words, const Command& command);
bool discard_command(Session& session, Words& words, const Command& command);
bool truncate_command(Session& session, Words& words, const Command& command);
bool length_command(Session& session, Words& words, const Command& command);
bool info_command(Session& session, Words& words, const Command& command);
bool alloc_command(Session& session, Words& words, const Command& command);
bool map_command(Session& session, Words& words, const Command& command);
// open_commands.cpp
bool open_command(Session& session, Words& words, const Command& command);
bool close_command(Session& session, Words& words, const Command& command);
bool reopen_command(Session& session, Words& words, const Command& command);
// break_commands.cpp
bool break_command(Session& session, Words& words, const Command& command);
bool remove_break_command(Session& session, Words& words, const Command& command);
bool resume_command(Session& session, Words& words, const Command& command);
bool wait_break_command(Session& session, Words& words, const Command& command);
// program_commands.cpp
bool abort_command(Session& session, Words& words, const Command& command);
bool help_command(Session& session, Words& words, const Command& command);
bool quit_command(Session& session, Words& words, const Command& command);
bool sigraise_command(Session& session, Words& words, const Command& command);
bool sleep_command(Session& session, Words& words, const Command& command);

}  // namespace whistler::tools::io

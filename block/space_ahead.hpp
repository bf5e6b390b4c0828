// Space set aside ahead of writes that fill a file from one place on.
//
// A buffered write that brings ext4 a new block accounts for it and keeps it in mind until it gets its place:
// that is nearly half of what such a write costs. Where the place is known beforehand there is nothing to
// account for. So while somebody fills a file, the host is asked for space in steps ahead of the writes, each
// as long as what came before it, and what was not used is given back when the next write comes elsewhere.
#pragma once

#include <cstdint>
#include <optional>

namespace whistler {

/// The longest step, in bytes; also of files that grow under O_DIRECT.
constexpr std::uint64_t kMostSpaceAhead = 16 * 1024 * 1024;

/// True if this process may make a file so long, in bytes (RLIMIT_FSIZE: the kernel kills who tries more).
[[nodiscard]] bool within_file_size_limit(std::uint64_t end);

/// The length of a file in bytes, as the host has it now; nothing if it does not say.
[[nodiscard]] std::optional<std::uint64_t> length_of(int fd);

/// Of one open file, for the thread that writes it. Calls may wait for the file system's journal: for tools,
/// not for a machine.
class SpaceAhead {
 public:
  /// Whether writes to this file become faster by it.
  [[nodiscard]] static bool helps(int fd);

  /// A write of [offset, offset + bytes) will start next, to a file of `file_bytes`. `fresh`: when the file
  /// was opened there was no data, and no space, at `offset` or behind it.
  void before_write(int fd, std::uint64_t file_bytes, std::uint64_t offset, std::uint64_t bytes, bool fresh);
  /// What is set aside and not used becomes a hole again: before the file's space is changed otherwise, and
  /// where space has run out.
  void give_back(int fd);
  /// How far space is set aside: the file is at least as long. 0: nowhere.
  [[nodiscard]] std::uint64_t end() const { return end_; }

 private:
  std::uint64_t run_begin_ = 0;  ///< the last writes, one behind the other, began here
  std::uint64_t used_ = 0;       ///< no write has gone further
  std::uint64_t end_ = 0;        ///< [used_, end_) is set aside, if that is not empty
  bool refused_ = false;         ///< by the host once: no space, or not offered
};

}  // namespace whistler

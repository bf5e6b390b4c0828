// Host ends of serial lines and of the debug console: standard input and output, files, ptys, unix sockets.
#pragma once

#include <termios.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "base/timer_queue.hpp"
#include "base/unique_fd.hpp"
#include "devices/core/char_backend.hpp"
#include "vmm/event_loop.hpp"

namespace whistler {

/// One end of a line. Made without touching the host; open() does that, so that a machine that cannot start
/// for another reason has created nothing. Bytes from the guest are gathered for a moment, so that a line
/// costs one write, not eighty. A reader that falls 64 KiB behind loses the rest. Under the machine lock.
class HostStream : public CharBackend {
 public:
  HostStream(EventLoop& loop, TimerQueue& timers);
  ~HostStream() override;

  /// Whether open() has a chance, found out without creating or changing anything.
  [[nodiscard]] virtual Result<void> check() const { return {}; }
  /// Creates or opens the host's side. Until then what the guest sends is dropped.
  [[nodiscard]] virtual Result<void> open() = 0;
  /// What a person opens to see this end, where the host chose it (a pty's path); else empty. After open().
  [[nodiscard]] virtual std::string address() const { return {}; }

  void send(std::uint8_t byte) override;
  /// Connects the guest's side of the line; it must outlive the stream or be disconnected with nullptr.
  void connect(CharReceiver* receiver);
  /// Writes out what is gathered, as far as the reader takes it.
  void flush();

 protected:
  /// Uses `out` (not owned) for output and `in` (-1: none) for input.
  void attach(int in, int out);
  void detach();
  /// No more input; output goes on.
  void detach_input();
  /// Looks at a byte from the host first; false keeps it from the guest.
  virtual bool admit(std::uint8_t byte) { return static_cast<void>(byte), true; }
  /// Whether to read on while the guest is behind (what it has no room for is lost), instead of letting the
  /// sender wait.
  [[nodiscard]] virtual bool reads_ahead() const { return false; }
  /// The other side is gone.
  virtual void on_hangup() { detach(); }
  EventLoop& loop() { return loop_; }

 private:
  void on_ready(int fd, std::uint32_t events);
  void read_input();
  void pass_on();
  void update_watches();
  void set_watch(int fd, std::uint32_t& current, std::uint32_t wanted);

  EventLoop& loop_;
  Timer flush_timer_;
  CharReceiver* receiver_ = nullptr;
  int in_ = -1;
  int out_ = -1;
  std::uint32_t in_events_ = 0;         // watched for, on in_ (and out_ if it is the same)
  std::uint32_t out_events_ = 0;        // watched for, on an out_ of its own
  std::vector<std::uint8_t> pending_;   // towards the host
  std::vector<std::uint8_t> incoming_;  // towards the guest
};

enum class StdioInput : std::uint8_t { kUse, kLeave };

/// Standard output, and standard input unless it is left to somebody else. A terminal is switched to raw mode
/// while the stream is open; Ctrl-A x ends the program (it raises SIGTERM), Ctrl-A Ctrl-A sends one Ctrl-A.
/// The end of input does not end output.
[[nodiscard]] std::unique_ptr<HostStream> make_stdio_stream(EventLoop& loop, TimerQueue& timers,
                                                            StdioInput input);
/// `path` is created, or emptied.
[[nodiscard]] std::unique_ptr<HostStream> make_file_stream(EventLoop& loop, TimerQueue& timers,
                                                           std::string path);
/// A new pty; address() is its path.
[[nodiscard]] std::unique_ptr<HostStream> make_pty_stream(EventLoop& loop, TimerQueue& timers);
/// Listens on `path`; one client at a time, the newest. The socket is removed at the end.
[[nodiscard]] std::unique_ptr<HostStream> make_unix_stream(EventLoop& loop, TimerQueue& timers,
                                                           std::string path);

}  // namespace whistler

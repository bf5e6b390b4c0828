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

/// Bytes from the guest to one descriptor, gathered for a moment so that a line costs one write, not eighty. A reader
/// that falls 64 KiB behind loses the rest. Under the machine lock.
class HostStream : public CharBackend {
 public:
  /// `to` may be -1: then bytes are dropped until attach().
  HostStream(EventLoop& loop, TimerQueue& timers);
  ~HostStream() override;

  void send(std::uint8_t byte) override;
  /// Connects the guest's side of the line; it must outlive the stream or be disconnected with nullptr.
  void connect(CharReceiver* receiver);
  /// Writes out what is gathered, as far as the reader takes it.
  void flush();

 protected:
  /// Uses `out` (not owned) for output and `in` (-1: none) for input.
  void attach(int in, int out);
  void detach();
  /// Looks at a byte from the host first; false keeps it from the guest.
  virtual bool admit(std::uint8_t byte) { return static_cast<void>(byte), true; }
  /// The other side is gone.
  virtual void on_hangup() { detach(); }
  EventLoop& loop() { return loop_; }

 private:
  void read_input();
  void pass_on();

  EventLoop& loop_;
  Timer flush_timer_;
  CharReceiver* receiver_ = nullptr;
  int in_ = -1;
  int out_ = -1;
  bool watching_out_ = false;
  std::vector<std::uint8_t> pending_;   // towards the host
  std::vector<std::uint8_t> incoming_;  // towards the guest
};

/// Standard input and output. A terminal is switched to raw mode while it lives; Ctrl-A x ends the program (it raises
/// SIGTERM), Ctrl-A Ctrl-A sends one Ctrl-A.
[[nodiscard]] std::unique_ptr<HostStream> make_stdio_stream(EventLoop& loop, TimerQueue& timers);
/// `path` is created, or emptied.
[[nodiscard]] Result<std::unique_ptr<HostStream>> make_file_stream(EventLoop& loop, TimerQueue& timers, const std::string& path);
/// A new pty; `name` receives its path.
[[nodiscard]] Result<std::unique_ptr<HostStream>> make_pty_stream(EventLoop& loop, TimerQueue& timers, std::string& name);
/// Listens on `path`; one client at a time. The socket is removed at the end.
[[nodiscard]] Result<std::unique_ptr<HostStream>> make_unix_stream(EventLoop& loop, TimerQueue& timers, const std::string& path);

}  // namespace whistler

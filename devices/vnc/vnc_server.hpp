// Shows the guest's screen over VNC (RFB 3.3 to 3.8, RFC 6143) and passes on keys and pointer, by
// libvncserver.
//
// What it does: security None or VncAuth; every encoding of libvncserver; DesktopSize; many clients; the QEMU
// pseudo encodings Extended Key Event (-258), LED State (-261) and Pointer Motion Change (-257), which
// libvncserver lacks; keys paced by what the guest has read, so that none is lost however fast a client
// types. Missing: TLS (VeNCrypt, wss), clipboard, audio, a cursor shape (the guest draws its own).
//
// Threads: one listener, asleep in poll() as long as nobody connects, and one thread for each client with a
// libvncserver screen of its own. So no rfb call ever meets another client's, and a client that does not
// read, or stops in the middle of a message, holds up nobody but itself. The machine lock is taken for
// moments: to copy changed pixels and to hand over input; never across socket I/O or encoding.
//
// libvncserver and the dozen libraries behind it are loaded when the first client connects: linked, they
// would cost every start 3 ms and 3 MiB. What start() does itself, binding the socket, shows all errors of
// the configuration.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "base/result.hpp"
#include "devices/core/display.hpp"
#include "devices/core/input.hpp"

namespace whistler {

/// What happens to the others when a client connects.
enum class VncShare : std::uint8_t {
  kAlways,     ///< all clients share the screen, whatever they ask for
  kOnRequest,  ///< a client that asks to be alone disconnects the others (the RFB shared flag)
  kNever,      ///< one client at a time: others are refused while it stays
};

/// One end of a connection.
struct VncAddress {
  std::string host = {}, service = {};  ///< numeric; of "unix:" the path is the service
  std::string family = {};              ///< "ipv4", "ipv6" or "unix"
  bool operator==(const VncAddress&) const = default;
};

/// A step in the life of a client.
struct VncEvent {
  enum class Kind : std::uint8_t { kConnected, kInitialized, kDisconnected };
  Kind kind = Kind::kConnected;
  VncAddress server = {}, client = {};
  bool password = false;  ///< the server asks for one
};

struct VncConfig {
  /// A numeric IPv4 or IPv6 address, "localhost", or "unix:PATH".
  std::string listen = "127.0.0.1";
  /// 0..65535, where 0 lets the host choose; -1 takes the first free port from 5900 on. Not used with
  /// "unix:".
  int port = -1;
  /// Empty for none. VncAuth knows 8 bytes; a longer one is an error rather than cut silently.
  std::string password;
  /// What viewers show as the window's title.
  std::string name = "Whistler";
  VncShare share = VncShare::kAlways;
  /// Told of clients; in their threads, under no lock.
  std::function<void(const VncEvent&)> tell = {};
};

/// At most one at a time in a process, as libvncserver keeps the security types it offers in one place.
class VncServer {
 public:
  /// Clients at a time; more are turned away.
  static constexpr std::size_t kMaxClients = 32;

  /// Binds and listens. Everything referred to must outlive the server; `display` and `input` are used under
  /// `machine_lock` only. Call it and destroy the server without holding that lock.
  /// Errors: kInvalid (address, port, password), kBusy (taken port), kPermission, kIo; the message names
  /// address and port and says what to do.
  static Result<std::unique_ptr<VncServer>> start(const VncConfig& config, DisplaySource& display,
                                                  InputSink& input, std::mutex& machine_lock);
  /// Disconnects everybody (their held keys are released) and joins all threads.
  ~VncServer();
  VncServer(const VncServer&) = delete;
  VncServer& operator=(const VncServer&) = delete;

  /// The TCP port listened on; 0 with "unix:".
  [[nodiscard]] unsigned port() const;
  /// For a person: "127.0.0.1:5900", "[::1]:5900" or "unix:PATH".
  [[nodiscard]] const std::string& address() const;
  /// Where it listens.
  [[nodiscard]] VncAddress local() const;
  /// Any thread.
  [[nodiscard]] bool asks_password() const;
  /// The password that clients need from now on; those who are in stay. Empty: none. kInvalid as for start().
  /// Any thread.
  [[nodiscard]] Result<void> set_password(std::string password);
  /// Connections now, also those that have not authenticated yet. Any thread.
  [[nodiscard]] std::size_t clients() const;

 private:
  class Impl;
  explicit VncServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace whistler

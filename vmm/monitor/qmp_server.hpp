// The monitor's sockets: clients, their messages and the events they are told.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/unique_fd.hpp"
#include "vmm/event_loop.hpp"
#include "vmm/monitor/machine_control.hpp"
#include "vmm/monitor/qmp_protocol.hpp"

namespace whistler::qmp {

/// Where a monitor is: a unix socket to listen on, or to connect to.
struct Address {
  std::string path;
  bool listen = false;
};

/// "unix:PATH[,server[=on|=off]][,nowait|,wait[=on|=off]]". A listening monitor never keeps the machine
/// waiting.
[[nodiscard]] Result<Address> parse_address(std::string_view text);

/// Messages arrive on the event loop, under the machine lock, and wait there; serve() answers them. A client
/// whose command takes its time does not keep others waiting.
class Server {
 public:
  explicit Server(EventLoop& loop) : loop_(loop) {}
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Under the machine lock.
  [[nodiscard]] Result<void> open(const Address& address);
  /// The sockets it listens on.
  [[nodiscard]] std::vector<std::string> sockets() const;
  /// Answers what has arrived, or begins to. It must outlive what it has begun: see PendingWork. The main
  /// thread, without the machine lock.
  void serve(MachineControl& machine);
  /// Tells every client that has introduced itself. Under the machine lock.
  void event(std::string_view name, Json data = {});
  /// Sends what is still to be sent as far as the sockets take it, before the machine ends. Under the machine
  /// lock.
  void flush();

 private:
  struct Client {
    UniqueFd fd;
    Splitter splitter;
    std::deque<std::string> messages;
    std::string output;
    bool negotiated = false;
    bool gone = false;
    bool waits = false;  ///< for the answer to its last command
  };

  void accept_from(int listener);
  void add_client(UniqueFd fd);
  void on_ready(const std::shared_ptr<Client>& client, std::uint32_t events);
  void read_from(Client& client);
  void send(const std::shared_ptr<Client>& client, std::string_view text);
  void write_to(const std::shared_ptr<Client>& client);
  void watch(const std::shared_ptr<Client>& client);
  void drop_those_gone();
  /// Answers one message, at once or later.
  void answer(MachineControl& machine, const std::shared_ptr<Client>& client, const std::string& message);

  EventLoop& loop_;
  struct Listener {
    UniqueFd fd;
    std::string path;
  };
  std::vector<Listener> listeners_;
  std::vector<std::shared_ptr<Client>> clients_;
};

}  // namespace whistler::qmp

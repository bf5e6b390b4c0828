#include "vmm/monitor/qmp_server.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/log.hpp"
#include "vmm/monitor/qmp_commands.hpp"
#include "vmm/unix_socket.hpp"

namespace whistler::qmp {
namespace {

constexpr std::size_t kMostClients = 32;
constexpr std::size_t kMostWaiting = 64;              // messages of one client; more wait in its socket
constexpr std::size_t kMostOutput = 4 * 1024 * 1024;  // for a client that does not read
constexpr std::string_view kUnix = "unix:";

}  // namespace

Result<Address> parse_address(std::string_view text) {
  const auto refused = [&](std::string_view why) {
    return fail(ErrorCode::kInvalid,
                fmt::format("--qmp {}: {}; it is unix:PATH or unix:PATH,server", text, why));
  };
  if (!text.starts_with(kUnix)) {
    return refused("is not a unix socket");
  }
  Address address;
  auto rest = text.substr(kUnix.size());
  const auto comma = std::min(rest.find(','), rest.size());
  address.path = rest.substr(0, comma);
  rest.remove_prefix(comma);
  while (!rest.empty()) {
    rest.remove_prefix(1);
    const auto end = std::min(rest.find(','), rest.size());
    const auto option = rest.substr(0, end);
    rest.remove_prefix(end);
    if (option == "server" || option == "server=on") {
      address.listen = true;
    } else if (option == "server=off") {
      address.listen = false;
    } else if (option != "nowait" && option != "wait=off" && option != "wait=on" && option != "wait") {
      return refused(fmt::format("'{}' is unknown", option));
    }
  }
  return address.path.empty() ? refused("has no path") : Result<Address>(address);
}

Server::~Server() {
  for (const auto& client : clients_) {
    loop_.unwatch(client->fd.get());
  }
  for (const auto& listener : listeners_) {
    loop_.unwatch(listener.fd.get());
    ::unlink(listener.path.c_str());
  }
}

Result<void> Server::open(const Address& address) {
  if (!address.listen) {
    auto fd = connect_unix(address.path);
    if (!fd) {
      return std::unexpected(fd.error());
    }
    add_client(std::move(*fd));
    return {};
  }
  auto fd = listen_unix(address.path);
  if (!fd) {
    return std::unexpected(fd.error());
  }
  const int listener = fd->get();
  listeners_.push_back({std::move(*fd), address.path});
  loop_.watch(listener, EPOLLIN, [this, listener](std::uint32_t) { accept_from(listener); });
  return {};
}

std::vector<std::string> Server::sockets() const {
  std::vector<std::string> paths;
  for (const auto& listener : listeners_) {
    paths.push_back(listener.path);
  }
  return paths;
}

void Server::accept_from(int listener) {
  UniqueFd fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  if (fd.get() >= 0 && clients_.size() < kMostClients) {
    add_client(std::move(fd));
  }
}

void Server::add_client(UniqueFd fd) {
  ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
  auto client = std::make_shared<Client>();
  client->fd = std::move(fd);
  clients_.push_back(client);
  send(client, greeting_line());
}

void Server::watch(const std::shared_ptr<Client>& client) {
  if (client->gone) {
    loop_.unwatch(client->fd.get());  // serve() drops it once what it has asked for is done
    return;
  }
  std::uint32_t events = client->messages.size() < kMostWaiting ? EPOLLIN : 0U;
  events |= client->output.empty() ? 0U : EPOLLOUT;
  loop_.watch(client->fd.get(), events, [this, client](std::uint32_t ready) { on_ready(client, ready); });
}

void Server::on_ready(const std::shared_ptr<Client>& client, std::uint32_t events) {
  if ((events & EPOLLOUT) != 0) {
    write_to(client);
  }
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && client->messages.size() < kMostWaiting) {
    read_from(*client);
  }
  watch(client);
}

void Server::read_from(Client& client) {
  std::array<char, 16384> buffer{};
  const auto got = ::read(client.fd.get(), buffer.data(), buffer.size());
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
    client.gone = true;
    return;
  }
  if (got < 0) {
    return;
  }
  const bool bounded = client.splitter.feed({buffer.data(), static_cast<std::size_t>(got)});
  while (auto message = client.splitter.next()) {
    client.messages.push_back(std::move(*message));
  }
  if (!bounded) {
    log(LogLevel::kError,
        fmt::format("monitor: a client sent a message of over {} bytes: dropped", kLargestMessage));
    client.gone = true;
  }
}

void Server::send(const std::shared_ptr<Client>& client, std::string_view text) {
  client->output += text;
  write_to(client);
  if (client->output.size() > kMostOutput) {
    client->gone = true;  // it does not read
  }
  watch(client);
}

void Server::write_to(const std::shared_ptr<Client>& client) {
  const auto sent = ::send(client->fd.get(), client->output.data(), client->output.size(), MSG_NOSIGNAL);
  if (sent > 0) {
    client->output.erase(0, static_cast<std::size_t>(sent));
  } else if (sent < 0 && errno != EAGAIN && errno != EINTR) {
    client->output.clear();
    client->gone = true;
  }
}

void Server::serve(MachineControl& machine) {
  auto& lock = machine.pc().lock();
  const auto clients = [&] {
    const std::scoped_lock hold(lock);
    return clients_;
  }();
  for (const auto& client : clients) {
    while (true) {
      std::string message;
      {
        const std::scoped_lock hold(lock);
        if (client->messages.empty() || client->waits) {
          break;
        }
        message = std::move(client->messages.front());
        client->messages.pop_front();
        client->waits = true;
      }
      answer(machine, client, message);
    }
  }
  const std::scoped_lock hold(lock);
  drop_those_gone();
}

void Server::answer(MachineControl& machine, const std::shared_ptr<Client>& client,
                    const std::string& message) {
  Json id;
  auto request = read_request(message, id);
  const Reply reply = [this, client, id](const Answer<Json>& answer) {
    client->waits = false;
    send(client, answer_line(answer, id));
    if (!client->messages.empty() || client->gone) {
      loop_.wake();  // so that serve() comes to it
    }
  };
  const auto not_now = [](std::string description) {
    return std::unexpected(Refusal{.error_class = "CommandNotFound", .description = std::move(description)});
  };
  Answer<Json> answer = Json::object();
  if (!request) {
    answer = std::unexpected(request.error());
  } else if (request->command == "qmp_capabilities") {
    if (std::exchange(client->negotiated, true)) {
      answer = not_now("Capabilities negotiation is already complete, command ignored");
    }
  } else if (!client->negotiated) {
    answer = not_now("Expecting capabilities negotiation with 'qmp_capabilities'");
  } else {
    execute(machine, *request, reply);
    return;
  }
  const std::scoped_lock hold(machine.pc().lock());
  reply(std::move(answer));
}

void Server::event(std::string_view name, Json data) {
  const auto line = event_line(name, std::move(data));
  for (const auto& client : clients_) {
    if (client->negotiated && !client->gone) {
      send(client, line);
    }
  }
}

void Server::flush() {
  for (const auto& client : clients_) {
    if (!client->output.empty()) {
      write_to(client);
    }
  }
}

void Server::drop_those_gone() {
  std::erase_if(clients_, [](const std::shared_ptr<Client>& client) {
    return client->gone && client->messages.empty() && !client->waits;
  });
}

}  // namespace whistler::qmp

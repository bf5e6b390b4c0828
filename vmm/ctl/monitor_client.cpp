#include "vmm/ctl/monitor_client.hpp"

#include <fmt/format.h>
#include <poll.h>

#include <chrono>
#include <utility>

#include "vmm/unix_socket.hpp"

namespace whistler {

Result<MonitorClient> MonitorClient::connect(const std::string& socket) {
  auto fd = connect_unix(socket);
  if (!fd) {
    return std::unexpected(fd.error());
  }
  MonitorClient client(std::make_unique<plan::QmpClient>(std::move(*fd)), socket);
  if (auto welcome = client.ask("qmp_capabilities"); !welcome) {
    return std::unexpected(welcome.error());
  }
  return client;
}

Result<nlohmann::json> MonitorClient::ask(const std::string& command, nlohmann::json arguments) {
  constexpr auto kPatience = std::chrono::minutes(1);
  constexpr int kLook = 1000;  // milliseconds
  const auto number = client_->send(command, std::move(arguments));
  const auto until = std::chrono::steady_clock::now() + kPatience;
  for (bool there = true;; there = client_->serve()) {
    if (auto answer = client_->take_answer(number)) {
      return *answer ? Result<nlohmann::json>(**answer)
                     : fail(ErrorCode::kInvalid, answer->error().description);
    }
    while (client_->take_event()) {
    }
    if (!there) {
      return fail(ErrorCode::kIo, fmt::format("{}: the machine has gone", socket_));
    }
    if (std::chrono::steady_clock::now() > until) {
      return fail(ErrorCode::kIo, fmt::format("{}: the machine does not answer", socket_));
    }
    pollfd ready{client_->fd(), static_cast<short>(POLLIN | (client_->wants_to_write() ? POLLOUT : 0)), 0};
    ::poll(&ready, 1, kLook);
  }
}

}  // namespace whistler

// Asks a machine's monitor, one question after the other.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/result.hpp"
#include "vmm/plan/qmp_client.hpp"

namespace whistler {

/// One thread.
class MonitorClient {
 public:
  /// Connects and introduces itself.
  [[nodiscard]] static Result<MonitorClient> connect(const std::string& socket);

  /// Waits for the answer, up to a minute. kInvalid with the monitor's words where it refuses; kIo where it
  /// is gone.
  [[nodiscard]] Result<nlohmann::json> ask(const std::string& command,
                                           nlohmann::json arguments = nlohmann::json::object());

 private:
  MonitorClient(std::unique_ptr<plan::QmpClient> client, std::string socket)
      : client_(std::move(client)), socket_(std::move(socket)) {}

  std::unique_ptr<plan::QmpClient> client_;
  std::string socket_;
};

}  // namespace whistler

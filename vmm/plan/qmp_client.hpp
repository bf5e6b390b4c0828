// The other end of a machine's monitor: asks, and collects events.
#pragma once

#include <deque>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/unique_fd.hpp"
#include "vmm/monitor/qmp_protocol.hpp"

namespace whistler::plan {

struct QmpEvent {
  std::string name;
  nlohmann::json data;
};

/// Never waits: whoever has it polls its descriptor. One thread.
class QmpClient {
 public:
  using Json = nlohmann::json;

  /// Takes over a connection.
  explicit QmpClient(UniqueFd fd);

  [[nodiscard]] int fd() const { return fd_.get(); }
  /// Whether it has something to send that the socket did not take.
  [[nodiscard]] bool wants_to_write() const { return !output_.empty(); }
  /// Reads and sends what can be without waiting. False once the other side is gone, or talks nonsense.
  bool serve();

  /// Sends a command; the answer has this number.
  std::uint64_t send(std::string_view command, Json arguments = Json::object());
  /// The answer to that command, once.
  [[nodiscard]] std::optional<qmp::Answer<Json>> take_answer(std::uint64_t number);
  /// The oldest event that nobody has taken.
  [[nodiscard]] std::optional<QmpEvent> take_event();

 private:
  void understand(const std::string& message);

  UniqueFd fd_;
  qmp::Splitter splitter_;
  std::string output_;
  bool open_ = true;
  std::uint64_t next_ = 1;
  std::map<std::uint64_t, qmp::Answer<Json>> answers_;
  std::deque<QmpEvent> events_;
};

}  // namespace whistler::plan

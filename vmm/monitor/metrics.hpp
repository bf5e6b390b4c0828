// What a machine has done, in Prometheus' text format 0.0.4, over HTTP on a unix socket:
// `curl --unix-socket PATH http://machine/metrics`.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/unique_fd.hpp"
#include "vmm/event_loop.hpp"
#include "vmm/monitor/machine_control.hpp"

namespace whistler {

/// One line a figure, each with its help and type. The main thread, without the machine lock.
[[nodiscard]] std::string metrics_text(MachineControl& machine);

/// Clients arrive on the event loop, under the machine lock, and wait there; serve() answers them. Every
/// request gets the same answer, and its connection is closed.
class MetricsServer {
 public:
  explicit MetricsServer(EventLoop& loop) : loop_(loop) {}
  ~MetricsServer();
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

  /// Under the machine lock.
  [[nodiscard]] Result<void> open(const std::string& path);
  /// The main thread, without the machine lock.
  void serve(MachineControl& machine);

 private:
  struct Client {
    UniqueFd fd;
    std::string request;
    bool complete = false;
  };

  void accept_one();
  void read_from(const std::shared_ptr<Client>& client);
  void drop(const std::shared_ptr<Client>& client);

  EventLoop& loop_;
  UniqueFd listener_;
  std::string path_;
  std::vector<std::shared_ptr<Client>> clients_;
};

}  // namespace whistler

#include "vmm/monitor/metrics.hpp"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <fstream>

#include "vmm/unix_socket.hpp"

namespace whistler {
namespace {

constexpr std::size_t kMostClients = 16;
constexpr std::size_t kLongestRequest = 8192;
constexpr double kSecond = 1e9;

/// A value of a label: backslash, quote and line feed are escaped.
std::string label(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    escaped += c == '\n'               ? std::string("\\n")
               : c == '"' || c == '\\' ? std::string{'\\', c}
                                       : std::string(1, c);
  }
  return escaped;
}

class Text {
 public:
  void head(std::string_view name, std::string_view type, std::string_view help) {
    text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
  }
  template <typename Value>
  void line(std::string_view name, std::string_view labels, Value value) {
    text_ += fmt::format("{}{} {}\n", name, labels.empty() ? "" : fmt::format("{{{}}}", labels), value);
  }
  template <typename Value>
  void only(std::string_view name, std::string_view type, std::string_view help, Value value) {
    head(name, type, help);
    line(name, "", value);
  }
  [[nodiscard]] std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

std::uint64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  std::uint64_t all = 0;
  std::uint64_t resident = 0;
  file >> all >> resident;
  return resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

struct DriveCounts {
  std::string id;
  IoCounts counts;
};

void drive_lines(Text& text, const std::vector<DriveCounts>& drives) {
  const auto each = [&](std::string_view name, std::string_view help, const auto& value) {
    text.head(name, "counter", help);
    for (const auto& [id, counts] : drives) {
      for (const auto& [kind, count] :
           {std::pair("read", &counts.reads), std::pair("write", &counts.writes),
            std::pair("flush", &counts.flushes), std::pair("discard", &counts.discards)}) {
        text.line(name, fmt::format("drive=\"{}\",kind=\"{}\"", label(id), kind), value(*count));
      }
    }
  };
  using Kind = IoCounts::Kind;
  each("whistler_drive_requests_total", "Requests of the guest that have ended.",
       [](const Kind& kind) { return kind.requests; });
  each("whistler_drive_failed_total", "Those that failed.", [](const Kind& kind) { return kind.failed; });
  each("whistler_drive_bytes_total", "Bytes they moved.", [](const Kind& kind) { return kind.bytes; });
  each("whistler_drive_seconds_total", "Time they took, added up.",
       [](const Kind& kind) { return static_cast<double>(kind.nanoseconds) / kSecond; });
}

}  // namespace

std::string metrics_text(MachineControl& machine) {
  const auto state = machine.run_state();
  const auto activity = machine.activity();
  std::vector<DriveCounts> drives;
  std::size_t viewers = 0;
  const auto& description = machine.pc().description();
  {
    const std::scoped_lock lock(machine.pc().lock());
    viewers = machine.pc().vnc_clients().size();
    for (const auto& drive : machine.pc().drives()) {
      drives.push_back({drive->description().id, drive->counts()});
    }
  }
  Text text;
  text.head("whistler_machine", "gauge", "Always 1; the machine's name.");
  text.line("whistler_machine", fmt::format("name=\"{}\"", label(description.name)), 1);
  text.only("whistler_running", "gauge", "1 while the guest runs, 0 while it is held.",
            state == RunState::kRunning ? 1 : 0);
  text.only("whistler_waiting_for_space", "gauge", "1 while the host's disk is full.",
            state == RunState::kIoError ? 1 : 0);
  text.only("whistler_vcpus", "gauge", "The guest's processors.", description.cpu.cores);
  text.only("whistler_vcpu_exits_total", "counter", "Exits to user space, of all vCPUs.", activity.exits);
  text.only("whistler_vcpu_seconds_total", "counter", "Host processor time, of all vCPUs.",
            static_cast<double>(activity.cpu_time) / kSecond);
  text.only("whistler_memory_bytes", "gauge", "The guest's memory.", description.memory);
  text.only("whistler_resident_bytes", "gauge",
            "Memory of the process that is resident, the guest's with it.", resident_bytes());
  text.only("whistler_vnc_clients", "gauge", "VNC clients connected.", viewers);
  drive_lines(text, drives);
  return text.take();
}

MetricsServer::~MetricsServer() {
  while (!clients_.empty()) {
    drop(clients_.back());
  }
  if (listener_.get() >= 0) {
    loop_.unwatch(listener_.get());
    ::unlink(path_.c_str());
  }
}

Result<void> MetricsServer::open(const std::string& path) {
  auto fd = listen_unix(path);
  if (!fd) {
    return std::unexpected(fd.error());
  }
  listener_ = std::move(*fd);
  path_ = path;
  loop_.watch(listener_.get(), EPOLLIN, [this](std::uint32_t) { accept_one(); });
  return {};
}

void MetricsServer::accept_one() {
  UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (fd.get() < 0) {
    return;
  }
  if (clients_.size() >= kMostClients) {
    drop(clients_.front());  // who has waited longest without asking
  }
  auto client = std::make_shared<Client>();
  client->fd = std::move(fd);
  clients_.push_back(client);
  loop_.watch(client->fd.get(), EPOLLIN, [this, client](std::uint32_t) { read_from(client); });
}

void MetricsServer::read_from(const std::shared_ptr<Client>& client) {
  std::array<char, 2048> buffer{};
  const auto got = ::read(client->fd.get(), buffer.data(), buffer.size());
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
    return;
  }
  if (got > 0) {
    client->request.append(buffer.data(), static_cast<std::size_t>(got));
  }
  client->complete = client->request.find("\r\n\r\n") != std::string::npos ||
                     client->request.find("\n\n") != std::string::npos;
  if (client->complete) {
    loop_.unwatch(client->fd.get());  // serve() answers
  } else if (got <= 0 || client->request.size() > kLongestRequest) {
    drop(client);
  }
}

void MetricsServer::drop(const std::shared_ptr<Client>& client) {
  const auto kept = client;  // the list may hold the last one
  loop_.unwatch(kept->fd.get());
  std::erase(clients_, kept);
}

void MetricsServer::serve(MachineControl& machine) {
  std::vector<std::shared_ptr<Client>> ready;
  {
    const std::scoped_lock lock(machine.pc().lock());
    std::ranges::copy_if(clients_, std::back_inserter(ready),
                         [](const auto& client) { return client->complete; });
    std::erase_if(clients_, [](const auto& client) { return client->complete; });
  }
  if (ready.empty()) {
    return;
  }
  const auto body = metrics_text(machine);
  for (const auto& client : ready) {
    const bool get = client->request.starts_with("GET ");
    const auto answer =
        get ? fmt::format(
                  "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n"
                  "Content-Length: {}\r\nConnection: close\r\n\r\n{}",
                  body.size(), body)
            : std::string("HTTP/1.0 405 Method Not Allowed\r\nAllow: GET\r\nConnection: close\r\n\r\n");
    // A few kilobytes: the socket takes them at once, or the client has no use for them.
    [[maybe_unused]] const auto sent = ::send(client->fd.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
  }
}

}  // namespace whistler

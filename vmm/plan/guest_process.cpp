#include "vmm/plan/guest_process.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <utility>

#include "block/create.hpp"
#include "block/nbd/address.hpp"
#include "block/uring/ring.hpp"
#include "vmm/plan/file_text.hpp"
#include "vmm/plan/plan_folders.hpp"
#include "vmm/unix_socket.hpp"

namespace whistler::plan {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMostText = std::size_t{64} << 20;
constexpr double kLastWords = 10;  // seconds for what a machine that has ended still has in its sockets

Result<void> write_file(const std::string& path, std::string_view text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  return file ? Result<void>() : fail(ErrorCode::kIo, fmt::format("{}: cannot be written", path));
}

}  // namespace

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Result<std::unique_ptr<GuestProcess>> GuestProcess::start(const Plan& plan, std::string folder,
                                                          const std::string& base) {
  std::unique_ptr<GuestProcess> guest(new GuestProcess(std::move(folder)));
  if (auto prepared = guest->prepare(plan, base); !prepared) {
    return std::unexpected(prepared.error());
  }
  const auto in = [&](std::string_view name) { return fmt::format("{}/{}", guest->folder_, name); };
  auto listener = listen_unix(in("qmp"));
  if (!listener) {
    return std::unexpected(listener.error());
  }
  guest->listener_ = std::move(*listener);
  auto child = ChildProcess::start({"run", in("machine.json"), "--paused", "--qmp", "unix:" + in("qmp")},
                                   guest->folder_, in("whistler.log"));
  if (!child) {
    return std::unexpected(child.error());
  }
  guest->child_.emplace(std::move(*child));
  return guest;
}

GuestProcess::~GuestProcess() = default;

Result<void> GuestProcess::prepare(const Plan& plan, const std::string& base) {
  auto machine = plan.machine;
  for (std::size_t i = 0; i < plan.folders.size(); ++i) {
    auto& drive = machine["drives"][machine["drives"].size() - plan.folders.size() + i];
    drive["file"] = fmt::format("{}/{}", base.empty() ? folder_ : base, folder_image_name(i));
  }
  if (auto made = make_overlays(machine, base); !made) {
    return made;
  }
  machine["serial"] = Json::array({{{"backend", "unix"}, {"path", folder_ + "/serial"}}});
  machine["debug"]["console"] = fmt::format("file:{}/debug", folder_);
  if (!machine.contains("name")) {
    machine["name"] = "test";
  }
  return write_file(folder_ + "/machine.json",
                    machine.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

Result<void> GuestProcess::make_overlays(Json& machine, const std::string& base) {
  if (!machine.contains("drives")) {
    return {};
  }
  std::unique_ptr<Ring> ring;
  unsigned number = 0;
  for (auto& drive : machine["drives"]) {
    ++number;
    const auto file = drive.value("file", "");
    if (drive.value("media", "disk") != "disk" || drive.value("read_only", false) || file.empty()) {
      continue;
    }
    if (nbd::is_target(file)) {
      return fail(
          ErrorCode::kInvalid,
          fmt::format("{}: a disk on a server would keep what the test writes; set its read_only", file));
    }
    if (!ring) {
      auto made = Ring::create();
      if (!made) {
        return std::unexpected(made.error());
      }
      ring = std::move(*made);
    }
    const auto name = fmt::format("disk{}.qcow2", number);
    Overlay overlay{.drive = drive.value("id", fmt::format("drive {}", number)),
                    .path = fmt::format("{}/{}", folder_, name)};
    NewImage image{.path = overlay.path, .format = "qcow2"};
    image.qcow2.backing_file = base.empty() ? file : fmt::format("{}/{}", base, name);
    image.qcow2.backing_format = base.empty() ? drive.value("format", "raw") : "qcow2";
    {
      // Else another machine's child would hold its lock for a moment when this one's wants it.
      const std::scoped_lock lock(ChildProcess::birth());
      if (auto created = create_image(*ring, image); !created) {
        return std::unexpected(created.error().within(overlay.drive));
      }
    }
    drive["file"] = overlay.path;
    drive["format"] = "qcow2";
    drive["cache"] = "unsafe";  // nobody needs it after a crash of the host
    overlays_.push_back(std::move(overlay));
  }
  return {};
}

void GuestProcess::pump(double seconds) {
  enum : std::size_t { kChild, kListener, kMonitor, kSerial, kCount };
  std::array<pollfd, kCount> wanted{};
  for (auto& one : wanted) {
    one.fd = -1;
    one.events = POLLIN;
  }
  if (child_ && !status_) {
    wanted[kChild].fd = child_->fd();
  }
  wanted[kListener].fd = qmp_ ? -1 : listener_.get();
  if (qmp_open_) {
    wanted[kMonitor].fd = qmp_->fd();
    wanted[kMonitor].events = static_cast<short>(POLLIN | (qmp_->wants_to_write() ? POLLOUT : 0));
  }
  if (serial_fd_) {
    wanted[kSerial].fd = serial_fd_.get();
    wanted[kSerial].events = static_cast<short>(POLLIN | (serial_output_.empty() ? 0 : POLLOUT));
  }
  // The debug console is a file, and a host may have no descriptor for a child: neither wakes poll().
  constexpr double kLongest = 0.05;
  ::poll(wanted.data(), kCount, static_cast<int>(std::clamp(seconds, 0.0, kLongest) * 1000));
  take_connection();
  if (qmp_open_) {
    qmp_open_ = qmp_->serve();
  }
  serve_serial();
  read_debug();
  if (child_ && !status_ && child_->status()) {
    // All it said is in the sockets and the file by now.
    const auto end = now() + kLastWords;
    while (serial_fd_ && now() < end) {
      serve_serial();
    }
    read_debug();
    if (qmp_open_) {
      qmp_open_ = qmp_->serve();
    }
    status_ = child_->status();
  }
}

void GuestProcess::take_connection() {
  if (qmp_ || !listener_) {
    return;
  }
  UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (fd) {
    qmp_.emplace(std::move(fd));
    qmp_open_ = true;
    listener_.reset();
  }
}

Result<void> GuestProcess::resume(double limit) {
  if (auto ready = ask("qmp_capabilities", Json::object(), limit); !ready) {
    return std::unexpected(ready.error());
  }
  auto fd = connect_unix(folder_ + "/serial");
  if (!fd) {
    return std::unexpected(fd.error());
  }
  ::fcntl(fd->get(), F_SETFL, ::fcntl(fd->get(), F_GETFL) | O_NONBLOCK);
  serial_fd_ = std::move(*fd);
  // Once it answers, its loop has also taken the connection of the serial line.
  for (const auto* command : {"query-status", "cont"}) {
    if (auto done = ask(command, Json::object(), limit); !done) {
      return std::unexpected(done.error());
    }
  }
  running_ = true;
  return {};
}

void GuestProcess::serve_serial() {
  if (!serial_fd_) {
    return;
  }
  if (!serial_output_.empty()) {
    const auto sent = ::send(serial_fd_.get(), serial_output_.data(), serial_output_.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      serial_output_.erase(0, static_cast<std::size_t>(sent));
    }
  }
  while (serial_.size() <= kMostText) {
    std::array<char, 65536> buffer{};
    const auto got = ::read(serial_fd_.get(), buffer.data(), buffer.size());
    if (got > 0) {
      serial_.append(buffer.data(), static_cast<std::size_t>(got));
      continue;
    }
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
      serial_fd_.reset();
    }
    return;
  }
}

void GuestProcess::read_debug() {
  if (!debug_fd_) {
    debug_fd_ = UniqueFd(::open((folder_ + "/debug").c_str(), O_RDONLY | O_CLOEXEC));
  }
  while (debug_fd_ && debug_.size() <= kMostText) {
    std::array<char, 65536> buffer{};
    const auto got = ::read(debug_fd_.get(), buffer.data(), buffer.size());
    if (got <= 0) {
      return;
    }
    debug_.append(buffer.data(), static_cast<std::size_t>(got));
  }
}

bool GuestProcess::floods() const { return serial_.size() > kMostText || debug_.size() > kMostText; }

void GuestProcess::kill() {
  if (child_) {
    child_->kill();
    pump(0);
  }
}

std::string GuestProcess::log() const { return file_text(folder_ + "/whistler.log"); }

Result<Json> GuestProcess::ask(std::string_view command, Json arguments, double limit) {
  if (!qmp_open_) {
    return fail(ErrorCode::kCancelled, "the monitor is gone");
  }
  const auto number = qmp_->send(command, std::move(arguments));
  const auto end = now() + limit;
  while (true) {
    if (auto answer = qmp_->take_answer(number)) {
      return *answer ? Result<Json>(std::move(**answer))
                     : fail(ErrorCode::kInvalid, fmt::format("{}: {}", command, answer->error().description));
    }
    if (!qmp_open_) {
      return fail(ErrorCode::kCancelled, fmt::format("{}: the machine has ended", command));
    }
    if (now() >= end) {
      return fail(ErrorCode::kBusy,
                  fmt::format("the monitor does not answer {} within {} s", command, limit));
    }
    pump(end - now());
  }
}

std::optional<QmpEvent> GuestProcess::take_event() { return qmp_ ? qmp_->take_event() : std::nullopt; }

}  // namespace whistler::plan

#include "vmm/plan/qmp_client.hpp"

#include <fcntl.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <utility>

namespace whistler::plan {

QmpClient::QmpClient(UniqueFd fd) : fd_(std::move(fd)) {
  ::fcntl(fd_.get(), F_SETFL, ::fcntl(fd_.get(), F_GETFL) | O_NONBLOCK);
}

bool QmpClient::serve() {
  if (!output_.empty()) {
    const auto sent = ::send(fd_.get(), output_.data(), output_.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      output_.erase(0, static_cast<std::size_t>(sent));
    } else if (sent < 0 && errno != EAGAIN && errno != EINTR) {
      output_.clear();  // what it said before it went is still read below
    }
  }
  while (open_) {
    std::array<char, 16384> buffer{};
    const auto got = ::read(fd_.get(), buffer.data(), buffer.size());
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
      break;
    }
    if (got <= 0 || !splitter_.feed({buffer.data(), static_cast<std::size_t>(got)})) {
      open_ = false;
    }
    while (auto message = splitter_.next()) {
      understand(*message);
    }
  }
  return open_;
}

void QmpClient::understand(const std::string& message) {
  const auto json = Json::parse(message, nullptr, false);
  if (!json.is_object()) {
    return;
  }
  if (json.contains("event") && json["event"].is_string()) {
    events_.push_back({json["event"].get<std::string>(), json.value("data", Json::object())});
  }
  const auto id = json.find("id");
  if (id == json.end() || !id->is_number_unsigned()) {
    return;  // the greeting
  }
  if (json.contains("return")) {
    answers_.insert_or_assign(id->get<std::uint64_t>(), json["return"]);
  } else {
    const auto error = json.value("error", Json::object());
    answers_.insert_or_assign(id->get<std::uint64_t>(), qmp::refuse(error.value("desc", message)));
  }
}

std::uint64_t QmpClient::send(std::string_view command, Json arguments) {
  const auto number = next_++;
  const Json message = {{"execute", command}, {"arguments", std::move(arguments)}, {"id", number}};
  output_ += message.dump(-1, ' ', true, Json::error_handler_t::replace) + "\n";
  serve();
  return number;
}

std::optional<qmp::Answer<nlohmann::json>> QmpClient::take_answer(std::uint64_t number) {
  auto found = answers_.extract(number);
  return found ? std::optional(std::move(found.mapped())) : std::nullopt;
}

std::optional<QmpEvent> QmpClient::take_event() {
  if (events_.empty()) {
    return std::nullopt;
  }
  auto event = std::move(events_.front());
  events_.pop_front();
  return event;
}

}  // namespace whistler::plan

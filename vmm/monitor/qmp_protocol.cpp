#include "vmm/monitor/qmp_protocol.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

namespace whistler::qmp {
namespace {

constexpr int kQemuMajor = 7, kQemuMinor = 2;  // whose protocol this is

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

std::string line_of(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\r\n";
}

}  // namespace

bool Splitter::feed(std::string_view bytes) {
  buffer_ += bytes;
  return !too_deep_ && (buffer_.size() <= kLargestMessage || seen_ < kLargestMessage);
}

std::optional<std::string> Splitter::next() {
  if (seen_ == 0) {
    const auto begin = std::ranges::find_if_not(buffer_, is_space);
    buffer_.erase(buffer_.begin(), begin);
  }
  for (; seen_ < buffer_.size() && !too_deep_; ++seen_) {
    const char c = buffer_[seen_];
    bool complete = false;
    if (in_string_) {
      in_string_ = escaped_ || c != '"';
      escaped_ = !escaped_ && c == '\\';
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      too_deep_ = ++depth_ > kDeepestNesting;
    } else if (c == '}' || c == ']') {
      depth_ -= depth_ > 0 ? 1 : 0;
      complete = depth_ == 0;
    }
    // What is no object or list ends with its line; so does a string that was never closed.
    complete = complete || (c == '\n' && (depth_ == 0 || in_string_));
    if (complete) {
      std::string message = buffer_.substr(0, seen_ + 1);
      buffer_.erase(0, seen_ + 1);
      seen_ = 0;
      depth_ = 0;
      in_string_ = escaped_ = false;
      return message;
    }
  }
  return std::nullopt;
}

std::unexpected<Refusal> refuse(std::string description) {
  return std::unexpected(Refusal{.description = std::move(description)});
}

Answer<Request> read_request(std::string_view text, Json& id) {
  id = nullptr;
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) {
    return refuse("JSON parse error: not a JSON value");
  }
  if (!json.is_object()) {
    return refuse("QMP input must be a JSON object");
  }
  if (const auto found = json.find("id"); found != json.end()) {
    id = *found;
  }
  Request request;
  for (const auto& [key, value] : json.items()) {
    if (key == "execute") {
      if (!value.is_string()) {
        return refuse("QMP input member 'execute' must be a string");
      }
      request.command = value.get<std::string>();
    } else if (key == "arguments") {
      if (!value.is_object()) {
        return refuse("QMP input member 'arguments' must be an object");
      }
      request.arguments = value;
    } else if (key != "id") {
      return refuse(fmt::format("QMP input member '{}' is unexpected", key));
    }
  }
  if (!json.contains("execute")) {
    return refuse("QMP input lacks member 'execute'");
  }
  return request;
}

std::string answer_line(const Answer<Json>& answer, const Json& id) {
  Json json;
  if (answer) {
    json["return"] = *answer;
  } else {
    json["error"] = {{"class", answer.error().error_class}, {"desc", answer.error().description}};
  }
  if (!id.is_null()) {
    json["id"] = id;
  }
  return line_of(json);
}

std::string event_line(std::string_view name, Json data) {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  Json json = {{"timestamp", {{"seconds", now.tv_sec}, {"microseconds", now.tv_nsec / 1000}}},
               {"event", name}};
  if (!data.is_null()) {
    json["data"] = std::move(data);
  }
  return line_of(json);
}

std::string greeting_line() {
  return line_of({{"QMP",
                   {{"version",
                     {{"qemu", {{"major", kQemuMajor}, {"minor", kQemuMinor}, {"micro", 0}}},
                      {"package", "whistler " WHISTLER_VERSION}}},
                    {"capabilities", Json::array()}}}});
}

Json Arguments::take(const std::string& key) {
  Json value;
  if (const auto found = left_.find(key); found != left_.end()) {
    value = std::move(*found);
    left_.erase(found);
  }
  return value;
}

void Arguments::fail(std::string description) {
  if (!refusal_) {
    refusal_ = Refusal{.description = std::move(description)};
  }
}

std::string Arguments::text(const std::string& key) {
  if (!left_.contains(key)) {
    fail(fmt::format("Parameter '{}' is missing", key));
    return {};
  }
  return text_or(key, {});
}

std::string Arguments::text_or(const std::string& key, std::string otherwise) {
  if (!left_.contains(key)) {
    return otherwise;
  }
  const Json value = take(key);
  if (!value.is_string()) {
    fail(fmt::format("Invalid parameter type for '{}', expected: string", key));
    return {};
  }
  return value.get<std::string>();
}

std::int64_t Arguments::number_or(const std::string& key, std::int64_t otherwise) {
  if (!left_.contains(key)) {
    return otherwise;
  }
  const Json value = take(key);
  if (!value.is_number_integer()) {
    fail(fmt::format("Invalid parameter type for '{}', expected: integer", key));
    return otherwise;
  }
  return value.get<std::int64_t>();
}

std::int64_t Arguments::number(const std::string& key) {
  if (!left_.contains(key)) {
    fail(fmt::format("Parameter '{}' is missing", key));
    return 0;
  }
  return number_or(key, 0);
}

bool Arguments::flag_or(const std::string& key, bool otherwise) {
  if (!left_.contains(key)) {
    return otherwise;
  }
  const Json value = take(key);
  if (!value.is_boolean()) {
    fail(fmt::format("Invalid parameter type for '{}', expected: boolean", key));
    return otherwise;
  }
  return value.get<bool>();
}

Json Arguments::list(const std::string& key) {
  if (!left_.contains(key)) {
    fail(fmt::format("Parameter '{}' is missing", key));
    return Json::array();
  }
  Json value = take(key);
  if (!value.is_array()) {
    fail(fmt::format("Invalid parameter type for '{}', expected: array", key));
    return Json::array();
  }
  return value;
}

Json Arguments::object(const std::string& key) {
  Json value = take(key);
  if (value.is_null()) {
    fail(fmt::format("Parameter '{}' is missing", key));
  } else if (!value.is_object()) {
    fail(fmt::format("Invalid parameter type for '{}', expected: object", key));
  }
  return value.is_object() ? value : Json::object();
}

std::size_t Arguments::word_or(const std::string& key, std::span<const std::string_view> words,
                               std::size_t otherwise) {
  if (!left_.contains(key)) {
    return otherwise;
  }
  const auto word = text_or(key, {});
  const auto found = std::ranges::find(words, word);
  if (found == words.end()) {
    fail(fmt::format("Parameter '{}' does not accept value '{}'", key, word));
    return otherwise;
  }
  return static_cast<std::size_t>(found - words.begin());
}

Answer<void> Arguments::finish() {
  if (!refusal_ && !left_.empty()) {
    fail(fmt::format("Parameter '{}' is unexpected", left_.items().begin().key()));
  }
  return refusal_ ? Answer<void>(std::unexpected(*refusal_)) : Answer<void>{};
}

}  // namespace whistler::qmp

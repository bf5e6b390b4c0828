#include "vmm/monitor/qmp_input.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "vmm/board_pc.hpp"
#include "vmm/monitor/key_names.hpp"

namespace whistler::qmp {
namespace {

constexpr std::size_t kMostKeys = 16;  // pressed at once; what is beyond them would not fit the PS/2 queue

/// A key of send-key or input-send-event: { "type": "qcode" | "number", "data": ... }.
Answer<KeyNumber> key_of(const Json& value) {
  if (!value.is_object() || !value.contains("type") || !value.contains("data")) {
    return refuse("Invalid parameter type for 'keys', expected: object");
  }
  const auto& data = value["data"];
  if (value["type"] == "qcode" && data.is_string()) {
    if (const auto key = key_by_name(data.get<std::string>())) {
      return *key;
    }
    return refuse(fmt::format("Parameter 'data' does not accept value '{}'", data.get<std::string>()));
  }
  if (value["type"] == "number" && data.is_number_unsigned() && data.get<std::uint64_t>() <= 0xFF) {
    return data.get<KeyNumber>();
  }
  return refuse("Invalid parameter 'type'");
}

}  // namespace

Answer<Json> send_key(MachineControl& machine, Arguments& arguments) {
  const Json list = arguments.list("keys");
  static_cast<void>(arguments.number_or("hold-time", 0));
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  if (list.size() > kMostKeys) {
    return refuse(fmt::format("Parameter 'keys' holds more than {} keys", kMostKeys));
  }
  std::vector<KeyNumber> keys;
  for (const auto& value : list) {
    const auto key = key_of(value);
    if (!key) {
      return std::unexpected(key.error());
    }
    keys.push_back(*key);
  }
  const std::scoped_lock lock(machine.pc().lock());
  auto& input = machine.pc().board().input();
  for (const auto key : keys) {
    input.key(key, true);
  }
  for (auto key = keys.rbegin(); key != keys.rend(); ++key) {
    input.key(*key, false);
  }
  return Json::object();
}

namespace {

/// Members as they are wanted; a member of another type counts as missing.
std::string text_in(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}
bool flag_in(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_boolean() && found->get<bool>();
}
std::optional<std::int64_t> number_in(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_integer() ? std::optional(found->get<std::int64_t>())
                                                             : std::nullopt;
}

constexpr std::int64_t kMostAbsolute = 0x7FFF;
constexpr std::size_t kMostEvents = 256;

/// What the events of one input-send-event add up to: keys at once, the pointer as one report.
class InputEvents {
 public:
  explicit InputEvents(InputSink& sink) : sink_(sink) {}

  Answer<void> check(const Json& event) { return read(event, false); }
  void send(const Json& event) { static_cast<void>(read(event, true)); }
  void finish() {
    if (placed_) {
      sink_.pointer_place(x_, y_, wheel_, buttons_);
    } else if (moved_) {
      sink_.pointer_move(dx_, dy_, wheel_, buttons_);
    }
  }
  void set_buttons(unsigned held) { buttons_ = held; }
  [[nodiscard]] unsigned buttons() const { return buttons_; }

 private:
  Answer<void> read(const Json& event, bool act) {
    const auto type = text_in(event, "type");
    const auto found = event.find("data");
    if (found == event.end() || !found->is_object()) {
      return refuse("Parameter 'events[0].data' is missing");
    }
    const Json& data = *found;
    if (type == "key") {
      const auto key = key_of(data.contains("key") ? data["key"] : Json::object());
      if (!key) {
        return std::unexpected(key.error());
      }
      if (act) {
        sink_.key(*key, flag_in(data, "down"));
      }
      return {};
    }
    if (type == "btn") {
      return button(text_in(data, "button"), flag_in(data, "down"), act);
    }
    if (type == "rel" || type == "abs") {
      const auto value = number_in(data, "value");
      return value ? axis(type == "abs", text_in(data, "axis"), *value, act)
                   : refuse("Invalid parameter type for 'value', expected: integer");
    }
    return refuse(fmt::format("Parameter 'type' does not accept value '{}'", type));
  }

  Answer<void> button(const std::string& name, bool down, bool act) {
    const unsigned bit = name == "left"     ? kButtonLeft
                         : name == "right"  ? kButtonRight
                         : name == "middle" ? kButtonMiddle
                                            : 0;
    if (bit == 0 && name != "wheel-up" && name != "wheel-down") {
      return refuse(fmt::format("Parameter 'button' does not accept value '{}'", name));
    }
    if (act) {
      moved_ = true;
      buttons_ = down ? buttons_ | bit : buttons_ & ~bit;
      wheel_ += bit != 0 || !down ? 0 : name == "wheel-up" ? 1 : -1;
    }
    return {};
  }

  Answer<void> axis(bool absolute, const std::string& name, std::int64_t value, bool act) {
    if (name != "x" && name != "y") {
      return refuse(fmt::format("Parameter 'axis' does not accept value '{}'", name));
    }
    if (act && absolute) {
      placed_ = true;
      (name == "x" ? x_ : y_) = static_cast<unsigned>(std::clamp<std::int64_t>(value, 0, kMostAbsolute));
    } else if (act) {
      moved_ = true;
      (name == "x" ? dx_ : dy_) += static_cast<int>(std::clamp(value, -kMostAbsolute, kMostAbsolute));
    }
    return {};
  }

  InputSink& sink_;
  bool placed_ = false, moved_ = false;
  unsigned x_ = 0, y_ = 0, buttons_ = 0;
  int dx_ = 0, dy_ = 0, wheel_ = 0;
};

}  // namespace

Answer<Json> input_send_event(MachineControl& machine, Arguments& arguments) {
  const Json list = arguments.list("events");
  static_cast<void>(arguments.text_or("device", ""));
  static_cast<void>(arguments.number_or("head", 0));
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  if (list.size() > kMostEvents) {
    return refuse(fmt::format("Parameter 'events' holds more than {} events", kMostEvents));
  }
  const std::scoped_lock lock(machine.pc().lock());
  InputEvents events(machine.pc().board().input());
  // All or none: what is wrong is found before anything is sent.
  for (const auto& event : list) {
    if (!event.is_object()) {
      return refuse("Invalid parameter type for 'events', expected: object");
    }
    if (auto sound = events.check(event); !sound) {
      return std::unexpected(sound.error());
    }
  }
  events.set_buttons(machine.pointer_buttons());
  for (const auto& event : list) {
    events.send(event);
  }
  events.finish();
  machine.pointer_buttons() = events.buttons();
  return Json::object();
}

Answer<Json> type_keys(MachineControl& machine, Arguments& arguments) {
  constexpr std::size_t kMost = 16384;  // of one message
  constexpr std::int64_t kLongestInterval = 10'000;
  const Json list = arguments.list("keys");
  const auto interval = arguments.number_or("interval", 5);
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  if (list.size() > kMost || interval < 0 || interval > kLongestInterval) {
    return refuse(fmt::format("At most {} keys and {} ms between them", kMost, kLongestInterval));
  }
  std::vector<KeyFeeder::Change> changes;
  for (const auto& value : list) {
    const bool sound = value.is_object() && value.contains("key") && value["key"].is_string() &&
                       value.contains("down") && value["down"].is_boolean();
    const auto key = sound ? key_by_name(value["key"].get<std::string>()) : std::nullopt;
    if (!key) {
      return refuse(fmt::format("Parameter 'keys' does not accept value '{}'", value.dump()));
    }
    changes.push_back({*key, value["down"].get<bool>()});
  }
  const std::scoped_lock lock(machine.pc().lock());
  const auto id = machine.keys().add(changes, interval * (kNanosecondsPerSecond / 1000));
  return Json{{"id", id}};
}

Json keys_left(MachineControl& machine) {
  const std::scoped_lock lock(machine.pc().lock());
  return {{"left", machine.keys().left()}};
}

}  // namespace whistler::qmp

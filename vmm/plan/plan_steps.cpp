#include "vmm/plan/plan_steps.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

namespace whistler::plan {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMostSteps = 1000;
constexpr std::size_t kMostExpected = 64;
constexpr double kMostSeconds = 86'400;
constexpr double kStepLimit = 120;
constexpr std::int64_t kMostPixels = std::int64_t{1} << 24;
constexpr std::int64_t kFarthest = 32'767;
constexpr std::int64_t kHighestStatus = 255;
constexpr std::int64_t kHighestExitValue = 127;
constexpr std::size_t kLongestShown = 60;

/// What a step may wait for: those that come by themselves. SHUTDOWN is the machine's end.
const std::vector<std::string>& event_names() {
  static const std::vector<std::string> names = {"POWERDOWN", "RESET", "RESUME", "STOP"};
  return names;
}

/// A step's key with what it is given, as reports show it.
std::string shown(std::string_view verb, const Json& value) {
  auto text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (value.is_boolean()) {
    return std::string(verb);
  }
  if (text.size() > kLongestShown) {
    auto end = kLongestShown;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) {
      --end;  // not within a character
    }
    text = text.substr(0, end) + "...";
  }
  return fmt::format("{} {}", verb, text);
}

class StepReader {
 public:
  StepReader(const Json& value, std::string path, const StepContext& context, JsonErrors& errors)
      : object_(value, std::move(path), errors), context_(context), errors_(errors) {}

  std::optional<Step> read(double default_limit) {
    Step step;
    step.time_limit = default_limit;
    object_.text("name", step.name);
    object_.real("timeout", 0.1, kMostSeconds, step.time_limit);
    std::optional<Action> action;
    for (const auto& verb : verbs()) {
      if (!object_.has(verb.name)) {
        continue;
      }
      if (!step.verb.empty()) {
        errors_.add(object_.path(),
                    fmt::format("does two things, {} and {}: make them two steps", step.verb, verb.name));
        return std::nullopt;
      }
      step.verb = verb.name;
      action = (this->*verb.read)(verb.name);
      if (step.name.empty()) {
        step.name = shown(verb.name, *object_.any(verb.name));
      }
    }
    if (step.verb.empty() && object_.value().is_object()) {
      errors_.add_missing(object_.path(), object_.path(),
                          fmt::format("does nothing; it needs one of {}", fmt::join(names(), ", ")));
    }
    object_.finish();
    if (!action) {
      return std::nullopt;
    }
    step.action = std::move(*action);
    return step;
  }

 private:
  struct Verb {
    const char* name;
    std::optional<Action> (StepReader::*read)(const char* key);
  };
  static const std::vector<Verb>& verbs() {
    static const std::vector<Verb> all = {
        {"wait_serial", &StepReader::wait_text<Where::kSerial>},
        {"wait_screen", &StepReader::wait_text<Where::kScreen>},
        {"wait_debug", &StepReader::wait_text<Where::kDebug>},
        {"wait_event", &StepReader::wait_event},
        {"wait_power_off", &StepReader::press<WaitPowerOff>},
        {"wait_exit", &StepReader::wait_exit},
        {"wait_exit_value", &StepReader::wait_exit_value},
        {"wait_still", &StepReader::wait_still},
        {"wait_size", &StepReader::wait_size},
        {"wait_image", &StepReader::wait_image},
        {"wait_ocr", &StepReader::wait_ocr},
        {"type", &StepReader::type},
        {"keys", &StepReader::keys},
        {"pointer", &StepReader::pointer},
        {"send_serial", &StepReader::send_serial},
        {"command", &StepReader::command},
        {"login", &StepReader::login},
        {"eject", &StepReader::eject},
        {"insert", &StepReader::insert},
        {"copy_out", &StepReader::copy_out},
        {"power_button", &StepReader::press<PowerButton>},
        {"reset_button", &StepReader::press<ResetButton>},
        {"sleep", &StepReader::sleep},
    };
    return all;
  }
  static std::vector<std::string> names() {
    std::vector<std::string> all;
    for (const auto& verb : verbs()) {
      all.emplace_back(verb.name);
    }
    return all;
  }
  [[nodiscard]] std::string path_of(const char* key) const { return object_.path() + "." + key; }
  std::nullopt_t wrong(const char* key, std::string reason) {
    object_.error(key, std::move(reason));
    return std::nullopt;
  }

  template <Where where>
  std::optional<Action> wait_text(const char* key) {
    auto pattern = read_pattern(*object_.any(key), path_of(key), errors_);
    return pattern ? std::optional<Action>(WaitText{where, std::move(*pattern)}) : std::nullopt;
  }

  template <typename What>
  std::optional<Action> press(const char* key) {
    bool yes = false;
    object_.boolean(key, yes);
    return yes ? std::optional<Action>(What{}) : wrong(key, "must be true");
  }

  std::optional<Action> wait_event(const char* key) {
    std::string name;
    object_.text(key, name);
    if (std::ranges::find(event_names(), name) == event_names().end()) {
      return wrong(key, fmt::format("must be one of {}; the machine's end is wait_power_off or wait_exit",
                                    fmt::join(event_names(), ", ")));
    }
    return WaitEvent{name};
  }

  std::optional<Action> wait_exit(const char* key) {
    WaitExit wait;
    object_.number(key, 0, kHighestStatus, wait.status);
    return wait;
  }
  std::optional<Action> wait_exit_value(const char* key) {
    int value = 0;
    object_.number(key, 0, kHighestExitValue, value);
    return WaitExit{value << 1 | 1};
  }

  std::optional<Action> wait_still(const char* key) {
    WaitStill wait;
    if (!object_.any(key)->is_object()) {
      object_.real(key, 0.1, kMostSeconds, wait.seconds);
      return wait;
    }
    auto inner = object_.object(key);
    inner.need("seconds");
    inner.real("seconds", 0.1, kMostSeconds, wait.seconds);
    inner.number("pixels", 0, kMostPixels, wait.pixels);
    inner.finish();
    return wait;
  }

  std::optional<Action> wait_image(const char* key) {
    WaitImage wait;
    auto inner = object_.object(key);
    inner.need("file", "a picture in PNG");
    wait.file = file_in(inner, "file");
    wait.mask = file_in(inner, "mask");
    inner.number("x", 0, kFarthest, wait.x);
    inner.number("y", 0, kFarthest, wait.y);
    inner.number("tolerance", 0, 254, wait.tolerance);
    inner.real("different", 0, 50, wait.different);
    inner.finish();
    return wait;
  }
  std::optional<Action> wait_ocr(const char* key) {
    if (!object_.any(key)->is_object()) {
      auto pattern = read_pattern(*object_.any(key), path_of(key), errors_);
      return pattern ? std::optional<Action>(WaitOcr{std::move(*pattern)}) : std::nullopt;
    }
    static const auto kLanguage = Pattern::compile("\\A[A-Za-z_]+(\\+[A-Za-z_]+)*\\z");
    auto inner = object_.object(key);
    inner.need("text", "a regular expression");
    auto pattern =
        inner.has("text") ? read_pattern(*inner.any("text"), inner.path() + ".text", errors_) : std::nullopt;
    std::string language = "eng";
    inner.text("language", language);
    if (!kLanguage->search(language)) {
      inner.error("language", "must be a language as tesseract calls it, like \"eng\" or \"deu+eng\"");
    }
    inner.finish();
    return pattern ? std::optional<Action>(WaitOcr{std::move(*pattern), std::move(language)}) : std::nullopt;
  }

  std::string file_in(JsonObject& object, const char* key) {
    return path_in(object, key, context_.folder, context_.variables);
  }

  std::optional<Action> typed(const char* key, Result<std::vector<Typing>> parsed) {
    return parsed ? std::optional<Action>(Type{std::move(*parsed)}) : wrong(key, parsed.error().message);
  }
  std::optional<Action> type(const char* key) {
    std::string text;
    object_.text(key, text);
    return typed(key, parse_boot_command(text));
  }
  std::optional<Action> keys(const char* key) {
    std::string text;
    object_.text(key, text);
    return typed(key, parse_key_chord(text));
  }

  /// Two whole numbers in [lowest, kFarthest]; `what` says what they are.
  std::optional<std::pair<int, int>> two_numbers(JsonObject& object, const char* key, std::int64_t lowest,
                                                 std::string_view what) {
    const auto values = object.array(key, 2);
    if (values.size() != 2) {
      object.error(key, fmt::format("must be two numbers: {}", what));
      return std::nullopt;
    }
    for (const auto& [value, path] : values) {
      if (!value->is_number_integer() || value->get<double>() < static_cast<double>(lowest) ||
          value->get<double>() > static_cast<double>(kFarthest)) {
        errors_.add(path, fmt::format("must be a whole number from {} to {}", lowest, kFarthest));
        return std::nullopt;
      }
    }
    return std::pair(values[0].first->get<int>(), values[1].first->get<int>());
  }

  std::optional<Action> wait_size(const char* key) {
    const auto size = two_numbers(object_, key, 1, "the width and height of the screen in pixels");
    return size ? std::optional<Action>(
                      WaitSize{static_cast<unsigned>(size->first), static_cast<unsigned>(size->second)})
                : std::nullopt;
  }

  std::optional<Action> pointer(const char* key) {
    Pointer pointer;
    auto inner = object_.object(key);
    if (inner.has("move")) {
      pointer.by = two_numbers(inner, "move", -kFarthest, "pixels to the right and down");
      if (!pointer.by) {
        return std::nullopt;
      }
    }
    inner.choice(
        "click",
        {{"left", std::string("left")}, {"right", std::string("right")}, {"middle", std::string("middle")}},
        pointer.button);
    pointer.clicks = pointer.button.empty() ? 0 : 1;
    inner.number("clicks", 1, 3, pointer.clicks);
    if (pointer.clicks != 0 && pointer.button.empty()) {
      inner.error("clicks", "is of no use without \"click\"");
    }
    if (!pointer.by && pointer.button.empty()) {
      inner.need("move", "or \"click\"");
    }
    inner.finish();
    return pointer;
  }

  std::optional<Action> send_serial(const char* key) {
    SendSerial send;
    object_.text(key, send.text);
    return send.text.empty() ? wrong(key, "is empty: there is nothing to send") : std::optional<Action>(send);
  }

  std::optional<Action> command(const char* key) {
    Command command;
    if (!object_.any(key)->is_object()) {
      object_.text(key, command.text);
    } else {
      auto inner = object_.object(key);
      inner.need("text");
      inner.text("text", command.text);
      inner.number("status", 0, kHighestStatus, command.status);
      if (inner.has("output")) {
        command.output = read_pattern(*inner.any("output"), inner.path() + ".output", errors_);
      }
      inner.finish();
    }
    if (command.text.empty() || command.text.find_first_of("\r\n") != std::string::npos) {
      return wrong(key, "must be one line for a shell");
    }
    return command;
  }

  std::optional<Action> login(const char* key) {
    auto inner = object_.object(key);
    inner.need("user");
    std::string user;
    std::string password;
    inner.text("user", user);
    inner.text("password", password);
    const Json usual = "[#$%>] ?\\z";
    auto prompt =
        read_pattern(inner.has("prompt") ? *inner.any("prompt") : usual, inner.path() + ".prompt", errors_);
    inner.finish();
    for (const auto& word : {user, password}) {
      if (word.find_first_of("\r\n") != std::string::npos) {
        return wrong(key, "has a line end in a name or password");
      }
    }
    return prompt ? std::optional<Action>(Login{std::move(user), std::move(password), std::move(*prompt)})
                  : std::nullopt;
  }

  static std::string drive_in(JsonObject& object) {
    std::string drive;
    object.need("drive");
    object.text("drive", drive);
    if (object.has("drive") && drive.empty()) {
      object.error("drive", "is empty: it needs the id of a drive");
    }
    return drive;
  }
  std::optional<Action> eject(const char* key) {
    ChangeMedium change;
    if (!object_.any(key)->is_object()) {
      object_.text(key, change.drive);
      return change.drive.empty() ? wrong(key, "is empty: it needs the id of a drive")
                                  : std::optional<Action>(change);
    }
    auto inner = object_.object(key);
    change.drive = drive_in(inner);
    inner.boolean("force", change.force);
    inner.finish();
    return change;
  }
  std::optional<Action> insert(const char* key) {
    ChangeMedium change;
    change.format = "raw";
    auto inner = object_.object(key);
    change.drive = drive_in(inner);
    change.folder = file_in(inner, "folder");
    if (!inner.has("folder")) {
      inner.need("file", "an image of a CD, or \"folder\"");
    } else if (inner.has("file") || inner.has("format")) {
      inner.error("folder", "stands beside \"file\" or \"format\": the disc is made of one or the other");
    }
    change.file = file_in(inner, "file");
    inner.text("format", change.format);
    inner.boolean("force", change.force);
    inner.finish();
    return change;
  }

  std::optional<Action> copy_out(const char* key) {
    CopyOut copy;
    if (!object_.any(key)->is_object()) {
      object_.text(key, copy.drive);
    } else {
      auto inner = object_.object(key);
      copy.drive = drive_in(inner);
      auto expect = inner.object("expect");
      if (expect.value().size() > kMostExpected) {
        inner.error("expect", fmt::format("has more than {} keys", kMostExpected));
        return std::nullopt;
      }
      for (const auto& [name, value] : expect.value().items()) {
        const auto path = fmt::format("{}.expect.{}", inner.path(), name);
        auto pattern = read_pattern(value, path, errors_);
        if (!is_name_on_disk(name)) {
          errors_.add(path, "must be the name of a file on the disk, as \"logs/setup.txt\"");
        }
        if (pattern) {
          copy.expect.emplace_back(name, std::move(*pattern));
        }
      }
      inner.finish();
    }
    const auto is_it = [&](const FolderDrive& drive) { return drive.id == copy.drive && !drive.optical; };
    return std::ranges::any_of(context_.folders, is_it)
               ? std::optional<Action>(std::move(copy))
               : wrong(key,
                       fmt::format("\"{}\" is not the id of a disk in \"folders\" of the plan", copy.drive));
  }
  static bool is_name_on_disk(const std::string& name) {
    const std::filesystem::path path(name);
    const auto is_part = [](const std::filesystem::path& part) {
      return !part.empty() && part != "." && part != "..";
    };
    return !name.empty() && path.is_relative() && std::ranges::all_of(path, is_part);
  }

  std::optional<Action> sleep(const char* key) {
    Sleep sleep;
    object_.real(key, 0, kMostSeconds, sleep.seconds);
    return sleep;
  }

  JsonObject object_;
  const StepContext& context_;
  JsonErrors& errors_;
};

bool ends_machine(const Step& step) {
  return std::holds_alternative<WaitPowerOff>(step.action) || std::holds_alternative<WaitExit>(step.action);
}

/// Whether passing it says something about the guest.
bool proves_something(const Step& step) {
  return step.verb.starts_with("wait_") || std::holds_alternative<Command>(step.action) ||
         std::holds_alternative<Login>(step.action);
}

}  // namespace

std::optional<Pattern> read_pattern(const Json& value, const std::string& path, JsonErrors& errors) {
  if (!value.is_string()) {
    errors.add(path, "must be a string, a regular expression");
    return std::nullopt;
  }
  auto pattern = Pattern::compile(value.get<std::string>());
  if (!pattern) {
    errors.add(path, pattern.error().message);
    return std::nullopt;
  }
  return std::move(*pattern);
}

std::string path_in(JsonObject& object, const char* key, const std::filesystem::path& folder,
                    const Variables& variables) {
  std::string name;
  object.text(key, name);
  Json value = name;
  if (auto done = substitute(value, variables); !done) {
    object.error(key, done.error().message);
  }
  return name.empty() ? name : (folder / value.get<std::string>()).lexically_normal().string();
}

Result<void> substitute(Json& value, const Variables& variables) {
  if (value.is_structured()) {
    for (auto& inner : value) {
      if (auto done = substitute(inner, variables); !done) {
        return done;
      }
    }
  }
  if (!value.is_string()) {
    return {};
  }
  const auto text = value.get<std::string>();
  std::string result;
  std::size_t at = 0;
  for (auto start = text.find("${"); start != std::string::npos; start = text.find("${", at)) {
    const auto end = text.find('}', start);
    const auto name = text.substr(start + 2, end == std::string::npos ? end : end - start - 2);
    const auto found = variables.find(name);
    if (end == std::string::npos || found == variables.end()) {
      return fail(ErrorCode::kNotFound, fmt::format("\"{}\": there is no value for it; give --var {}=VALUE",
                                                    text.substr(start, 60), name.substr(0, 40)));
    }
    result += text.substr(at, start - at) + found->second;
    at = end + 1;
  }
  value = result + text.substr(at);
  return {};
}

std::vector<Step> read_steps(JsonObject& plan, const StepContext& context) {
  double default_limit = kStepLimit;
  plan.real("step_timeout", 0.1, kMostSeconds, default_limit);
  plan.need("steps", "a list of what to do and to wait for");
  std::vector<Step> steps;
  bool ended = false;
  for (const auto& [value, path] : plan.array("steps", kMostSteps)) {
    auto step = StepReader(*value, path, context, plan.errors()).read(default_limit);
    if (!step) {
      break;  // the first error is the one that is told, and a thousand large expressions take minutes
    }
    const bool copies = std::holds_alternative<CopyOut>(step->action);
    if (ended && !copies) {
      plan.errors().add(path, fmt::format("{} follows the machine's end: only copy_out may", step->verb));
    } else if (copies && !ended) {
      plan.errors().add(path, "copy_out must follow the machine's end, as wait_power_off is");
    }
    ended = ended || ends_machine(*step);
    steps.push_back(std::move(*step));
  }
  if (plan.has("steps") && std::ranges::none_of(steps, proves_something)) {
    // Like a key that is not there: a mistyped one beside it goes first.
    plan.errors().add_missing(plan.path(), "steps",
                              "wait for nothing: a plan without a wait would always pass");
  }
  return steps;
}

}  // namespace whistler::plan

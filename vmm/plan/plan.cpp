#include "vmm/plan/plan.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <fstream>
#include <utility>

#include "vmm/config/description.hpp"
#include "vmm/config/json_document.hpp"
#include "vmm/config/json_reader.hpp"
#include "vmm/plan/plan_folders.hpp"
#include "vmm/plan/plan_steps.hpp"

namespace whistler::plan {
namespace {

using Json = nlohmann::json;

constexpr std::uintmax_t kLargestFile = std::uintmax_t{1} << 20;
constexpr double kMostSeconds = 86'400;
constexpr double kPlanLimit = 600;
constexpr double kTypeInterval = 0.005;
constexpr std::size_t kMostSets = 64;
constexpr std::size_t kMostAxes = 8;
constexpr std::size_t kMostValues = 64;
constexpr std::size_t kMostPlans = 256;
constexpr std::size_t kMostPatterns = 64;

Result<std::string> read_file(const std::filesystem::path& file, std::string_view what) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(file, error)) {
    return fail(ErrorCode::kNotFound,
                fmt::format("{}: no such file; {} is a JSON file", file.string(), what));
  }
  if (std::filesystem::file_size(file, error) > kLargestFile) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{}: is larger than 1 MiB, too large to be {}", file.string(), what));
  }
  std::ifstream stream(file, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(stream)), {});
  if (!stream || text.empty()) {
    return fail(ErrorCode::kPermission, fmt::format("{}: is empty or cannot be read", file.string()));
  }
  return text;
}

/// One value of an axis of the matrix: how it is shown, and what it changes.
struct Choice {
  std::string shown;
  std::vector<Override> changes;
};
struct Axis {
  std::vector<Choice> choices;
};

class PlanReader {
 public:
  PlanReader(std::filesystem::path source, const Variables& variables)
      : source_(std::move(source)), variables_(variables) {}

  Result<std::vector<Plan>> read(const Json& document) {
    JsonObject top(document, "", errors_);
    Plan plan;
    plan.source = source_;
    plan.name = source_.stem().string();
    plan.time_limit = kPlanLimit;
    plan.type_interval = kTypeInterval;
    static_cast<void>(top.any("$schema"));
    top.text("name", plan.name);
    if (plan.name.empty()) {
      top.error("name", "is empty");
    }
    top.text("description", description_);
    top.real("timeout", 1, kMostSeconds, plan.time_limit);
    top.real("type_interval", 0, 10, plan.type_interval);
    read_fail_on(top.object("fail_on"), plan.fail_on);
    const auto folder = std::filesystem::absolute(source_).parent_path();
    plan.folders = read_folders(top, folder, variables_);
    const StepContext context = {.folder = folder, .variables = variables_, .folders = plan.folders};
    plan.script = read_script(top, context);
    top.need("machine", "the path of a description, or the description itself");
    const Json* machine = top.any("machine");
    const auto set = read_set(top.object("set"));
    const auto axes = read_matrix(top.object("matrix"));
    const auto next = read_next(top, context);
    top.finish();
    if (errors_.first()) {
      return fail(ErrorCode::kInvalid, fmt::format("{}: {}", source_.string(), *errors_.first()));
    }
    return combine(plan, next, *machine, set, axes);
  }

 private:
  static std::shared_ptr<const Script> read_script(JsonObject& plan, const StepContext& context) {
    return std::make_shared<const Script>(
        Script{.document = plan.value(), .steps = read_steps(plan, context)});
  }

  /// What "then" lists: plans that begin where this one ends.
  std::vector<Plan> read_next(JsonObject& top, const StepContext& context) {
    std::vector<Plan> plans;
    for (const auto& [value, path] : top.array("then", kMostPlans)) {
      JsonObject section(*value, path, errors_);
      Plan plan;
      section.need("name");
      section.text("name", plan.name);
      section.real("timeout", 1, kMostSeconds, plan.time_limit);
      plan.script = read_script(section, context);
      section.finish();
      plans.push_back(std::move(plan));
    }
    return plans;
  }

  void read_fail_on(JsonObject section, FailOn& to) {
    section.boolean("panic", to.panic);
    section.boolean("blue_screen", to.blue_screen);
    section.boolean("no_boot_device", to.no_boot_device);
    section.boolean("halt", to.halt);
    section.boolean("reset", to.reset);
    section.real("hang", 0, kMostSeconds, to.hang);
    for (const auto& [value, path] : section.array("text", kMostPatterns)) {
      if (auto pattern = read_pattern(*value, path, errors_)) {
        to.text.push_back(std::move(*pattern));
      }
    }
    section.finish();
  }

  Override change_of(const std::string& path, Json value, const std::string& where) {
    if (auto done = substitute(value, variables_); !done) {
      errors_.add(where, done.error().message);
    }
    return {.path = path, .value = value.dump(-1, ' ', false, Json::error_handler_t::replace)};
  }

  std::vector<Override> read_set(const JsonObject& section) {
    std::vector<Override> changes;
    if (section.value().size() > kMostSets) {
      errors_.add("set", fmt::format("has more than {} keys", kMostSets));
      return changes;
    }
    for (const auto& [path, value] : section.value().items()) {
      changes.push_back(change_of(path, value, "set." + path));
    }
    return changes;
  }

  std::vector<Axis> read_matrix(const JsonObject& section) {
    std::vector<Axis> axes;
    if (section.value().size() > kMostAxes) {
      errors_.add("matrix", fmt::format("has more than {} keys", kMostAxes));
      return axes;
    }
    for (const auto& [key, values] : section.value().items()) {
      const auto where = "matrix." + key;
      if (!values.is_array() || values.empty() || values.size() > kMostValues) {
        errors_.add(where, fmt::format("must be an array of 1 to {} values", kMostValues));
        continue;
      }
      Axis axis;
      for (std::size_t i = 0; i < values.size(); ++i) {
        axis.choices.push_back(read_choice(key, values[i], i, fmt::format("{}[{}]", where, i)));
      }
      axes.push_back(std::move(axis));
    }
    return axes;
  }

  Choice read_choice(const std::string& key, const Json& value, std::size_t number,
                     const std::string& where) {
    Choice choice;
    if (!value.is_object()) {
      choice.shown = fmt::format("{}={}", key, value.is_string() ? value.get<std::string>() : value.dump());
      choice.changes.push_back(change_of(key, value, where));
      return choice;
    }
    // Several changes that go together.
    if (value.size() > kMostSets) {
      errors_.add(where, fmt::format("has more than {} keys", kMostSets));
      return choice;
    }
    choice.shown = fmt::format("{}={}", key, number + 1);
    for (const auto& [path, inner] : value.items()) {
      choice.changes.push_back(change_of(path, inner, where + "." + path));
    }
    return choice;
  }

  Result<std::vector<Plan>> combine(const Plan& plan, const std::vector<Plan>& next, const Json& machine,
                                    const std::vector<Override>& set, const std::vector<Axis>& axes) {
    std::size_t count = 1;
    for (const auto& axis : axes) {
      count *= axis.choices.size();
      if (count * (1 + next.size()) > kMostPlans) {
        return fail(ErrorCode::kInvalid,
                    fmt::format("{}: matrix: makes more than {} plans", source_.string(), kMostPlans));
      }
    }
    std::vector<Plan> plans;
    for (std::size_t number = 0; number < count; ++number) {
      Plan one = plan;
      auto changes = set;
      std::vector<std::string> shown;
      std::size_t rest = number;
      for (const auto& axis : axes) {
        const auto& choice = axis.choices[rest % axis.choices.size()];
        rest /= axis.choices.size();
        shown.push_back(choice.shown);
        changes.insert(changes.end(), choice.changes.begin(), choice.changes.end());
      }
      if (!shown.empty()) {
        one.name += fmt::format(" [{}]", fmt::join(shown, ", "));
      }
      if (auto done = read_machine(one, machine, changes); !done) {
        return std::unexpected(done.error());
      }
      plans.push_back(std::move(one));
      const auto first = plans.size() - 1;
      for (const auto& other : next) {
        Plan follower = plans[first];
        follower.name += " > " + other.name;
        follower.script = other.script;
        follower.time_limit = other.time_limit > 0 ? other.time_limit : follower.time_limit;
        follower.after = plans.size() - first;
        plans.push_back(std::move(follower));
      }
    }
    return plans;
  }

  Result<void> read_machine(Plan& plan, Json machine, const std::vector<Override>& changes) {
    // What the description is relative to, and called in messages.
    auto file = source_;
    std::string prefix = "machine";
    if (machine.is_string()) {
      if (auto done = substitute(machine, variables_); !done) {
        return fail(ErrorCode::kInvalid,
                    fmt::format("{}: machine: {}", source_.string(), done.error().message));
      }
      file = std::filesystem::absolute(source_).parent_path() / machine.get<std::string>();
      prefix.clear();
      auto text = read_file(file, "a machine description");
      if (!text) {
        return std::unexpected(text.error().within(fmt::format("{}: machine", source_.string())));
      }
      auto read = parse_json(*text);
      if (!read) {
        return std::unexpected(read.error().within(file.string()));
      }
      machine = std::move(*read);
    }
    const auto where = prefix.empty() ? file.string() : fmt::format("{}: {}", file.string(), prefix);
    if (auto done = substitute(machine, variables_); !done) {
      return fail(ErrorCode::kInvalid, fmt::format("{}: {}", where, done.error().message));
    }
    for (const auto& change : changes) {
      if (auto done = apply_override(machine, change); !done) {
        return fail(ErrorCode::kInvalid, fmt::format("{}: set: {}", source_.string(), done.error().message));
      }
    }
    const auto own_drives = machine.is_object() && machine.contains("drives") ? machine["drives"].size() : 0;
    add_folders(plan.folders, machine);
    // What the test itself lays to the machine. Ports of the host are taken by nobody.
    for (const auto* key : {"vnc", "monitor", "metrics", "serial"}) {
      if (machine.is_object()) {
        machine.erase(key);
      }
    }
    auto description = parse_description(machine.dump(-1, ' ', false, Json::error_handler_t::replace), file);
    if (!description) {
      auto message = description.error().message;
      if (const auto start = file.string() + ": "; message.starts_with(start)) {
        message = (prefix.empty() ? start : start + prefix + ".") + message.substr(start.size());
      }
      for (std::size_t i = 0; i < plan.folders.size(); ++i) {
        const auto path = fmt::format("drives[{}].", own_drives + i);
        if (const auto at = message.find(path); at != std::string::npos) {
          message = fmt::format("{}: folders[{}].{}", source_.string(), i, message.substr(at + path.size()));
        }
      }
      return fail(description.error().code, message);
    }
    plan.memory = description->memory;
    plan.cores = description->cpu.cores;
    make_absolute(machine, *description);
    plan.machine = std::move(machine);
    return {};
  }

  static void make_absolute(Json& machine, const Description& description) {
    for (std::size_t i = 0; i < description.drives.size(); ++i) {
      if (auto& drive = machine["drives"][i]; drive.contains("file")) {
        drive["file"] = description.drives[i].file;
      }
    }
    const auto replace = [&](const char* section, const char* key, const std::string& path) {
      if (machine.contains(section) && machine[section].contains(key)) {
        machine[section][key] = path;
      }
    };
    replace("boot", "kernel", description.boot.kernel);
    replace("boot", "initrd", description.boot.initrd);
    replace("firmware", "bios", description.firmware.bios);
    replace("firmware", "vga_bios", description.firmware.vga_bios);
    if (machine.contains("debug")) {
      machine["debug"].erase("console");
    }
  }

  std::filesystem::path source_;
  const Variables& variables_;
  std::string description_;
  JsonErrors errors_;
};

}  // namespace

Result<std::vector<Plan>> parse_plans(std::string_view text, const std::filesystem::path& source,
                                      const Variables& variables) {
  auto document = parse_json(text);
  if (!document) {
    return std::unexpected(document.error().within(source.string()));
  }
  return PlanReader(source, variables).read(*document);
}

Result<std::vector<Plan>> load_plans(const std::filesystem::path& file, const Variables& variables) {
  auto text = read_file(file, "a test plan");
  if (!text) {
    return std::unexpected(text.error());
  }
  return parse_plans(*text, file, variables);
}

}  // namespace whistler::plan

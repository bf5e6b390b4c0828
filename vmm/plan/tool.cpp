#include "vmm/plan/tool.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>

#include "vmm/plan/file_text.hpp"

namespace whistler::plan {
namespace {

constexpr std::string_view kAdministrators = "/usr/sbin:/sbin";  // not in everyone's PATH
constexpr std::size_t kShown = 300;

/// So that names are UTF-8, no file of the user's changes what mtools does, and one picture keeps one
/// processor busy.
const std::vector<std::string>& environment() {
  static const std::vector<std::string> variables = {"LC_ALL=C.UTF-8", "MTOOLSRC=/dev/null",
                                                     "OMP_THREAD_LIMIT=1"};
  return variables;
}

/// The first line it said but for its name and version.
std::string first_words(const std::string& text, const std::string& name) {
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find('\n', at), text.size());
    const auto line = text.substr(at, std::min(end - at, kShown));
    at = end + 1;
    const bool is_version = line.starts_with(name + " ") && line.size() > name.size() + 1 &&
                            std::isdigit(static_cast<unsigned char>(line[name.size() + 1])) != 0;
    if (!is_version && line.find_first_not_of(" \t\r") != std::string::npos) {
      return line;
    }
  }
  return "it does not say why";
}

std::vector<Tool> tools_for(const Action& action) {
  if (const auto* change = std::get_if<ChangeMedium>(&action); change != nullptr && !change->folder.empty()) {
    return {kXorriso};
  }
  if (std::holds_alternative<CopyOut>(action)) {
    return {kFsckFat, kMcopy};
  }
  if (std::holds_alternative<WaitOcr>(action)) {
    return {kTesseract};
  }
  return {};
}

}  // namespace

Result<std::string> find_tool(const Tool& tool) {
  const auto* path = std::getenv("PATH");
  const auto folders = fmt::format("{}:{}", path == nullptr ? "/usr/bin:/bin" : path, kAdministrators);
  for (std::size_t at = 0; at < folders.size();) {
    const auto end = std::min(folders.find(':', at), folders.size());
    auto file = fmt::format("{}/{}", folders.substr(at, end - at), tool.program);
    at = end + 1;
    std::error_code error;
    if (file.front() == '/' && std::filesystem::is_regular_file(file, error) &&
        ::access(file.c_str(), X_OK) == 0) {
      return file;
    }
  }
  return fail(ErrorCode::kUnsupported,
              fmt::format("{} is not installed; it is in the Debian package {}", tool.program, tool.package));
}

Result<void> check_tools(const Plan& plan) {
  const auto check = [&](const std::string& what, const std::vector<Tool>& tools) -> Result<void> {
    for (const auto& tool : tools) {
      if (const auto found = find_tool(tool); !found) {
        return std::unexpected(found.error().within(fmt::format("{}: {}", plan.source.string(), what)));
      }
    }
    return {};
  };
  for (const auto& drive : plan.folders) {
    const auto tools = drive.optical ? std::vector{kXorriso} : std::vector{kMformat, kMcopy};
    if (auto there = check(fmt::format("the folder \"{}\"", drive.id), tools); !there) {
      return there;
    }
  }
  for (const auto& step : plan.script->steps) {
    if (auto there = check(step.name, tools_for(step.action)); !there) {
      return there;
    }
  }
  return {};
}

Result<ToolRun> ToolRun::start(const Tool& tool, const std::vector<std::string>& arguments,
                               const std::string& folder, std::uint64_t largest_file) {
  auto path = find_tool(tool);
  if (!path) {
    return std::unexpected(path.error());
  }
  const std::string name(tool.program);
  return start(
      name,
      {.path = std::move(*path), .name = name, .environment = environment(), .largest_file = largest_file},
      arguments, folder);
}

Result<ToolRun> ToolRun::start_whistler(const std::vector<std::string>& arguments,
                                        const std::string& folder) {
  return start("whistler " + arguments.front(), {}, arguments, folder);
}

Result<ToolRun> ToolRun::start(const std::string& name, const Program& program,
                               const std::vector<std::string>& arguments, const std::string& folder) {
  auto output = fmt::format("{}/{}.said", folder, program.name);
  std::error_code ignored;
  std::filesystem::remove(output, ignored);
  auto child = ChildProcess::start(arguments, folder, output, program);
  if (!child) {
    return std::unexpected(child.error().within(name));
  }
  return ToolRun(name, std::move(output), std::move(*child));
}

Result<bool> ToolRun::done() {
  const auto status = child_.status();
  if (!status || *status == 0) {
    return status.has_value();
  }
  if (child_.signal() != 0) {
    return fail(ErrorCode::kIo, fmt::format("{} was ended by signal {}: {}", name_, child_.signal(),
                                            first_words(output(), name_)));
  }
  return fail(ErrorCode::kIo, fmt::format("{}: {}", name_, first_words(output(), name_)));
}

std::string ToolRun::output() const { return file_text(output_); }

Done run_tool(const Tool& tool, const std::vector<std::string>& arguments, const std::string& folder,
              const Await& await, std::uint64_t largest_file) {
  auto run = ToolRun::start(tool, arguments, folder, largest_file);
  return run ? await(*run) : std::unexpected(Failure{Verdict::kHostCannot, run.error().message});
}

}  // namespace whistler::plan

#include "vmm/plan/artifacts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "vmm/plan/animation.hpp"
#include "vmm/plan/child_process.hpp"
#include "vmm/plan/copy_out.hpp"
#include "vmm/plan/file_text.hpp"

namespace whistler::plan {
namespace {

namespace fs = std::filesystem;

constexpr double kCheckLimit = 300;  // seconds
constexpr double kLastLook = 10;
constexpr std::string_view kLastPicture = "/screen.png";

/// The last pictures one by one, and all of them in one file that moves. What cannot be copied or read is
/// left out.
void put_pictures(const fs::path& to, const Session* session, const std::string& last) {
  std::vector<Picture> frames;
  const auto put = [&](const std::string& picture, const std::string& name) {
    std::error_code error;
    fs::copy_file(picture, to / name, fs::copy_options::overwrite_existing, error);
    if (auto read = read_png(picture)) {
      frames.push_back(std::move(*read));
    }
  };
  unsigned number = 0;
  for (const auto& picture : session == nullptr ? std::vector<std::string>() : session->pictures()) {
    put(picture, fmt::format("screen-before-{}.png", ++number));
  }
  std::error_code error;
  if (fs::exists(last, error)) {
    put(last, "screen.png");
  }
  if (frames.empty()) {
    return;
  }
  if (const auto moving = animated_png(frames)) {
    std::ofstream file(to / "screen-animated.png", std::ios::binary);
    file.write(reinterpret_cast<const char*>(moving->data()), static_cast<std::streamsize>(moving->size()));
  }
}

}  // namespace

std::string folder_name(std::string_view name) {
  constexpr std::size_t kLongest = 120;
  std::string result;
  for (const char c : name.substr(0, kLongest)) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '.' || c == '-' || c == '_';
    result += plain ? c : '_';
  }
  // "." and ".." are no names.
  return result.find_first_not_of('.') == std::string::npos ? "plan" + result : result;
}

std::string artifacts_folder(const RunOptions& options, const Plan& plan) {
  return options.artifacts.empty() ? "" : fmt::format("{}/{}", options.artifacts, folder_name(plan.name));
}

std::string files_folder(const std::string& artifacts, const std::string& drive) {
  return fmt::format("{}/files-{}", artifacts, drive);
}

std::string marked_plan(const Plan& plan, const PlanResult& result) {
  auto document = plan.script->document;
  std::string text;
  for (std::size_t i = 0; i < result.steps.size(); ++i) {
    const auto& step = result.steps[i];
    if (step.status != StepStatus::kFailed) {
      continue;
    }
    const bool of_plan = i > 0 && i <= plan.script->steps.size();
    if (of_plan && document.contains("steps")) {
      document["steps"][i - 1]["<<< FAILED"] = step.reason;
    } else {
      text += fmt::format("// <<< FAILED: {}: {}\n", step.name, step.reason);
    }
  }
  return text + document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string last_look(GuestProcess& guest) {
  if (guest.status() || !guest.running()) {
    return {};
  }
  const auto path = guest.folder() + std::string(kLastPicture);
  static_cast<void>(guest.ask("screendump", {{"filename", path}, {"format", "png"}}, kLastLook));
  const auto registers = guest.ask("x-query-registers", nlohmann::json::object(), kLastLook);
  return registers ? registers->value("text", "") : std::string();
}

std::string check_disk(const Overlay& overlay, const std::string& folder) {
  const auto output = overlay.path + ".check";
  auto child = ChildProcess::start({"img", "check", "-f", "qcow2", overlay.path}, folder, output);
  if (!child) {
    return child.error().message;
  }
  const auto status = child->wait(kCheckLimit);
  if (status == 0) {
    return {};
  }
  return status ? fmt::format("img check ends with status {}:\n{}", *status, file_text(output))
                : "img check does not end";
}

Result<void> write_artifacts(const std::string& to, const Plan& plan, const PlanResult& result,
                             GuestProcess& guest, const Session* session, const Await& await) {
  std::error_code error;
  fs::create_directories(to, error);
  if (error) {
    return fail(ErrorCode::kPermission, fmt::format("{}: cannot be created: {}", to, error.message()));
  }
  bool good = true;
  const auto put = [&](std::string_view name, std::string_view text) {
    if (!text.empty()) {
      std::ofstream file(fs::path(to) / name, std::ios::binary);
      file << text;
      file.close();
      good = good && file.good();
    }
  };
  put("plan.json", marked_plan(plan, result));
  put("reason.txt", result.reason + "\n" + result.detail);
  put("serial.txt", guest.serial());
  put("debug.txt", guest.debug());
  put("whistler.txt", guest.log());
  put("machine.json", file_text(guest.folder() + "/machine.json"));
  if (session != nullptr) {
    put("screen.txt", session->last_screen().text);
    put("ocr.txt", file_text(guest.folder() + "/ocr.txt"));
  }
  put_pictures(to, session, guest.folder() + std::string(kLastPicture));
  for (const auto& overlay : guest.overlays()) {
    const auto said = check_disk(overlay, guest.folder());
    put(fmt::format("check-{}.txt", folder_name(overlay.drive)), said.empty() ? "no errors\n" : said);
    if (std::ranges::find(plan.folders, overlay.drive, &FolderDrive::id) != plan.folders.end()) {
      const auto taken =
          take_files(overlay, files_folder(to, overlay.drive), Damage::kRepaired, guest.folder(), await);
      put(fmt::format("files-{}.txt", overlay.drive), taken ? "" : taken.error().reason + "\n");
    }
  }
  return good ? Result<void>() : fail(ErrorCode::kIo, fmt::format("{}: cannot be written", to));
}

}  // namespace whistler::plan

#include "vmm/plan/copy_out.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <optional>
#include <sstream>

#include "vmm/config/description.hpp"
#include "vmm/exit_status.hpp"
#include "vmm/plan/file_text.hpp"
#include "vmm/plan/folder_contents.hpp"
#include "vmm/plan/folder_image.hpp"
#include "vmm/plan/lower_case.hpp"
#include "vmm/plan/trouble.hpp"

namespace whistler::plan {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMostListed =
    32 * kMiB;  // of what fsck.fat says: a line for every file, and not too many
constexpr std::uint64_t kLargestText = 64 * kMiB;

std::unexpected<Failure> failed(const std::string& drive, std::string_view reason) {
  return std::unexpected(Failure{Verdict::kFailed, fmt::format("{}: {}", drive, reason)});
}

/// Whether that is nothing to complain of: its progress, its count, or that the guest has given the disk
/// another label, which Windows XP writes in one of two places only.
bool is_no_complaint(const std::string& line) {
  static constexpr std::array<std::string_view, 8> kNone = {
      "fsck.fat ",      "Checking ",          "Leaving filesystem unchanged", "Volume label '",
      "Label in boot ", "There is no label ", "  Auto-copying volume label",  "  Auto-removing label"};
  return line.empty() || line.ends_with(" clusters") ||
         std::ranges::any_of(kNone, [&](std::string_view start) { return line.starts_with(start); });
}

/// What fsck.fat finds: the first complaint, which it may spread over a few lines, the last of them indented.
std::string complaint(const std::string& said) {
  constexpr std::size_t kLongest = 300;
  if (said.find("Path name too long.") != std::string::npos) {  // in the middle of another line
    return "its folders are nested too deeply";
  }
  std::istringstream lines(said);
  std::string result;
  for (std::string line; std::getline(lines, line) && result.size() < kLongest;) {
    if (is_no_complaint(line)) {
      continue;
    }
    const bool last = line.starts_with("  ") || line.ends_with('.');
    result += (result.empty() ? "" : " ") + line.substr(std::min(line.find_first_not_of(' '), line.size()));
    if (last) {
      break;
    }
  }
  return result.substr(0, kLongest);
}

/// fsck.fat alone knows chains that cross or turn back, and paths without end: mcopy would follow them.
Done check_file_system(const std::string& drive, const std::string& partition, const std::string& work,
                       const Await& await) {
  auto run = ToolRun::start(kFsckFat, {"-n", "-l", partition}, work, kMostListed);
  if (!run) {
    return std::unexpected(Failure{Verdict::kHostCannot, run.error().message});
  }
  auto done = await(*run);
  if (done || done.error().verdict != Verdict::kHostCannot) {
    return done;
  }
  constexpr int kSomethingFound = 1;
  const auto said = complaint(run->output());
  if (said.empty() && run->status() == kSomethingFound) {
    return {};
  }
  if (run->status() == kExitSignalled + SIGXFSZ) {
    return failed(drive, "holds too many files: the list of them is longer than 32 MiB");
  }
  return failed(drive,
                fmt::format("its file system is not whole: {}", said.empty() ? done.error().reason : said));
}

/// The entry of that name in a folder, whatever its case.
std::optional<fs::path> entry_of(const fs::path& folder, const std::string& name) {
  std::error_code error;
  for (fs::directory_iterator at(folder, error); !error && at != fs::directory_iterator();
       at.increment(error)) {
    if (lower_case(at->path().filename().string()) == lower_case(name)) {
      return at->path();
    }
  }
  return std::nullopt;
}

}  // namespace

Done take_files(const Overlay& disk, const std::string& to, Damage damage, const std::string& work,
                const Await& await) {
  const auto partition = fmt::format("{}/partition.img", work);
  std::error_code error;
  fs::remove(partition, error);
  fs::remove_all(to, error);
  auto read =
      ToolRun::start_whistler({"img", "dd", "-f", "qcow2", "-O", "raw", fmt::format("bs={}", kPartitionStart),
                               "skip=1", "if=" + disk.path, "of=" + partition},
                              work);
  if (!read) {
    return std::unexpected(Failure{Verdict::kHostCannot, read.error().message});
  }
  if (auto done = await(*read); !done) {
    return done;
  }
  if (damage == Damage::kRepaired) {
    // It says by its status that there was something to repair.
    const auto limit = std::max<std::uint64_t>(fs::file_size(partition, error), kMostListed);
    if (auto repair = ToolRun::start(kFsckFat, {"-a", partition}, work, limit)) {
      static_cast<void>(await(*repair));
    }
  }
  if (auto whole = check_file_system(disk.drive, partition, work, await); !whole) {
    return whole;
  }
  const auto size = fs::file_size(partition, error);
  fs::create_directories(to, error);
  if (error) {
    return std::unexpected(
        Failure{Verdict::kHostCannot, fmt::format("{}: cannot be made: {}", to, error.message())});
  }
  auto copied = run_tool(kMcopy, {"-s", "-n", "-m", "-i", partition, "::", to}, work, await, size);
  fs::remove(partition, error);
  if (copied) {
    fs::last_write_time(to, fs::file_time_type::clock::now(),
                        error);  // mcopy makes it that of a root without one
    if (auto contents = look_through(to, FileSystem::kFat, size); !contents) {
      copied = failed(disk.drive, contents.error().message.substr(to.size() + 1));
    }
  }
  if (!copied) {
    fs::remove_all(to, error);
  }
  return copied;
}

Done check_file(const std::string& files, const std::string& name, const Pattern& pattern) {
  fs::path at = files;
  for (const auto& part : fs::path(name)) {
    const auto found = entry_of(at, part.string());
    if (!found) {
      return failed(name, "is not there");
    }
    at = *found;
  }
  std::error_code error;
  const auto size = fs::file_size(at, error);
  if (error || size > kLargestText) {
    return failed(name, error ? "is no file" : "is larger than 64 MiB, too large to look into");
  }
  const auto text = file_text(at);
  return pattern.search(text)
             ? Done()
             : failed(name, fmt::format("does not say \"{}\", but {}", pattern.text(), quoted_end(text)));
}

}  // namespace whistler::plan

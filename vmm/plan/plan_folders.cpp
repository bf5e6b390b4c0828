#include "vmm/plan/plan_folders.hpp"

#include <fmt/format.h>

#include "vmm/plan/pattern.hpp"
#include "vmm/plan/plan_steps.hpp"

namespace whistler::plan {
namespace {

constexpr std::size_t kMostFolders = 4;  // as many as an IDE controller has drives

FolderDrive read_folder(JsonObject section, const std::filesystem::path& folder, const Variables& variables) {
  static const auto kId = Pattern::compile("\\A[A-Za-z0-9_-]{1,32}\\z");
  FolderDrive drive;
  section.need("id");
  section.text("id", drive.id);
  if (section.has("id") && !kId->search(drive.id)) {
    section.error("id", "must have 1 to 32 letters, digits, \"-\" and \"_\"");
  }
  section.choice("media", {{"disk", false}, {"cdrom", true}}, drive.optical);
  section.number("bus", 0, 1, drive.bus);
  section.number("unit", 0, 1, drive.unit);
  if (drive.optical) {
    section.need("from", "the folder that a CD is made of");
  }
  drive.from = path_in(section, "from", folder, variables);
  if (section.has("from") && drive.from.empty()) {
    section.error("from", "is empty: it must be a folder");
  }
  section.size("size", kSmallestDisk, kLargestDisk, drive.size);
  if (drive.optical && section.has("size")) {
    section.error("size", "is of no use here: a CD is as large as what it holds");
  }
  if (drive.size % (std::uint64_t{1} << 20) != 0) {
    section.error("size", "must be a whole number of MiB");
  }
  section.finish();
  return drive;
}

}  // namespace

std::vector<FolderDrive> read_folders(JsonObject& plan, const std::filesystem::path& folder,
                                      const Variables& variables) {
  std::vector<FolderDrive> drives;
  for (const auto& [value, path] : plan.array("folders", kMostFolders)) {
    drives.push_back(read_folder(JsonObject(*value, path, plan.errors()), folder, variables));
  }
  return drives;
}

void add_folders(const std::vector<FolderDrive>& folders, nlohmann::json& machine) {
  if (folders.empty() || !machine.is_object()) {
    return;
  }
  auto& drives = machine["drives"];
  if (!drives.is_null() && !drives.is_array()) {
    return;  // whoever reads the description says so
  }
  for (std::size_t i = 0; i < folders.size(); ++i) {
    const nlohmann::json drive = {
        {"id", folders[i].id},          {"media", folders[i].optical ? "cdrom" : "disk"},
        {"bus", folders[i].bus},        {"unit", folders[i].unit},
        {"file", folder_image_name(i)}, {"format", "raw"}};
    drives.push_back(drive);
  }
}

std::string folder_image_name(std::size_t number) { return fmt::format("folder{}.img", number); }

}  // namespace whistler::plan

#include "vmm/plan/folder_image.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>

#include "base/bytes.hpp"
#include "vmm/config/description.hpp"
#include "vmm/plan/folder_contents.hpp"
#include "vmm/plan/plan_folders.hpp"

namespace whistler::plan {
namespace {

constexpr std::uint64_t kLargestCd = 8192 * kMiB;    // bytes: a DVD with two layers
constexpr std::uint64_t kLargestFat16 = 512 * kMiB;  // where Windows XP begins to make FAT32, too
constexpr std::uint64_t kUsualDisk = 256 * kMiB;
constexpr std::uint64_t kSector = 512;
constexpr std::size_t kFat16Slots = 512;  // in its uppermost folder
constexpr std::size_t kAtOnce = 256;      // names on one command line

std::unexpected<Failure> wrong_plan(const Error& error) {
  const bool of_plan = error.code == ErrorCode::kInvalid || error.code == ErrorCode::kNotFound;
  return std::unexpected(Failure{of_plan ? Verdict::kPlanWrong : Verdict::kHostCannot, error.message});
}

/// What a medium of that id may be called: letters, digits and '_', eleven at the most.
std::string label_of(std::string_view id) {
  constexpr std::size_t kLongest = 11;
  std::string label;
  for (const char c : id.substr(0, kLongest)) {
    const bool small = c >= 'a' && c <= 'z';
    const bool plain = small || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    label += small ? static_cast<char>(c - 'a' + 'A') : plain ? c : '_';
  }
  return label;
}

/// How many places names of that length take in a folder of a FAT disk: a short name, and 13 letters of the
/// long one in each further place.
std::size_t slots_of(const std::vector<std::string>& names) {
  constexpr std::size_t kLetters = 13;
  std::size_t slots = 1;  // the label
  for (const auto& name : names) {
    slots += 1 + (name.size() + kLetters - 1) / kLetters;
  }
  return slots;
}

/// A sparse file of `size` bytes that begins with a table of one partition.
Result<void> write_partition_table(const std::string& image, std::uint64_t size, bool fat32) {
  constexpr std::size_t kSignature = 440, kEntry = 446, kType = kEntry + 4, kStart = kEntry + 8,
                        kCount = kEntry + 12, kMagic = 510;
  constexpr std::uint8_t kFat16 = 0x0E, kFat32 = 0x0C;  // both addressed by number, not by cylinder
  std::array<std::uint8_t, kSector> table{};
  store_le<std::uint32_t>(&table[kSignature], 0x57484C53);  // else Windows XP writes one of its own
  for (const auto at : {kEntry + 1, kEntry + 5}) {
    table[at] = 0xFE;  // head, sector and cylinder of a place that has none
    table[at + 1] = table[at + 2] = 0xFF;
  }
  table[kType] = fat32 ? kFat32 : kFat16;
  store_le<std::uint32_t>(&table[kStart], kPartitionStart / kSector);
  store_le<std::uint32_t>(&table[kCount], static_cast<std::uint32_t>((size - kPartitionStart) / kSector));
  table[kMagic] = 0x55;
  table[kMagic + 1] = 0xAA;
  std::ofstream file(image, std::ios::binary);
  file.write(reinterpret_cast<const char*>(table.data()), table.size());
  file.close();
  std::error_code error;
  std::filesystem::resize_file(image, size, error);
  return file && !error ? Result<void>() : fail(ErrorCode::kIo, fmt::format("{}: cannot be written", image));
}

/// The disk's size: what the plan says, or room for twice what the folder holds.
std::uint64_t size_for(const FolderDrive& drive, std::uint64_t bytes) {
  if (drive.size != 0) {
    return drive.size;
  }
  return std::max(kUsualDisk, (2 * bytes + kMiB - 1) / kMiB * kMiB);
}

}  // namespace

Done make_cd(std::string_view id, const std::string& from, const std::string& image, const std::string& work,
             const Await& await) {
  if (auto contents = look_through(from, FileSystem::kIso, kLargestCd); !contents) {
    return wrong_plan(contents.error());
  }
  return run_tool(kXorriso,
                  {"-no_rc", "-as", "mkisofs", "-quiet", "-J", "-joliet-long", "-R", "-iso-level", "3", "-V",
                   label_of(id), "-o", image, from},
                  work, await);
}

Done make_disk(const FolderDrive& drive, const std::string& image, const std::string& work,
               const Await& await) {
  FolderContents contents;
  if (!drive.from.empty()) {
    auto found = look_through(drive.from, FileSystem::kFat, drive.size != 0 ? drive.size : kLargestDisk / 2);
    if (!found) {
      return wrong_plan(found.error());
    }
    contents = std::move(*found);
  }
  const auto size = size_for(drive, contents.bytes);
  const bool fat32 = size > kLargestFat16;
  if (!fat32 && slots_of(contents.top) > kFat16Slots) {
    return std::unexpected(
        Failure{Verdict::kPlanWrong, fmt::format("{}: holds more names than fit into the first folder of a "
                                                 "disk of {} MiB; move some into a folder, "
                                                 "or make \"size\" larger than 512M",
                                                 drive.from, size / kMiB)});
  }
  if (auto written = write_partition_table(image, size, fat32); !written) {
    return std::unexpected(Failure{Verdict::kHostCannot, written.error().message});
  }
  const auto partition = fmt::format("{}@@{}", image, kPartitionStart);
  std::vector<std::string> format = {
      "-i", partition, "-T", fmt::format("{}", (size - kPartitionStart) / kSector), "-h", "255",
      "-s", "63",      "-H", fmt::format("{}", kPartitionStart / kSector),          "-v", label_of(drive.id)};
  if (fat32) {
    format.emplace_back("-F");
  }
  format.emplace_back("::");
  if (auto made = run_tool(kMformat, format, work, await); !made) {
    return made;
  }
  for (std::size_t at = 0; at < contents.top.size(); at += kAtOnce) {
    std::vector<std::string> copy = {"-s", "-m", "-i", partition};
    for (auto i = at; i < std::min(at + kAtOnce, contents.top.size()); ++i) {
      copy.push_back((std::filesystem::path(drive.from) / contents.top[i]).string());
    }
    copy.emplace_back("::");
    if (auto copied = run_tool(kMcopy, copy, work, await); !copied) {
      if (copied.error().verdict == Verdict::kHostCannot) {
        copied.error().verdict = Verdict::kPlanWrong;  // it is too much for the disk
      }
      copied.error().reason = fmt::format("{}: cannot be copied to a disk of {} MiB: {}", drive.from,
                                          size / kMiB, copied.error().reason);
      return copied;
    }
  }
  return {};
}

Done make_media(const Plan& plan, const std::string& folder, const Await& await) {
  for (std::size_t i = 0; i < plan.folders.size(); ++i) {
    const auto& drive = plan.folders[i];
    const auto image = fmt::format("{}/{}", folder, folder_image_name(i));
    auto made = drive.optical ? make_cd(drive.id, drive.from, image, folder, await)
                              : make_disk(drive, image, folder, await);
    if (!made) {
      made.error().reason = fmt::format("{}: {}", drive.id, made.error().reason);
      return made;
    }
  }
  return {};
}

}  // namespace whistler::plan

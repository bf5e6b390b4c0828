// Media made from folders of the host: a CD, and a disk with one FAT partition.
#pragma once

#include <string>
#include <string_view>

#include "vmm/plan/plan.hpp"
#include "vmm/plan/result.hpp"
#include "vmm/plan/tool.hpp"

namespace whistler::plan {

/// Where the partition begins: what is before it holds the table.
inline constexpr std::uint64_t kPartitionStart = 1 << 20;

/// Makes the file `image` a CD, ISO 9660 with Joliet and Rock Ridge, of what `from` holds. `id` becomes its
/// label. `work` is a folder for what lies about in between.
[[nodiscard]] Done make_cd(std::string_view id, const std::string& from, const std::string& image,
                           const std::string& work, const Await& await);

/// Makes the file `image` a disk with a partition table and one partition: FAT16 up to 512 MiB, else FAT32.
/// Without a `drive.from` it is empty.
[[nodiscard]] Done make_disk(const FolderDrive& drive, const std::string& image, const std::string& work,
                             const Await& await);

/// Makes the media of all folders of a plan, each under its folder_image_name() in `folder`.
[[nodiscard]] Done make_media(const Plan& plan, const std::string& folder, const Await& await);

}  // namespace whistler::plan

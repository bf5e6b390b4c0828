// The drives of a plan whose media are made from folders.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "vmm/config/json_reader.hpp"
#include "vmm/plan/plan.hpp"

namespace whistler::plan {

/// Reads "folders" of a plan, whose relative paths are relative to `folder`. What is wrong is added to its
/// errors.
[[nodiscard]] std::vector<FolderDrive> read_folders(JsonObject& plan, const std::filesystem::path& folder,
                                                    const Variables& variables);

/// Adds them to the drives of a description. Their files have names that are none yet.
void add_folders(const std::vector<FolderDrive>& folders, nlohmann::json& machine);

/// The name of the image that is made of the folder with that number, from 0.
[[nodiscard]] std::string folder_image_name(std::size_t number);

}  // namespace whistler::plan

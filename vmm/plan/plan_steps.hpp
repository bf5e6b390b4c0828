// The steps of a plan as JSON has them.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "vmm/config/json_reader.hpp"
#include "vmm/plan/plan.hpp"

namespace whistler::plan {

struct StepContext {
  std::filesystem::path folder;  ///< relative paths of steps are relative to it
  const Variables& variables;
  const std::vector<FolderDrive>& folders;  ///< the plan's
};

/// Reads "steps" and "step_timeout" of a plan. What is wrong is added to its errors.
[[nodiscard]] std::vector<Step> read_steps(JsonObject& plan, const StepContext& context);

/// An expression in a plan; what is wrong with it is added to `errors`.
[[nodiscard]] std::optional<Pattern> read_pattern(const nlohmann::json& value, const std::string& path,
                                                  JsonErrors& errors);

/// The path at `key`, absolute; empty if there is none.
[[nodiscard]] std::string path_in(JsonObject& object, const char* key, const std::filesystem::path& folder,
                                  const Variables& variables);

/// Replaces ${NAME} in every string of `value`. kNotFound for a name without a value.
[[nodiscard]] Result<void> substitute(nlohmann::json& value, const Variables& variables);

}  // namespace whistler::plan

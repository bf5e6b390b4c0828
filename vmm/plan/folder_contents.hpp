// Looks through a folder before it is copied to a medium, and after it has come from a guest's disk.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace whistler::plan {

enum class FileSystem : std::uint8_t {
  kIso,  ///< with Joliet and Rock Ridge: may hold symbolic links, which are not followed
  kFat,
};

struct FolderContents {
  std::uint64_t bytes = 0;       ///< of all files
  std::vector<std::string> top;  ///< names directly in the folder, sorted
};

/// More entries than this are refused, as are folders nested deeper than kDeepest.
inline constexpr std::size_t kMostEntries = 65'536;
inline constexpr unsigned kDeepest = 64;

/// The error, kInvalid, kNotFound or of the host, names the entry: one that the file system cannot hold, what
/// is neither a file nor a folder, more than `most_bytes`. No link is followed but `folder` itself.
[[nodiscard]] Result<FolderContents> look_through(const std::filesystem::path& folder, FileSystem file_system,
                                                  std::uint64_t most_bytes);

}  // namespace whistler::plan

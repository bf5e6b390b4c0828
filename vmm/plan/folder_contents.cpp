#include "vmm/plan/folder_contents.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "vmm/config/description.hpp"
#include "vmm/plan/lower_case.hpp"
#include "vmm/plan/pattern.hpp"

namespace whistler::plan {
namespace {

namespace fs = std::filesystem;

class Walk {
 public:
  Walk(FileSystem file_system, std::uint64_t most_bytes)
      : fat_(file_system == FileSystem::kFat), most_bytes_(most_bytes) {}

  Result<FolderContents> run(const fs::path& folder) {
    std::error_code error;
    if (!fs::is_directory(folder, error)) {
      return fail(ErrorCode::kNotFound, fmt::format("{}: is no folder", folder.string()));
    }
    auto done = enter(folder, 0);
    std::ranges::sort(contents_.top);
    return done ? Result<FolderContents>(std::move(contents_)) : std::unexpected(done.error());
  }

 private:
  static std::unexpected<Error> wrong(const fs::path& path, std::string_view reason) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: {}", path.string(), reason));
  }

  Result<void> enter(const fs::path& folder, unsigned depth) {
    if (depth > kDeepest) {
      return wrong(folder, fmt::format("is nested deeper than {} folders", kDeepest));
    }
    std::error_code error;
    std::set<std::string> folded;  // FAT takes names for the same that differ only in case
    fs::directory_iterator at(folder, error);
    for (; !error && at != fs::directory_iterator(); at.increment(error)) {
      const auto name = at->path().filename().string();
      if (depth == 0) {
        contents_.top.push_back(name);
      }
      if (auto good = check_name(at->path(), name); !good) {
        return good;
      }
      if (fat_ && !folded.insert(lower_case(name)).second) {
        return wrong(at->path(), "differs only in case from another name, which a FAT disk cannot hold");
      }
      if (auto good = take(*at, depth); !good) {
        return good;
      }
    }
    return error ? fail_errno(error.value(), folder.string()) : Result<void>();
  }

  Result<void> take(const fs::directory_entry& entry, unsigned depth) {
    if (++entries_ > kMostEntries) {
      return wrong(entry.path(),
                   fmt::format("is one too many: at most {} files and folders are copied", kMostEntries));
    }
    std::error_code error;
    const auto status = entry.symlink_status(error);
    if (status.type() == fs::file_type::directory) {
      return enter(entry.path(), depth + 1);
    }
    if (status.type() == fs::file_type::symlink) {
      return fat_ ? wrong(entry.path(),
                          "is a symbolic link, which a FAT disk cannot hold; copy what it points to")
                  : Result<void>();
    }
    if (status.type() != fs::file_type::regular) {
      return wrong(entry.path(), "is neither a file nor a folder");
    }
    const auto size = entry.file_size(error);
    if (error) {
      return fail_errno(error.value(), entry.path().string());
    }
    contents_.bytes += size;
    if (contents_.bytes > most_bytes_) {
      return wrong(entry.path(), fmt::format("does not fit: there is room for {} MiB", most_bytes_ / kMiB));
    }
    return {};
  }

  Result<void> check_name(const fs::path& path, const std::string& name) const {
    static const auto kIsoName = Pattern::compile(R"(\A[^\x00-\x1f\x7f]+\z)");
    static const auto kFatName = Pattern::compile(R"(\A[^\x00-\x1f\x7f"*:<>?\\|]+\z)");
    static const auto kDevice = Pattern::compile(R"((?i)\A(con|prn|aux|nul|com[1-9]|lpt[1-9])(\..*)?\z)");
    if (!kIsoName->search(name)) {
      return wrong(path, "has a name that is not UTF-8, or has control characters in it");
    }
    if (fat_ &&
        (!kFatName->search(name) || name.back() == '.' || name.back() == ' ' || kDevice->search(name))) {
      return wrong(path, "has a name that a FAT disk cannot hold");
    }
    return {};
  }

  bool fat_;
  std::uint64_t most_bytes_;
  FolderContents contents_;
  std::size_t entries_ = 0;
};

}  // namespace

Result<FolderContents> look_through(const fs::path& folder, FileSystem file_system,
                                    std::uint64_t most_bytes) {
  return Walk(file_system, most_bytes).run(folder);
}

}  // namespace whistler::plan

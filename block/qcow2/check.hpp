// Counts every use of every cluster and compares that with what the refcounts say.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/task.hpp"

namespace whistler::qcow2 {

class Image;

enum class Repair : std::uint8_t {
  kNone,
  kLeaks,  ///< free clusters that nobody uses
  kAll,    ///< also what endangers data: refcounts too low, wrong COPIED flags, damaged refcount blocks
};

struct CheckReport {
  std::uint64_t corruptions = 0;
  std::uint64_t leaks = 0;
  std::uint64_t corruptions_fixed = 0;
  std::uint64_t leaks_fixed = 0;
  std::uint64_t total_clusters = 0;  ///< of the guest's disk
  std::uint64_t allocated_clusters = 0;
  std::uint64_t compressed_clusters = 0;
  std::uint64_t fragmented_clusters = 0;
  std::uint64_t image_end_offset = 0;
  /// One line each; at most kMaxMessages.
  std::vector<std::string> messages;
  static constexpr std::size_t kMaxMessages = 1000;
};

/// Nothing else may use the image meanwhile. Repair needs it open for writing. `corruptions` and `leaks` are
/// what is left afterwards.
[[nodiscard]] Task<Result<CheckReport>> check_image(Image& image, Repair repair);

}  // namespace whistler::qcow2

// What is asked of every guest write beyond writing it: durability at once, or looking for zeroes.
#pragma once

#include <memory>

#include "block/filter.hpp"
#include "block/open.hpp"

namespace whistler {

/// Stacked on an image only where a drive asks for it.
class WritePolicy final : public Filter {
 public:
  /// `writethrough`: each write is durable when it ends.
  WritePolicy(std::unique_ptr<BlockDevice> image, bool writethrough, DetectZeroes detect_zeroes)
      : Filter(std::move(image)), writethrough_(writethrough), detect_zeroes_(detect_zeroes) {}

  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags = {}) override;
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags = {}) override {
    flags.fua = flags.fua || writethrough_;
    return below().write_zeroes(offset, bytes, flags);
  }

 private:
  bool writethrough_;
  DetectZeroes detect_zeroes_;
};

}  // namespace whistler

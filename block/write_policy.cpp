#include "block/write_policy.hpp"

#include "block/iovec.hpp"

namespace whistler {

Task<Result<void>> WritePolicy::writev(std::uint64_t offset, IoVec from, WriteFlags flags) {
  flags.fua = flags.fua || writethrough_;
  if (detect_zeroes_ != DetectZeroes::kOff && iovec_is_zero(from)) {
    return below().write_zeroes(offset, iovec_bytes(from),
                                {detect_zeroes_ == DetectZeroes::kUnmap, flags.fua});
  }
  return below().writev(offset, from, flags);
}

}  // namespace whistler

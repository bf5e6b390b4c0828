// The area behind the disk where a snapshot keeps the state of a machine.
#include <fmt/format.h>

#include "block/qcow2/image.hpp"

namespace whistler::qcow2 {

std::uint64_t Image::vm_state_offset() const {
  return geometry_.l1_entries_for(size()) * geometry_.l2_coverage();
}

Task<Result<void>> Image::read_vm_state(std::uint64_t offset, IoVec to) {
  const auto bytes = iovec_bytes(to);
  const auto start = vm_state_offset();
  const auto end = std::uint64_t{l1_.size()} * geometry_.l2_coverage();
  if (offset > kMaxHostOffset || bytes > kMaxHostOffset - offset) {
    co_return fail(ErrorCode::kInvalid,
                   fmt::format("{}: {} bytes of machine state at {} cannot be", name(), bytes, offset));
  }
  // What the table does not reach has never been written.
  const auto there = start + offset < end ? std::min(bytes, end - start - offset) : 0;
  Result<void> result;
  if (there != 0) {
    const IoSlice head(to, 0, there);
    auto hold = lock_clusters(start + offset, there, RangeLock::Mode::kShared);
    co_await hold;
    file_->debug_event(DebugEvent::kVmstateLoad);
    result = co_await read_locked(start + offset, head);
  }
  if (there != bytes) {
    const IoSlice tail(to, there, bytes - there);
    zero_iovec(tail, 0, bytes - there);
  }
  if (!result && result.error().code == ErrorCode::kCorrupt) {
    co_await mark_corrupt(result.error());
  }
  co_return result;
}

Task<Result<void>> Image::write_vm_state(std::uint64_t offset, IoVec from) {
  const auto bytes = iovec_bytes(from);
  if (auto ok = check_write(0, 0); !ok) {
    co_return ok;
  }
  if (bytes == 0) {
    co_return Result<void>{};
  }
  if (geometry_.external_data) {
    co_return fail(ErrorCode::kUnsupported,
                   fmt::format("{}: keeps its data in another file, so no machine state", name()));
  }
  const auto start = vm_state_offset();
  const auto entries = (start / geometry_.l2_coverage() + 1) + (offset + bytes - 1) / geometry_.l2_coverage();
  if (offset > kMaxHostOffset || bytes > kMaxHostOffset - offset || entries * 8 > kMaxL1Bytes) {
    co_return fail_errno(EFBIG,
                         fmt::format("{}: write {} bytes of machine state at {}", name(), bytes, offset));
  }
  file_->debug_event(DebugEvent::kVmstateSave);
  Result<void> result;
  if (entries > l1_.size()) {
    RangeLock::Hold everything(requests_, 0, ~std::uint64_t{0}, RangeLock::Mode::kExclusive);
    co_await everything;
    if (entries > l1_.size()) {  // nobody else has made it so long meanwhile
      result = co_await move_l1(entries);
    }
  }
  if (result) {
    auto hold = lock_clusters(start + offset, bytes, RangeLock::Mode::kExclusive);
    co_await hold;
    result = co_await write_exclusive(start + offset, from);
  }
  if (!result && result.error().code == ErrorCode::kCorrupt) {
    co_await mark_corrupt(result.error());
  }
  co_return result;
}

}  // namespace whistler::qcow2

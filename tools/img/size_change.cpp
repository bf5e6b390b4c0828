#include "tools/img/size_change.hpp"

#include "base/bytes.hpp"

namespace whistler::tools {

namespace {

std::unexpected<Error> refuse(std::string text) { return fail(ErrorCode::kInvalid, std::move(text)); }

Result<void> check_qcow2(const SizeChange& change, bool shrinks) {
  if (change.bytes % 512 != 0) {
    return refuse("The new size must be a multiple of 512");
  }
  if (shrinks && change.preallocation != Preallocation::kOff) {
    return refuse("Preallocation can't be used for shrinking an image");
  }
  return {};
}

/// What the host's file must do, as the format keeps no metadata of where the data is.
Result<void> check_plain(const SizeChange& change, bool shrinks) {
  if (shrinks && change.preallocation != Preallocation::kOff) {
    return refuse("Cannot use preallocation for shrinking files");
  }
  if (change.preallocation == Preallocation::kMetadata) {
    return refuse("Unsupported preallocation mode: metadata");
  }
  return {};
}

}  // namespace

std::optional<Preallocation> parse_preallocation(std::string_view text) {
  if (text == "off") {
    return Preallocation::kOff;
  }
  if (text == "metadata") {
    return Preallocation::kMetadata;
  }
  if (text == "falloc") {
    return Preallocation::kFalloc;
  }
  return text == "full" ? std::optional(Preallocation::kFull) : std::nullopt;
}

Task<Result<void>> change_size(BlockDevice& device, SizeChange change) {
  const auto old_size = device.size();
  const bool shrinks = align_up(change.bytes, 512) < old_size;  // a file may end within a sector
  Result<void> done;
  if (change.format == "qcow2") {
    done = check_qcow2(change, shrinks);
  } else if (change.format == "raw" || change.format == "file" || change.format == "luks") {
    done = check_plain(change, shrinks);
  }
  if (done) {
    done = co_await device.resize(change.bytes);
  }
  if (done && change.preallocation != Preallocation::kOff && device.size() > old_size) {
    done = co_await device.preallocate(old_size, device.size() - old_size, change.preallocation);
  }
  co_return done;
}

}  // namespace whistler::tools

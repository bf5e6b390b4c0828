#include "block/jobs/commit.hpp"

#include <fmt/format.h>

#include "base/log.hpp"
#include "block/jobs/rebase.hpp"

namespace whistler {

Task<Result<void>> open_for_commit(BlockDevice& base, std::uint64_t size) {
  auto done = co_await base.set_read_only(false);
  if (done && base.size() < size) {
    done = co_await base.resize(size);
  }
  co_return done;
}

Task<void> close_for_commit(BlockDevice& base) {
  auto done = co_await base.set_read_only(true);
  if (!done) {
    log(LogLevel::kError, fmt::format("{}: stays open for writing: {}", base.name(), done.error().message));
  }
}

Task<Copied> Commit::step(std::uint64_t at, std::uint64_t& bytes, const CopyBuffer& buffer) {
  Copied copied;
  const auto status = co_await chain_status(*place_.top, place_.base, at, bytes);
  if (!status) {
    copied.result = std::unexpected(status.error());
    co_return copied;
  }
  bytes = status->bytes;
  if (status->allocated) {
    copied = co_await copy_stretch(*place_.top, *place_.base, at, bytes, *status, buffer);
  }
  co_return copied;
}

Task<Result<void>> Commit::run(BlockJob& job) {
  const auto size = place_.top->size();
  auto done = co_await open_for_commit(*place_.base, size);
  if (done) {
    done = co_await walk_disk(job, *this, size, IfIgnored::kRetry);
  }
  co_return done;
}

Task<Result<void>> Commit::conclude() {
  auto done = co_await place_.base->flush();
  if (done) {
    co_await drive_.hold();
    done = co_await stand_on(*place_.overlay, place_.base, place_.name, place_.format);
    drive_.release();
  }
  co_return done;
}

Task<void> Commit::clean_up() { co_await close_for_commit(*place_.base); }

}  // namespace whistler

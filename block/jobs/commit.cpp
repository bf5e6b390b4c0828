#include "block/jobs/commit.hpp"

#include <fmt/format.h>

#include <algorithm>

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

Task<Result<void>> Commit::run(BlockJob& job) {
  auto& top = *place_.top;
  auto& base = *place_.base;
  const auto size = top.size();
  job.expect(size);
  auto done = co_await open_for_commit(base, size);
  const CopyBuffer buffer(static_cast<std::size_t>(job.piece_bytes()));
  for (std::uint64_t at = 0; at < size && done;) {
    auto bytes = std::min(job.piece_bytes(), size - at);
    auto status = co_await chain_status(top, &base, at, bytes);
    Copied copied;
    if (!status) {
      copied.result = std::unexpected(status.error());
    } else {
      bytes = status->bytes;
      if (status->allocated) {
        copied = co_await copy_stretch(top, base, at, bytes, *status, buffer);
      }
    }
    if (!copied.result) {
      done = co_await job.judge(copied.result.error(), copied.write);
      continue;
    }
    job.progress(bytes);
    at += bytes;
    done = co_await job.pace(bytes);
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

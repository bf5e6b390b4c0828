#include "block/jobs/stream.hpp"

#include <algorithm>

#include "block/jobs/rebase.hpp"

namespace whistler {

Task<Copied> Stream::take_in(std::uint64_t at, std::uint64_t& bytes, const CopyBuffer& buffer) {
  // Between the question and the copy nobody writes there.
  RangeLock::Hold hold(drive_.changes(), at, at + bytes, RangeLock::Mode::kExclusive);
  co_await hold;
  Copied copied;
  auto status = co_await top_.block_status(at, bytes);
  if (!status) {
    copied.result = std::unexpected(status.error());
    co_return copied;
  }
  bytes = status->bytes;
  if (status->data || top_.backing() == nullptr) {
    co_return copied;
  }
  auto below = co_await chain_status(top_, base_.device, at, bytes);
  if (!below) {
    copied.result = std::unexpected(below.error());
    co_return copied;
  }
  bytes = below->bytes;
  // Without a base, what no layer holds is zero as before.
  if (below->allocated && (!below->zero || base_.device != nullptr)) {
    copied = co_await copy_stretch(top_, top_, at, bytes, *below, buffer);
  }
  co_return copied;
}

Task<Result<void>> Stream::run(BlockJob& job) {
  co_await drive_.hold();
  drive_.watch(this);
  drive_.release();
  const auto size = top_.size();
  job.expect(size);
  const CopyBuffer buffer(static_cast<std::size_t>(job.piece_bytes()));
  Result<void> done;
  for (std::uint64_t at = 0; at < size && done;) {
    auto bytes = std::min(job.piece_bytes(), size - at);
    auto copied = co_await take_in(at, bytes, buffer);
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

Task<Result<void>> Stream::conclude() {
  co_await drive_.hold();
  auto done = co_await stand_on(top_, base_.device, base_.name, base_.format);
  drive_.release();
  co_return done;
}

Task<void> Stream::clean_up() {
  co_await drive_.hold();
  drive_.watch(nullptr);
  drive_.release();
}

}  // namespace whistler

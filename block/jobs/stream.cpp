#include "block/jobs/stream.hpp"

#include "block/jobs/rebase.hpp"

namespace whistler {

Task<Copied> Stream::step(std::uint64_t at, std::uint64_t& bytes, const CopyBuffer& buffer) {
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
  auto done = co_await walk_disk(job, *this, top_.size(), IfIgnored::kGoOn);
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

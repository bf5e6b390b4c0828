// Forgetting everything a layer holds, and cutting off what is not used at the end of the file.
#include "block/qcow2/image.hpp"

namespace whistler::qcow2 {

Task<Result<void>> Image::make_empty() {
  if (auto ok = check_write(0, 0); !ok) {
    co_return ok;
  }
  RangeLock::Hold everything(requests_, 0, ~std::uint64_t{0}, RangeLock::Mode::kExclusive);
  co_await everything;
  file_->debug_event(DebugEvent::kEmptyImagePrepare);
  for (std::size_t i = 0; i < l1_.size(); ++i) {
    auto room = co_await keep_within_bounds();
    if (!room) {
      co_return room;
    }
    const auto table = l2_table_at(i);
    if (!table) {
      co_return std::unexpected(table.error());
    }
    if (*table == 0) {
      set_l1(i, 0);
      continue;
    }
    for (std::uint64_t at = 0; at < geometry_.cluster_size(); at += l2_cache_->slice_bytes()) {
      auto pin = co_await l2_cache_->get(*table + at);
      if (!pin) {
        co_return std::unexpected(pin.error());
      }
      for (std::uint64_t index = 0; index < entries_in_slice(); ++index) {
        free_mapping_later(load_l2(pin->data(), index, geometry_), true);
      }
    }
    // What the table says is as before, but nothing names it any more.
    refcounts_->remove_metadata(*table >> geometry_.cluster_bits);
    l2_cache_->drop(*table, geometry_.cluster_size());
    free_later(*table >> geometry_.cluster_bits, 1, false);
    set_l1(i, 0);
  }
  auto done = co_await trim_end();
  co_return done;
}

Task<Result<void>> Image::trim_end() {
  // Twice: the counts of what the first one frees are written by the second.
  auto done = co_await flush_covering(true);
  if (done) {
    done = co_await flush_covering(true);
  }
  if (!done) {
    co_return done;
  }
  auto end = geometry_.clusters_for(file_->size());
  for (; end > 1 && !refcounts_->is_metadata(end - 1); --end) {
    auto uses = co_await refcounts_->get(end - 1);
    if (!uses) {
      co_return std::unexpected(uses.error());
    }
    if (*uses != 0) {
      break;
    }
  }
  if (end << geometry_.cluster_bits < file_->size()) {
    done = co_await file_->resize(end << geometry_.cluster_bits);
  }
  co_return done;
}

}  // namespace whistler::qcow2

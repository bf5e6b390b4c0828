// What the header says of the backing file, and showing a snapshot instead of the disk.
#include <fmt/format.h>

#include <algorithm>

#include "block/qcow2/image.hpp"
#include "block/qcow2/snapshots.hpp"

namespace whistler::qcow2 {

Task<Result<void>> Image::change_backing_file(std::optional<std::string> name,
                                              std::optional<std::string> format) {
  if (auto ok = check_write(0, 0); !ok) {
    co_return ok;
  }
  // What is named and what it stands on must not change places: all that was written is durable before.
  auto done = co_await flush_covering(true);
  if (!done) {
    co_return done;
  }
  const auto guard = co_await refcounts_->header_mutex().lock();
  auto header = header_;
  header.backing_file = std::move(name);
  std::erase_if(header.extensions,
                [](const Extension& extension) { return extension.type == kBackingFormatExtension; });
  if (header.backing_file && format) {
    header.set_extension_text(kBackingFormatExtension, *format);
  }
  auto bytes = encode_header(header);
  if (!bytes) {  // the names of features are a courtesy
    std::erase_if(header.extensions,
                  [](const Extension& extension) { return extension.type == kFeatureNamesExtension; });
    bytes = encode_header(header);
  }
  if (!bytes) {
    co_return fail(ErrorCode::kNoSpace, fmt::format("{}: {}", this->name(), bytes.error().message));
  }
  const iovec vec{bytes->data(), bytes->size()};
  done = co_await file_->writev(0, {&vec, 1});
  if (done) {
    done = co_await file_->flush();
  }
  if (done) {
    header_ = std::move(header);
  }
  co_return done;
}

Task<Result<void>> Image::show_snapshot(std::string id, std::string name) {
  Snapshots snapshots(*this);
  auto list = co_await snapshots.list();
  if (!list) {
    co_return std::unexpected(list.error());
  }
  const auto found = std::find_if(list->begin(), list->end(), [&](const Snapshot& snapshot) {
    return (id.empty() || snapshot.id == id) && (name.empty() || snapshot.name == name);
  });
  if (found == list->end() || (id.empty() && name.empty())) {
    co_return fail(ErrorCode::kNotFound, fmt::format("{}: has no such snapshot", this->name()));
  }
  auto l1 = co_await snapshots.read_l1(*found);
  if (!l1) {
    co_return std::unexpected(l1.error());
  }
  l1_ = std::move(*l1);
  header_.size = found->disk_size;
  // A table shorter than the disk maps the rest to nothing.
  l1_.resize(std::max<std::size_t>(l1_.size(), static_cast<std::size_t>(geometry_.l1_entries_for(size()))));
  co_return Result<void>{};
}

}  // namespace whistler::qcow2

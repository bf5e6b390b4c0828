// Named dirty bitmaps: what has changed on a drive since somebody began to look, for incremental backups.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "block/dirty_bits.hpp"
#include "block/drive_image.hpp"

namespace whistler {

/// Under the machine lock.
class DirtyBitmap {
 public:
  DirtyBitmap(std::string name, DirtyBits bits) : name_(std::move(name)), bits_(std::move(bits)) {}

  [[nodiscard]] const std::string& name() const { return name_; }
  /// What has changed; for a job that uses it, up to the moment that it began.
  [[nodiscard]] DirtyBits& bits() { return bits_; }
  [[nodiscard]] bool enabled() const { return enabled_; }
  void enable(bool on) { enabled_ = on; }
  /// Whether a job uses it: nobody else may.
  [[nodiscard]] bool busy() const { return later_.has_value(); }
  /// Bytes marked, with those that have come while a job uses it.
  [[nodiscard]] std::uint64_t count() const;

  void record(std::uint64_t offset, std::uint64_t bytes);
  void resize(std::uint64_t bytes);
  /// A job uses it from now on; what changes is kept apart.
  void lend();
  /// It is done: `bits` and what has changed meanwhile are marked from now on.
  void give_back(DirtyBits bits);

 private:
  std::string name_;
  DirtyBits bits_;
  std::optional<DirtyBits> later_;  // while a job uses it
  bool enabled_ = true;
};

/// All of a drive. They go on over changes of its images.
class DirtyBitmaps final : public ChangeRecorder {
 public:
  using Bitmap = std::shared_ptr<DirtyBitmap>;

  void recorded(std::uint64_t offset, std::uint64_t bytes) override;
  void resized(std::uint64_t bytes) override;

  [[nodiscard]] const std::vector<Bitmap>& all() const { return all_; }
  /// Null if there is none of that name.
  [[nodiscard]] Bitmap find(std::string_view name) const;
  void add(Bitmap bitmap) { all_.push_back(std::move(bitmap)); }
  void remove(const Bitmap& bitmap) { std::erase(all_, bitmap); }

 private:
  std::vector<Bitmap> all_;
};

}  // namespace whistler

// Dirty bitmaps of drives: made, changed and taken away, each alone or in a transaction.
//
// They last as long as the machine runs. Missing: persistent ones, which the image stores.
#include <fmt/format.h>

#include <bit>

#include "vmm/monitor/drive_action.hpp"
#include "vmm/monitor/qmp_bitmaps.hpp"
#include "vmm/monitor/qmp_media.hpp"

namespace whistler::qmp {
namespace {

using Bitmap = DirtyBitmaps::Bitmap;

constexpr std::int64_t kUsualGranularity = 65536;
constexpr std::int64_t kSmallestGranularity = 512;
constexpr std::int64_t kLargestGranularity = std::int64_t{1} << 31;
constexpr std::uint64_t kMostBytes = std::uint64_t{64} << 20;  // of bits
constexpr std::size_t kMostBitmaps = 64;                       // of a drive
constexpr std::size_t kLongestName = 1023;

/// Is done when it is made, and undone unless it is committed.
class BitmapAction final : public DriveAction {
 public:
  BitmapAction(Drive& drive, std::function<void()> undo) : drive_(drive), undo_(std::move(undo)) {}
  ~BitmapAction() override {
    if (undo_) {
      undo_();
    }
  }
  BitmapAction(const BitmapAction&) = delete;
  BitmapAction& operator=(const BitmapAction&) = delete;

  [[nodiscard]] DriveImage* drive() override { return drive_.image(); }
  [[nodiscard]] Task<Answer<void>> prepare(Stop&) override { co_return Answer<void>{}; }
  [[nodiscard]] Task<Answer<void>> freeze() override { co_return Answer<void>{}; }
  void commit() override { undo_ = nullptr; }
  [[nodiscard]] Task<void> abort() override { co_return; }

 private:
  Drive& drive_;
  std::function<void()> undo_;
};

/// The drive whose bitmaps a command is about, claimed.
Answer<Drive*> drive_of(MachineControl& machine, DriveClaims& claims, const std::string& node) {
  auto* const drive = find_drive(machine, node);
  if (drive == nullptr) {
    return no_such_drive(node, node);
  }
  if (drive->image() == nullptr) {
    return refuse("Device has no medium");
  }
  if (!claims.claim(*drive)) {
    return refuse(fmt::format("Node '{}' is busy: another command works on it", node));
  }
  return drive;
}

struct Found {
  Drive* drive;
  Bitmap bitmap;
};

/// One that nobody uses.
Answer<Found> find(MachineControl& machine, DriveClaims& claims, const std::string& node,
                   const std::string& name) {
  const auto drive = drive_of(machine, claims, node);
  if (!drive) {
    return std::unexpected(drive.error());
  }
  auto bitmap = (*drive)->bitmaps().find(name);
  if (!bitmap) {
    return refuse(fmt::format("Dirty bitmap '{}' not found", name));
  }
  if (bitmap->busy()) {
    return refuse(
        fmt::format("Bitmap '{}' is currently in use by another operation and cannot be used", name));
  }
  return Found{*drive, std::move(bitmap)};
}

/// The bitmap that "node" and "name" say.
Answer<Found> take_bitmap(MachineControl& machine, DriveClaims& claims, Arguments& arguments) {
  const auto node = arguments.text("node");
  const auto name = arguments.text("name");
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  return find(machine, claims, node, name);
}

MadeAction set_enabled(MachineControl& machine, DriveClaims& claims, Arguments& arguments, bool enabled) {
  const auto found = take_bitmap(machine, claims, arguments);
  if (!found) {
    return std::unexpected(found.error());
  }
  const bool before = found->bitmap->enabled();
  found->bitmap->enable(enabled);
  return std::make_unique<BitmapAction>(*found->drive,
                                        [bitmap = found->bitmap, before] { bitmap->enable(before); });
}

/// Gives `bitmap` other bits.
MadeAction set_bits(const Found& found, DirtyBits bits) {
  auto before = std::exchange(found.bitmap->bits(), std::move(bits));
  return std::make_unique<BitmapAction>(
      *found.drive, [bitmap = found.bitmap, before = std::move(before)] { bitmap->bits() = before; });
}

}  // namespace

MadeAction make_bitmap_add_action(MachineControl& machine, DriveClaims& claims, Arguments& arguments) {
  const auto node = arguments.text("node");
  const auto name = arguments.text("name");
  const auto granularity = arguments.number_or("granularity", kUsualGranularity);
  const bool disabled = arguments.flag_or("disabled", false);
  if (arguments.flag_or("persistent", false)) {
    arguments.fail("'persistent' is not supported: bitmaps last as long as the machine runs");
  }
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  const auto drive = drive_of(machine, claims, node);
  if (!drive) {
    return std::unexpected(drive.error());
  }
  if (name.empty() || name.size() > kLongestName) {
    return refuse(name.empty() ? "Bitmap name cannot be empty"
                               : fmt::format("Bitmap name is longer than {} bytes", kLongestName));
  }
  if (granularity < kSmallestGranularity || granularity > kLargestGranularity ||
      !std::has_single_bit(static_cast<std::uint64_t>(granularity))) {
    return refuse(fmt::format("Granularity must be power of 2, from {} to {}", kSmallestGranularity,
                              kLargestGranularity));
  }
  auto& bitmaps = (*drive)->bitmaps();
  if (bitmaps.find(name)) {
    return refuse(fmt::format("Bitmap already exists: {}", name));
  }
  const auto bits = static_cast<unsigned>(std::countr_zero(static_cast<std::uint64_t>(granularity)));
  const auto size = (*drive)->image()->size();
  if (DirtyBits::bytes_for(size, bits) > kMostBytes || bitmaps.all().size() >= kMostBitmaps) {
    return refuse(fmt::format("Bitmap '{}' would take too much memory: at most {} bitmaps of {} bytes each",
                              name, kMostBitmaps, kMostBytes));
  }
  const auto bitmap = std::make_shared<DirtyBitmap>(name, DirtyBits(size, bits));
  bitmap->enable(!disabled);
  bitmaps.add(bitmap);
  return std::make_unique<BitmapAction>(**drive, [&bitmaps, bitmap] { bitmaps.remove(bitmap); });
}

MadeAction make_bitmap_remove_action(MachineControl& machine, DriveClaims& claims, Arguments& arguments) {
  const auto found = take_bitmap(machine, claims, arguments);
  if (!found) {
    return std::unexpected(found.error());
  }
  auto& bitmaps = found->drive->bitmaps();
  bitmaps.remove(found->bitmap);
  return std::make_unique<BitmapAction>(*found->drive,
                                        [&bitmaps, bitmap = found->bitmap] { bitmaps.add(bitmap); });
}

MadeAction make_bitmap_clear_action(MachineControl& machine, DriveClaims& claims, Arguments& arguments) {
  const auto found = take_bitmap(machine, claims, arguments);
  if (!found) {
    return std::unexpected(found.error());
  }
  const auto& bits = found->bitmap->bits();
  return set_bits(*found, DirtyBits(bits.disk_bytes(), bits.granularity_bits()));
}

MadeAction make_bitmap_enable_action(MachineControl& machine, DriveClaims& claims, Arguments& arguments) {
  return set_enabled(machine, claims, arguments, true);
}

MadeAction make_bitmap_disable_action(MachineControl& machine, DriveClaims& claims, Arguments& arguments) {
  return set_enabled(machine, claims, arguments, false);
}

MadeAction make_bitmap_merge_action(MachineControl& machine, DriveClaims& claims, Arguments& arguments) {
  const auto node = arguments.text("node");
  const auto target = arguments.text("target");
  const auto list = arguments.list("bitmaps");
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  const auto into = find(machine, claims, node, target);
  if (!into) {
    return std::unexpected(into.error());
  }
  auto merged = into->bitmap->bits();
  for (const auto& one : list) {
    Arguments source(one.is_object() ? one : Json{{"node", node}, {"name", one}});
    const auto from = take_bitmap(machine, claims, source);
    if (!from) {
      return std::unexpected(from.error());
    }
    if (from->bitmap->bits().disk_bytes() != merged.disk_bytes()) {
      return refuse(fmt::format("Bitmaps '{}' and '{}' are of disks of different sizes, and cannot be merged",
                                target, from->bitmap->name()));
    }
    merged.merge(from->bitmap->bits());
  }
  return set_bits(*into, std::move(merged));
}

Json bitmap_list(Drive& drive) {
  Json list = Json::array();
  for (const auto& bitmap : drive.bitmaps().all()) {
    list.push_back({{"name", bitmap->name()},
                    {"count", bitmap->count()},
                    {"granularity", bitmap->bits().granularity()},
                    {"recording", bitmap->enabled()},
                    {"busy", bitmap->busy()},
                    {"persistent", false}});
  }
  return list;
}

}  // namespace whistler::qmp

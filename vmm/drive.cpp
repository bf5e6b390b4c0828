#include "vmm/drive.hpp"

#include "block/write_policy.hpp"

namespace whistler {

OpenOptions Drive::open_options(const std::string& file, const std::string& format) const {
  OpenOptions options;
  options.path = file;
  options.format = format;
  options.read_only = description_.read_only || removable();
  options.cache = is_direct(description_.cache)                    ? CacheMode::kNone
                  : description_.cache == CacheMode::kWritethrough ? CacheMode::kWriteback
                                                                   : description_.cache;
  options.allow_remote = description_.remote_backing;
  options.password = password_;
  options.let_go = servers_.get();
  return options;
}

void Drive::insert(std::unique_ptr<BlockDevice> image, const std::string& file, const std::string& format,
                   std::unique_ptr<Stop> servers) {
  if (servers) {
    servers_ = std::move(servers);
  }
  auto drive_image = std::make_unique<DriveImage>(std::move(image), counts_, failed_);
  image_ = drive_image.get();
  image_->record_for(&bitmaps_);
  std::unique_ptr<BlockDevice> top = std::move(drive_image);
  if (is_writethrough(description_.cache)) {
    top = std::make_unique<WritePolicy>(std::move(top), true, DetectZeroes::kOff);
  }
  device_ = std::make_unique<PauseWhenFull>(std::move(top), space_);
  renamed(file, format);
}

std::unique_ptr<BlockDevice> Drive::remove() {
  image_ = nullptr;
  bitmaps_ = {};
  renamed({}, {});
  return std::move(device_);
}

}  // namespace whistler

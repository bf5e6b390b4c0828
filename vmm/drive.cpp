#include "vmm/drive.hpp"

namespace whistler {

OpenOptions Drive::open_options(const std::string& file, const std::string& format) const {
  OpenOptions options;
  options.path = file;
  options.format = format;
  options.read_only = description_.read_only || removable();
  options.cache = description_.cache;
  options.allow_remote = description_.remote_backing;
  return options;
}

void Drive::insert(std::unique_ptr<BlockDevice> image, const std::string& file, const std::string& format) {
  auto watched = std::make_unique<DriveImage>(std::move(image), counts_);
  image_ = watched.get();
  device_ = std::make_unique<PauseWhenFull>(std::move(watched), space_);
  renamed(file, format);
}

std::unique_ptr<BlockDevice> Drive::remove() {
  image_ = nullptr;
  renamed({}, {});
  return std::move(device_);
}

}  // namespace whistler

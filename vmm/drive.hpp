// A drive of the machine, and the medium in it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "block/crypto/secret.hpp"
#include "block/dirty_bitmap.hpp"
#include "block/drive_image.hpp"
#include "block/open.hpp"
#include "vmm/config/description.hpp"
#include "vmm/pause_when_full.hpp"

namespace whistler {

class DriveClaims;

/// Under the machine lock.
class Drive {
 public:
  /// `space` outlives it.
  Drive(DriveDescription description, SpaceWaiters& space)
      : description_(std::move(description)), space_(space) {}

  /// As the machine was described, with the file that is in the drive now: empty if there is none.
  [[nodiscard]] const DriveDescription& description() const { return description_; }
  [[nodiscard]] bool removable() const { return description_.media == Media::kCdrom; }
  [[nodiscard]] const IoCounts& counts() const { return counts_; }
  /// Opens this drive's images where they are encrypted.
  void set_password(crypto::Secret password) { password_ = std::move(password); }
  /// `failed` is told of every request of the guest that fails.
  void watch_failures(DriveImage::Failed failed) { failed_ = std::move(failed); }

  /// What the guest's requests go to; null without a medium.
  [[nodiscard]] BlockDevice* device() { return device_.get(); }
  [[nodiscard]] DriveImage* image() { return image_; }

  /// Of the medium that is in it.
  [[nodiscard]] DirtyBitmaps& bitmaps() { return bitmaps_; }

  /// How a file for this drive is to be opened, with the rights the drive has. Writing through is not the
  /// image's affair: insert() sees to it.
  [[nodiscard]] OpenOptions open_options(const std::string& file, const std::string& format) const;

  /// Puts an open image into the empty drive. `servers` is the `let_go` it was opened with, if that is not
  /// the one of open_options().
  void insert(std::unique_ptr<BlockDevice> image, const std::string& file, const std::string& format,
              std::unique_ptr<Stop> servers = nullptr);
  /// Makes requests to its images fail that wait for a server.
  [[nodiscard]] Stop& servers() { return *servers_; }
  /// Takes the medium out, to be closed. The chip must not use it any more.
  [[nodiscard]] std::unique_ptr<BlockDevice> remove();
  /// The drive's image is another file now, with the same content (a snapshot's overlay, ...).
  void renamed(const std::string& file, const std::string& format) {
    description_.file = file;
    description_.format = format;
  }

  /// Who keeps others off its images: see DriveClaims. Null: nobody.
  [[nodiscard]] const DriveClaims* claims() const { return claims_; }
  void set_claims(const DriveClaims* claims) { claims_ = claims; }

 private:
  DriveDescription description_;
  SpaceWaiters& space_;
  IoCounts counts_;
  DriveImage::Failed failed_;
  DirtyBitmaps bitmaps_;
  std::optional<crypto::Secret> password_;
  std::unique_ptr<BlockDevice> device_;
  DriveImage* image_ = nullptr;  // within device_
  const DriveClaims* claims_ = nullptr;
  std::unique_ptr<Stop> servers_ = std::make_unique<Stop>();
};

}  // namespace whistler

// What an IDE drive is made of, as the machine's description gives it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "block/block_device.hpp"

namespace whistler {

enum class IdeKind : std::uint8_t { kDisk, kCdrom };

/// A disk's default translation, reported by IDENTIFY DEVICE words 1, 3 and 6.
struct IdeGeometry {
  std::uint16_t cylinders = 0;  ///< 1..16383
  std::uint8_t heads = 0;       ///< 1..16
  std::uint8_t sectors = 0;     ///< 1..63, a track
};

/// How a BIOS presents a disk to programs that address by cylinder, head and sector. The values are those of
/// CMOS byte 0x39.
enum class BiosTranslation : std::uint8_t { kNone = 0, kLba = 1, kLarge = 2, kRechs = 3 };

struct IdeDriveConfig {
  IdeKind kind = IdeKind::kDisk;
  /// The content: required for a disk, null for a CD-ROM drive without a disc. Must outlive the drive or, for
  /// a CD-ROM, its removal. A disk's size counts in whole sectors of 512 bytes; a disc's last block is padded
  /// with zeroes to 2048.
  BlockDevice* block = nullptr;
  std::string model;     ///< up to 40 printable ASCII characters; longer is cut; empty takes a default
  std::string serial;    ///< up to 20
  std::string firmware;  ///< up to 8
  /// Default: 16 heads and 63 sectors, as every BIOS of the time expects, with as many cylinders as fit (at
  /// most 16383).
  std::optional<IdeGeometry> geometry;
  std::optional<BiosTranslation> translation;  ///< for the board's CMOS; default: what the geometry needs
  bool read_only = false;   ///< writes fail with an aborted command even if `block` could take them
  bool write_cache = true;  ///< enabled at power-on; when off, writes are durable when the command ends
};

}  // namespace whistler

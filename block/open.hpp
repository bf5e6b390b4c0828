// Opens a disk image by its description: the one entrance to the storage engine.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/stop.hpp"
#include "block/block_device.hpp"
#include "block/crypto/secret.hpp"
#include "block/file.hpp"

namespace whistler {

enum class DetectZeroes : std::uint8_t {
  kOff,
  kOn,     ///< a write of nothing but zeroes is done as write_zeroes, keeping its space
  kUnmap,  ///< the same, giving the space back
};

struct OpenOptions {
  /// A file name, or where an NBD server has the disk: "nbd://HOST:PORT/EXPORT",
  /// "nbd+unix:///EXPORT?socket=PATH".
  std::string path = {};
  /// "raw", "qcow2", "luks", "vdi", "vpc" (VHD), or, to be read, "vmdk" or "vhdx". Never guessed: a guest can
  /// write any header into its raw disk.
  std::string format = {};
  bool read_only = false;
  CacheMode cache = CacheMode::kWriteback;
  bool lock = true;
  /// See FileOptions; for tools.
  bool force_share = false;
  bool inline_writes = false;
  /// May the image name further files (a backing file, an external data file)? If not, such an image is
  /// refused.
  bool allow_backing = true;
  /// May those further files be disks on NBD servers? Not by default: a hostile image would reach out over
  /// the network. `path` itself may always be one: that is the caller's own word.
  bool allow_remote = false;
  /// For a backing file whose format the image does not store: it is refused without this.
  std::string backing_format = {};
  /// Open without the backing file: what lies there reads as zeroes. For `info` and `rebase -u`; never for a
  /// machine.
  bool ignore_backing = false;
  DetectZeroes detect_zeroes = DetectZeroes::kOff;
  /// Whether discard() reaches the host; else it does nothing.
  bool discard = true;
  /// qcow2: bytes of mapping tables held in memory; 0 chooses enough for the whole disk, up to 32 MiB.
  std::uint64_t metadata_cache_bytes = 0;
  /// For encrypted images: of this one and, where they are encrypted, of those behind it.
  std::optional<crypto::Secret> password = {};
  /// Given by who must not be held up, and there until it is open: calls that may block go to threads, and
  /// when it is asked for, opening ends with an error.
  Stop* stop = nullptr;
  /// When it is asked for, at any time, requests that wait for a server fail.
  Stop* let_go = nullptr;
};

/// Opens the image and what it stands on. Messages name the file. Nothing is changed on disk by a read-only
/// open.
[[nodiscard]] Task<Result<std::unique_ptr<BlockDevice>>> open_image_task(Ring& ring, OpenOptions options);

/// The same, waiting on `ring`: at start-up and for tools, when no other coroutine of it needs to run.
[[nodiscard]] Result<std::unique_ptr<BlockDevice>> open_image(Ring& ring, const OpenOptions& options);

/// A file name as an image stores it, seen from the directory of that image. An NBD name
/// stays what it is; kUnsupported for other protocols ("http:...").
[[nodiscard]] Result<std::string> resolve_name(const std::string& image, std::string name);

}  // namespace whistler

// A LUKS volume: its key, unlocked by a password, and the slots that hold the key for one password each.
//
// The header lies at any place of any device: at the beginning of a raw volume, in clusters of its own in a
// qcow2 image. Order: the key material of a new slot is durable before the header calls the slot active; an
// erased slot is inactive in the header before its material is overwritten. A crash never costs a key that
// was not to be erased.
#pragma once

#include <optional>
#include <vector>

#include "base/stop.hpp"
#include "block/block_device.hpp"
#include "block/crypto/luks_header.hpp"
#include "block/uring/ring.hpp"

namespace whistler::crypto {

/// A change of key slots, as `amend` has it.
struct LuksAmend {
  bool activate = false;  ///< add a password; else erase
  std::optional<Secret> new_password = {};
  std::optional<Secret> old_password = {};
  std::optional<std::uint64_t> slot = {};
  std::optional<std::uint64_t> iteration_milliseconds = {};
  /// Overwrite an active slot; erase the last one.
  bool force = false;
};

class Luks {
 public:
  /// Reads and checks the header at `offset` of `file`, which must outlive this.
  [[nodiscard]] static Task<Result<Luks>> load(BlockDevice& file, std::uint64_t offset);
  /// Makes a volume's header with one password in slot 0, in memory: what is to be written, and the key.
  struct New;
  [[nodiscard]] static Result<New> make(const LuksOptions& options, const Secret& password);
  /// Bytes in front of the payload of a volume made so.
  [[nodiscard]] static Result<std::uint64_t> payload_offset(const LuksOptions& options);

  [[nodiscard]] const LuksHeader& header() const { return header_; }
  [[nodiscard]] bool unlocked() const { return cipher_.has_value(); }
  /// Finds the slot the password opens. kPermission if there is none. That takes seconds, by design: with a
  /// `stop`, a thread does it, and is given up when that is asked for.
  [[nodiscard]] Task<Result<void>> unlock(const Secret& password, Ring* ring = nullptr, Stop* stop = nullptr);
  /// Only when unlocked.
  [[nodiscard]] SectorCipher& cipher() { return *cipher_; }
  /// Adds or erases keys. Adding needs the volume unlocked. Errors in QEMU's words.
  [[nodiscard]] Task<Result<void>> amend(LuksAmend change);

 private:
  Luks(BlockDevice& file, std::uint64_t offset, LuksHeader header)
      : file_(&file), offset_(offset), header_(std::move(header)) {}

  [[nodiscard]] Task<Result<Secret>> read_material(std::size_t slot);
  [[nodiscard]] Task<Result<std::optional<Secret>>> key_of_slot(std::size_t slot, const Secret& password,
                                                                Ring* ring = nullptr, Stop* stop = nullptr);
  [[nodiscard]] Task<Result<void>> add(const LuksAmend& change);
  [[nodiscard]] Task<Result<void>> erase(const LuksAmend& change);
  [[nodiscard]] Task<Result<void>> erase_slot(std::size_t slot);
  [[nodiscard]] Task<Result<void>> fill_slot(std::size_t index, LuksSlot slot, Secret& material);
  [[nodiscard]] Task<Result<void>> write(std::uint64_t offset, Bytes bytes);

  BlockDevice* file_;
  std::uint64_t offset_;
  LuksHeader header_;
  Secret master_key_;
  std::optional<SectorCipher> cipher_;
};

struct Luks::New {
  LuksHeader header;
  std::vector<std::uint8_t> bytes;  ///< the beginning of the volume; from there to the payload are zeroes
  Secret master_key;
};

}  // namespace whistler::crypto

// What a server offers.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "block/block_device.hpp"

namespace whistler::nbd {

/// One more thing to know about every byte of an export, beside base:allocation.
class MetaContext {
 public:
  struct Extent {
    std::uint64_t bytes = 0;  ///< at least 1
    std::uint32_t flags = 0;
  };

  virtual ~MetaContext() = default;
  /// "qemu:dirty-bitmap:NAME", for example.
  [[nodiscard]] virtual std::string name() const = 0;
  /// What is known from `offset` of the disk on, for at most `bytes`.
  [[nodiscard]] virtual Task<Result<Extent>> extent(std::uint64_t offset, std::uint64_t bytes) = 0;
};

struct Export {
  std::string name = {};
  std::string description = {};
  std::shared_ptr<BlockDevice> device = {};
  /// The part of the disk that is shown.
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  bool read_only = false;
  /// Clients may spread their requests over several connections.
  bool multi_conn = false;
  std::uint32_t min_block = 1;
  std::vector<std::shared_ptr<MetaContext>> contexts = {};

  /// NBD_FLAG_*, for a client that has (not) asked for structured replies.
  [[nodiscard]] std::uint16_t flags(bool structured) const;
  [[nodiscard]] std::uint32_t preferred_block() const { return min_block > 4096 ? min_block : 4096; }
};

}  // namespace whistler::nbd

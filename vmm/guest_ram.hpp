// The memory the guest runs in.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.hpp"
#include "base/unique_fd.hpp"

namespace whistler {

/// RAM lies from 0 up to 3 GiB, below the PCI hole, and the rest from 4 GiB on.
inline constexpr std::uint64_t kMostLowRam = 0xC0000000;
inline constexpr std::uint64_t kHighRamBase = 0x100000000;

/// One host mapping of a memfd (so that a saved machine's memory can later be mapped by many), zero at first
/// and not yet backed by host pages. Fixed in place for its life.
class GuestRam {
 public:
  struct Options {
    bool huge_pages = false;  ///< from the host's hugetlb pool: an error names the setting if it is too small
    bool merge = false;  ///< let the kernel's KSM merge pages that are equal to others' (private mapping)
  };
  [[nodiscard]] static Result<GuestRam> create(std::uint64_t bytes, Options options);
  GuestRam(GuestRam&& other) noexcept;
  GuestRam& operator=(GuestRam&&) = delete;
  ~GuestRam();

  /// The part below the PCI hole, at guest-physical 0, and the rest, at kHighRamBase (may be empty).
  [[nodiscard]] std::span<std::uint8_t> low() const;
  [[nodiscard]] std::span<std::uint8_t> high() const;
  [[nodiscard]] std::uint64_t size() const { return bytes_.size(); }

 private:
  GuestRam(UniqueFd fd, std::span<std::uint8_t> bytes) : fd_(std::move(fd)), bytes_(bytes) {}
  UniqueFd fd_;
  std::span<std::uint8_t> bytes_;
};

/// Zeroed page-aligned host memory that is not RAM: video memory, ROM images.
class HostMemory {
 public:
  [[nodiscard]] static Result<HostMemory> create(std::uint64_t bytes);
  HostMemory(HostMemory&& other) noexcept;
  HostMemory& operator=(HostMemory&&) = delete;
  ~HostMemory();
  [[nodiscard]] std::span<std::uint8_t> bytes() const { return bytes_; }

 private:
  explicit HostMemory(std::span<std::uint8_t> bytes) : bytes_(bytes) {}
  std::span<std::uint8_t> bytes_;
};

}  // namespace whistler

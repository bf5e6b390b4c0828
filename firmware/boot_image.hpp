// What the two kernel loaders share: where things go in low memory, and checked access to an image.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/bytes.hpp"
#include "firmware/direct_boot.hpp"
#include "firmware/items.hpp"

namespace whistler {

inline constexpr std::uint64_t kMib = 1024 * 1024;
// The loaders' own memory; images may not lie below kLowMemoryStart.
inline constexpr std::uint32_t kGdtAddress = 0x6000;
inline constexpr std::uint32_t kBootParamsAddress = 0x7000;
inline constexpr std::uint32_t kMultibootInfoAddress = 0x9000;
inline constexpr std::uint32_t kStackTop = 0x20000;
inline constexpr std::uint32_t kCommandLineAddress = 0x20000;
inline constexpr std::uint32_t kCommandLineLimit = 0x10000;
inline constexpr std::uint32_t kLowMemoryStart = 0x30000;
inline constexpr std::uint32_t kLowMemoryEnd = 0x9FC00;  // the extended BIOS data area begins
inline constexpr std::uint32_t kLowTables = 0xF0000;     // RSDP and SMBIOS, where kernels search for them
inline constexpr std::uint32_t kAcpiSpace = 0x20000;     // below the end of low RAM

/// The loaders' view of the machine.
struct BootTarget {
  const MachineFacts& facts;
  RamWriter& ram;
  std::uint64_t usable_end = 0;  ///< RAM from 1 MiB up to here is the kernel's
  std::vector<E820Entry> map;
};

/// Bytes of a hostile file; reads past the end give 0 and are refused by has().
class ImageView {
 public:
  explicit ImageView(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}
  [[nodiscard]] bool has(std::uint64_t offset, std::uint64_t length) const {
    return offset <= bytes_.size() && length <= bytes_.size() - offset;
  }
  template <std::unsigned_integral T>
  [[nodiscard]] T get(std::uint64_t offset) const {
    return has(offset, sizeof(T)) ? load_le<T>(&bytes_[offset]) : T{0};
  }
  [[nodiscard]] std::span<const std::uint8_t> part(std::uint64_t offset, std::uint64_t length) const {
    return has(offset, length) ? bytes_.subspan(offset, length) : std::span<const std::uint8_t>{};
  }
  [[nodiscard]] std::uint64_t size() const { return bytes_.size(); }

 private:
  std::span<const std::uint8_t> bytes_;
};

/// Writes to RAM, or names what did not fit.
[[nodiscard]] Result<void> put(RamWriter& ram, std::uint64_t address, std::span<const std::uint8_t> bytes,
                               std::string_view what);
[[nodiscard]] Result<void> put_command_line(RamWriter& ram, const std::string& line, std::uint64_t limit);
/// `file: reason` of kind `code`.
[[nodiscard]] std::unexpected<Error> refuse(const std::string& file, std::string_view reason,
                                            ErrorCode code = ErrorCode::kInvalid);

[[nodiscard]] bool is_linux(std::span<const std::uint8_t> kernel);
[[nodiscard]] Result<DirectBoot> load_linux(const DirectBootFiles& files, const BootTarget& target);
[[nodiscard]] bool is_multiboot(std::span<const std::uint8_t> kernel);
[[nodiscard]] Result<DirectBoot> load_multiboot(const DirectBootFiles& files, const BootTarget& target);

}  // namespace whistler

// BIOS and option ROM images from files.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace whistler {

inline constexpr const char* kDefaultBios = "/usr/share/seabios/bios-256k.bin";
inline constexpr const char* kDefaultVgaBios = "/usr/share/seabios/vgabios-stdvga.bin";

/// A system BIOS: a multiple of 64 KiB, from 64 KiB to 16 MiB. It ends at 4 GiB; its last 128 KiB also appear below
/// 1 MiB. Errors name the file and its size.
[[nodiscard]] Result<std::vector<std::uint8_t>> load_bios(const std::string& path);

/// An option ROM for an expansion ROM BAR: begins with 55 AA, at most 16 MiB; padded with 0xFF to a power of two of
/// at least 4 KiB.
[[nodiscard]] Result<std::vector<std::uint8_t>> load_option_rom(const std::string& path);

/// A regular file, whole. Larger than `max_size` is kInvalid.
[[nodiscard]] Result<std::vector<std::uint8_t>> load_file(const std::string& path, std::uint64_t max_size);

}  // namespace whistler

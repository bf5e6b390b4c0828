// A machine description: what the JSON file says, as plain structs with every default filled in and every
// value checked.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "block/cache_mode.hpp"

namespace whistler {

inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;
inline constexpr std::uint64_t kGiB = 1024 * kMiB;

enum class DriveInterface : std::uint8_t { kIde, kFloppy };
enum class IdeChip : std::uint8_t { kPiix3, kPiix4 };
enum class Media : std::uint8_t { kDisk, kCdrom };

enum class Translation : std::uint8_t { kAuto, kNone, kLba, kLarge, kRechs };

struct Geometry {
  std::uint32_t cylinders = 0, heads = 0, sectors = 0;
};

struct DriveDescription {
  std::string id;
  DriveInterface interface = DriveInterface::kIde;
  unsigned bus = 0, unit = 0;
  Media media = Media::kDisk;
  std::string file;    ///< absolute, or nbd://..., or empty for a drive without a medium
  std::string format;  ///< "raw" or "qcow2"; never guessed
  CacheMode cache = CacheMode::kWriteback;
  bool read_only = false;
  bool remote_backing = false;  ///< whether the image may name disks on NBD servers
  std::string password_file;    ///< of an encrypted image: its first line opens it
  std::string serial, model, version;
  std::optional<Geometry> geometry;
  Translation translation = Translation::kAuto;  ///< given within the geometry
  std::optional<Geometry> bios_geometry;         ///< what the BIOS shows, if not what it works out
};

struct VncDescription {
  std::string listen = "127.0.0.1";
  int port = -1;  ///< -1: the first free one from 5900
  std::string password_file;
};

struct SerialDescription {
  enum class Backend : std::uint8_t { kNull, kStdio, kFile, kPty, kUnix };
  Backend backend = Backend::kNull;
  std::string path;
};

enum class OnEvent : std::uint8_t { kReset, kExit };

struct Description {
  std::filesystem::path source;  ///< the file, for messages; relative paths are relative to its folder
  std::string name;
  std::array<std::uint8_t, 16> uuid{};
  struct {
    bool acpi = true;
    bool apic = true;
    IdeChip ide = IdeChip::kPiix3;
  } machine;
  struct {
    unsigned cores = 1;
    std::map<std::string, bool, std::less<>> features;
  } cpu;
  std::uint64_t memory = 128 * kMiB;  ///< bytes
  struct {
    bool huge_pages = false;
    bool merge = false;
  } memory_options;
  struct {
    bool local_time = true;
    std::optional<std::int64_t> start;  ///< seconds since 1970, instead of the host's time
  } clock;
  struct {
    std::vector<std::string> order = {"disk", "cdrom"};
    std::vector<std::string> once;     ///< instead of `order` until the first reset; empty: none
    bool floppy_check = true;          ///< the BIOS starts no floppy without a boot signature
    std::int32_t reboot_timeout = -1;  ///< milliseconds after which a failed boot is tried again; -1: never
    bool menu = false;
    unsigned menu_timeout = 0;  ///< milliseconds
    std::string kernel, initrd, cmdline;
  } boot;
  struct {
    std::string bios, vga_bios;
  } firmware;
  std::vector<DriveDescription> drives;
  struct {
    bool vga = true;
    std::uint64_t vram = 16 * kMiB;
  } display;
  std::optional<VncDescription> vnc;
  std::vector<SerialDescription> serial;
  struct {
    std::string console;  ///< "stdio" or "file:PATH"
    std::optional<std::uint16_t> exit_port;
    bool testdev = false;  ///< QEMU's pc-testdev, for kvm-unit-tests
  } debug;
  std::string monitor_socket;  ///< a unix socket to listen on for QMP clients; empty: none
  std::string metrics_socket;  ///< a unix socket to tell Prometheus on what the machine has done; empty: none
  /// Parts the description asks for that this version does not have yet, one line each with their paths: the
  /// machine runs without them, and whoever starts it is told.
  std::vector<std::string> left_out;
  struct {
    OnEvent reboot = OnEvent::kReset;
    OnEvent poweroff = OnEvent::kExit;
    OnEvent triple_fault = OnEvent::kExit;
  } on;
};

/// "memory.0=x" style changes from the command line: path and value, applied before the check. A value is
/// taken as JSON where it is JSON, else as a string; null takes a key away.
struct Override {
  std::string path, value;
};

/// Reads and checks a description. The error is one line: file, key path, reason. Nothing is opened or
/// created but the file itself.
[[nodiscard]] Result<Description> load_description(const std::filesystem::path& file,
                                                   const std::vector<Override>& overrides = {});

/// The same from text; `source` is used for messages and relative paths.
[[nodiscard]] Result<Description> parse_description(std::string_view text,
                                                    const std::filesystem::path& source,
                                                    const std::vector<Override>& overrides = {});

/// "1024M", "2 GiB", "512k" or a number of bytes.
[[nodiscard]] Result<std::uint64_t> parse_size(std::string_view text);

}  // namespace whistler

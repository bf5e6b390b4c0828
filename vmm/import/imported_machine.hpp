// What an import has gathered about a machine that was written for another program, how it becomes a machine
// description, and the notes on what did not come along.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "vmm/config/description.hpp"

namespace whistler {

/// The notes of one import, and the error that ends it. Each is one line: source, place, what and what to do.
class ImportReport {
 public:
  explicit ImportReport(std::string source) : source_(std::move(source)) {}

  /// A thing that does not come along. A hostile source could ask for millions of them: those beyond the
  /// first hundred are only counted.
  void note(std::string_view where, std::string_view text);
  /// A thing that makes the import impossible. The first one is kept.
  void error(std::string_view where, std::string_view text);

  [[nodiscard]] std::vector<std::string> notes() const;
  [[nodiscard]] bool failed() const { return error_.has_value(); }
  [[nodiscard]] std::unexpected<Error> failure() const { return fail(ErrorCode::kInvalid, *error_); }

 private:
  std::string source_;
  std::vector<std::string> notes_;
  std::size_t more_ = 0;
  std::optional<std::string> error_;
};

struct ImportedDrive {
  std::string where;  ///< how notes name it
  std::string id;
  DriveInterface interface = DriveInterface::kIde;
  std::string other_bus;              ///< "virtio", ... where the source has it on a bus that Whistler lacks
  std::optional<unsigned> bus, unit;  ///< where the source puts it; else it gets a free place
  Media media = Media::kDisk;
  std::string file, format;
  std::string cache;  ///< empty: the default
  bool read_only = false;
  std::string serial, model, version;
  std::optional<Geometry> geometry;
  std::string translation;
};

struct ImportedCard {
  std::string model, mac;
  bool restrict = false;
};

struct ImportedVnc {
  std::string listen = "127.0.0.1";
  int port = -1;
  bool password = false;  ///< one is needed, and a person has to write it into a file
  bool websocket = false;
};

struct ImportedSerial {
  std::string backend, path;
};

/// A machine as the source has it, in Whistler's words. The defaults are those of the sources, not
/// Whistler's.
struct ImportedMachine {
  std::string name, uuid;
  bool acpi = true;
  bool apic = true;
  bool piix4_ide = false;
  std::uint64_t cores = 1;
  // XP-era guests are safer without NX: it stays off unless the source asks for it by name.
  std::map<std::string, bool, std::less<>> features = {{"nx", false}};
  std::uint64_t memory = 128 * kMiB;
  bool huge_pages = false;
  bool merge = false;
  bool local_time = false;
  std::optional<std::int64_t> clock_start;
  struct {
    std::vector<std::string> order, once;
    bool floppy_check = true;
    std::optional<std::int64_t> reboot_timeout;
    bool menu = false;
    std::optional<std::int64_t> menu_timeout;
    std::string kernel, initrd, cmdline;
  } boot;
  std::string bios;
  std::vector<ImportedDrive> drives;
  bool vga = true;
  std::uint64_t vram = 16 * kMiB;
  std::optional<ImportedVnc> vnc;
  std::vector<ImportedCard> network;
  std::vector<ImportedSerial> serial;
  struct {
    std::string console;
    std::optional<std::uint64_t> exit_port;
    bool testdev = false;
  } debug;
  std::string monitor_socket;
  struct {
    bool reboot_exits = false;
    bool triple_fault_exits = true;
  } on;

  /// Adds a kind of thing to boot from, once.
  static void boot_from(std::vector<std::string>& order, std::string_view kind);
  void add_card(ImportedCard card, std::string_view where, ImportReport& report);
  void add_serial(ImportedSerial port, std::string_view where, ImportReport& report);
  /// The switch for a CPU feature by any name it goes by. False if Whistler has none.
  bool switch_feature(std::string_view feature, bool enabled);
  /// Room for `bytes` of video memory as the card has it: a power of two within its limits.
  void set_vram(std::uint64_t bytes);
};

/// Gives each drive its place, writes the description and reads it back, as `whistler run` would, before
/// anybody sees it. `target` is the file it is meant for: paths are made right for it; empty: none.
[[nodiscard]] Result<std::string> write_description(ImportedMachine machine, ImportReport& report,
                                                    const std::filesystem::path& target);

/// A UUID with or without its dashes, as a description has it.
[[nodiscard]] std::optional<std::string> tidy_uuid(std::string_view text);

/// All of `text` as a whole number.
[[nodiscard]] std::optional<std::uint64_t> whole_number(std::string_view text, int base = 10);

/// Whether `text` is UTF-8 as a text file has it: without control characters but tabs and ends of lines.
[[nodiscard]] bool is_plain_text(std::string_view text);

}  // namespace whistler

// A test plan: a machine, and the steps that prove it boots. docs/plans.md is the reference.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.hpp"
#include "vmm/plan/boot_command.hpp"
#include "vmm/plan/pattern.hpp"

namespace whistler::plan {

/// Where text is waited for.
enum class Where : std::uint8_t { kSerial, kScreen, kDebug };

struct WaitText {
  Where where = Where::kSerial;
  Pattern pattern;
};
struct WaitEvent {
  std::string name;  ///< QMP's
};
struct WaitPowerOff {};
struct WaitExit {
  int status = 0;  ///< of `whistler run`
};
struct Type {
  std::vector<Typing> typed;
};
struct SendSerial {
  std::string text;
};
struct PowerButton {};
struct ResetButton {};
struct Sleep {
  double seconds = 0;
};
/// The picture stays the same, but for `pixels` of them, for so long.
struct WaitStill {
  double seconds = 0;
  unsigned pixels = 0;
};
/// A part of the screen looks like the picture in `file`.
struct WaitImage {
  std::string file;        ///< PNG; absolute
  std::string mask;        ///< PNG of the same size, or empty: only where it is white counts
  unsigned x = 0, y = 0;   ///< of the picture's upper left corner on the screen
  unsigned tolerance = 0;  ///< how far each of red, green and blue may be off, 0 to 255
  double different = 0;    ///< share of the pixels that may be off by more, in percent
};
/// Text that tesseract reads off a picture of the screen.
struct WaitOcr {
  Pattern pattern;
  std::string language = "eng";  ///< as tesseract calls it
};
/// The screen has so many pixels.
struct WaitSize {
  unsigned width = 0, height = 0;
};
struct Pointer {
  std::optional<std::pair<int, int>> by;  ///< pixels, right and down
  std::string button;                     ///< pressed and let go: left, right, middle; empty: none
  unsigned clicks = 0;
};
/// A command in a shell on the serial line: it must end with `status`, and its output have `output` in it.
struct Command {
  std::string text;
  int status = 0;
  std::optional<Pattern> output;
};

/// A name and a password on the serial line, until the shell's `prompt` comes.
struct Login {
  std::string user, password;
  Pattern prompt;
};
/// Opens the tray of a CD drive, once the guest lets it; `file` or `folder`: lays that in and closes it.
struct ChangeMedium {
  std::string drive;
  std::string file;    ///< an image; absolute
  std::string folder;  ///< a CD is made of what it holds; absolute
  std::string format;
  bool force = false;  ///< whether the guest lets it or not
};

/// Takes the files out of a disk that was made from a folder, and looks into some of them.
struct CopyOut {
  std::string drive;
  std::vector<std::pair<std::string, Pattern>>
      expect;  ///< names, with '/' between folders, and what is in them
};

using Action = std::variant<WaitPowerOff, WaitText, WaitEvent, WaitExit, Type, SendSerial, PowerButton,
                            ResetButton, Sleep, WaitStill, WaitImage, WaitOcr, WaitSize, Pointer, Command,
                            Login, ChangeMedium, CopyOut>;

struct Step {
  std::string name;  ///< the plan's, or what it does: `wait_serial "login:"`
  std::string verb;  ///< its key in the plan
  Action action;
  double time_limit = 0;  ///< seconds
};

/// A drive of the machine whose medium is made from a folder of the host.
struct FolderDrive {
  std::string id;  ///< letters, digits, '-' and '_'
  unsigned bus = 0, unit = 0;
  bool optical = false;    ///< a CD; else a disk, which the guest may write to
  std::string from;        ///< the folder, absolute; empty: the disk is empty at first
  std::uint64_t size = 0;  ///< of a disk, in bytes; 0: as large as needed
};
inline constexpr std::uint64_t kSmallestDisk = std::uint64_t{32}
                                               << 20;  ///< of one that is made from a folder
inline constexpr std::uint64_t kLargestDisk = std::uint64_t{32}
                                              << 30;  ///< Windows XP formats no larger FAT32

/// What ends a plan at once.
struct FailOn {
  bool panic = true;               ///< of a Linux kernel, on serial line or screen
  bool blue_screen = true;         ///< of Windows
  bool no_boot_device = true;      ///< what the BIOS says then
  bool halt = true;                ///< every processor halts with interrupts off
  bool reset = false;              ///< one that no step waits for
  double hang = 0;                 ///< seconds without an exit to user space or a change anywhere; 0: never
  std::vector<Pattern> text = {};  ///< anywhere
};

/// What a plan does. All plans that a matrix makes of it share it: it may be long, and they may be many.
struct Script {
  nlohmann::json document;  ///< as it was read
  std::vector<Step> steps;
};

struct Plan {
  std::string name;              ///< of this plan, with what the matrix chose in brackets
  std::filesystem::path source;  ///< the file
  nlohmann::json machine;        ///< the description, complete with absolute paths
  std::uint64_t memory = 0;      ///< bytes
  unsigned cores = 1;
  double time_limit = 0;     ///< seconds in all
  double type_interval = 0;  ///< seconds between two changes of a key, at least
  FailOn fail_on;
  std::vector<FolderDrive> folders;  ///< they stand in `machine`, too, without their files
  std::shared_ptr<const Script> script;
  /// It goes on with the disks as another plan has left them, which stands so many places before it; 0: none.
  std::size_t after = 0;
};

/// Values for ${NAME} in the strings of "machine" and "set", and in the names of files.
using Variables = std::map<std::string, std::string>;

/// The plans in a file: one, or one for each combination of its matrix, each with those of its "then" behind
/// it. The error is one line: file, key
/// path, reason. Reads the plan and the description it names, nothing else.
[[nodiscard]] Result<std::vector<Plan>> load_plans(const std::filesystem::path& file,
                                                   const Variables& variables = {});
/// The same from text; `source` is used for messages and relative paths.
[[nodiscard]] Result<std::vector<Plan>> parse_plans(std::string_view text,
                                                    const std::filesystem::path& source,
                                                    const Variables& variables = {});

}  // namespace whistler::plan

// The inside of the QEMU import: one reader whose parts are in four files: the table of options, the machine
// as a whole, drives, other devices. Options may name things that stand further right, so devices are built
// at the end.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "vmm/import/qemu_command_line.hpp"
#include "vmm/import/qemu_settings.hpp"

namespace whistler {

class QemuReader {
 public:
  QemuReader(ImportedMachine& machine, ImportReport& report) : machine_(machine), report_(report) {}

  /// Reads the options; `whole` if they are all there is of the machine, so that QEMU's defaults apply.
  void read(const std::vector<QemuWord>& words, bool whole);

 private:
  using Handler = void (*)(QemuReader& reader, std::string_view value);
  struct Option {
    bool has_argument = true;
    Handler handler = nullptr;
    std::string_view note = {};  ///< said where there is no handler; empty: harmless
  };
  using Options = std::map<std::string_view, Option>;

  struct PendingDevice {
    std::string where;
    QemuSettings settings;
  };

  // qemu_options.cpp
  static const Options& options();
  template <void (QemuReader::*kMethod)(std::string_view)>
  static void call(QemuReader& reader, std::string_view value) {
    (reader.*kMethod)(value);
  }

  // qemu_command_line.cpp
  void read_machine(std::string_view value);
  void read_accel(std::string_view value);
  void read_cpu(std::string_view value);
  void read_smp(std::string_view value);
  void read_memory(std::string_view value);
  void read_name(std::string_view value);
  void read_uuid(std::string_view value);
  void read_smbios(std::string_view value);
  void read_boot(std::string_view value);
  void read_rtc(std::string_view value);
  void read_mem_path(std::string_view value);
  void read_action(std::string_view value);
  void read_global(std::string_view value);
  void read_object(std::string_view value);
  void read_overcommit(std::string_view value);
  void set_clock(std::string_view base);
  void finish(bool whole);

  // qemu_drives.cpp
  void read_drive(std::string_view value);
  void read_blockdev(std::string_view value);
  void add_image(std::string_view file, unsigned index, Media media);
  void add_floppy(std::string_view file, unsigned unit);
  void build_disk(PendingDevice& device, std::string_view driver);
  void build_floppy(PendingDevice& device);
  [[nodiscard]] std::optional<ImportedDrive> drive_of(QemuSettings& settings, std::string where);
  [[nodiscard]] std::optional<ImportedDrive> image_of_node(const std::string& name, const std::string& where);
  [[nodiscard]] bool settle_format(ImportedDrive& drive);
  void read_identity(QemuSettings& settings, ImportedDrive& drive);
  void add_on_ide(ImportedDrive drive, std::optional<unsigned> index);
  [[nodiscard]] bool is_taken(unsigned index) const;

  // qemu_devices.cpp
  void read_device(std::string_view value);
  void read_vga(std::string_view value);
  void read_vnc(std::string_view value);
  void read_display(std::string_view value);
  void read_spice(std::string_view value);
  void read_netdev(std::string_view value);
  void read_nic(std::string_view value);
  void read_net(std::string_view value);
  void read_chardev(std::string_view value);
  void read_serial(std::string_view value);
  void read_monitor(std::string_view value);
  void read_qmp(std::string_view value);
  void read_mon(std::string_view value);
  void read_debugcon(std::string_view value);
  void build_devices();
  void build_device(PendingDevice& device);
  void build_card(PendingDevice& device, std::string_view driver);
  void build_serial(const std::string& backend, std::string_view where);
  void build_debug_console(const std::string& backend, std::uint64_t port, std::string_view where);
  void build_monitor(const std::string& backend, std::string_view where);
  /// "chardev:ID" as the same thing written out, like "file:PATH".
  [[nodiscard]] std::string resolve_backend(const std::string& backend);

  void note(std::string_view text) { report_.note(where_, text); }
  void error(std::string_view text) { report_.error(where_, text); }
  [[nodiscard]] std::optional<QemuSettings> settings_of(std::string_view value, std::string_view first);
  void note_left(const QemuSettings& settings, std::string_view where);
  /// The value as a number within the limits; anything else is an error.
  [[nodiscard]] std::uint64_t number(std::string_view where, std::string_view text, std::uint64_t lowest,
                                     std::uint64_t highest);

  ImportedMachine& machine_;
  ImportReport& report_;
  std::string where_;  ///< the option that is being read
  std::map<std::string, QemuSettings, std::less<>> chardevs_, netdevs_, blockdevs_, free_drives_;
  std::vector<PendingDevice> devices_;
  std::vector<std::pair<std::string, std::string>> serials_, debug_consoles_,
      monitors_;  ///< place and backend
  std::multimap<std::uint64_t, std::string> boot_indexes_;
  std::uint64_t debug_port_ = 0xE9;
  bool defaults_ = true;
  bool default_cdrom_ = true;
  bool no_screen_ = false;
  bool nographic_ = false;
  bool has_order_ = false;
};

}  // namespace whistler

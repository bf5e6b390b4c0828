// Every option of QEMU's that a PC is started with: whether an argument follows, and what becomes of it.
#include "vmm/import/qemu_reader.hpp"

namespace whistler {
namespace {

constexpr std::string_view kNotHere = "Whistler does not have it: left out";
constexpr std::string_view kNoUsb = "this version has no USB: left out";
constexpr std::string_view kNoSound = "this version has no sound cards: left out";
constexpr std::string_view kNoState = "a machine starts from the beginning: left out";
constexpr std::string_view kNoUefi =
    "Whistler starts SeaBIOS: a guest that was installed with UEFI does not start";
constexpr std::string_view kKeptRunning = "a guest that powers off ends the program: left out";
constexpr std::string_view kStarter = "whistler runs in the foreground, as who starts it: left out";
constexpr std::string_view kNoLog =
    "whistler run -v tells what the guest does that is not modelled: left out";
constexpr std::string_view kNoDebugger = "Whistler serves no debugger: left out";
constexpr std::string_view kOverlay =
    "what the guest writes is kept: run it on an overlay, made with whistler img create -b, to throw it away";

}  // namespace

const QemuReader::Options& QemuReader::options() {
  using R = QemuReader;
  constexpr bool kAlone = false;  // takes no argument
  static const Options kOptions = {
      // The machine
      {"M", {true, call<&R::read_machine>}},
      {"machine", {true, call<&R::read_machine>}},
      {"accel", {true, call<&R::read_accel>}},
      {"enable-kvm", {kAlone}},
      {"no-kvm", {kAlone, nullptr, "Whistler runs on KVM only"}},
      {"cpu", {true, call<&R::read_cpu>}},
      {"smp", {true, call<&R::read_smp>}},
      {"m", {true, call<&R::read_memory>}},
      {"mem-path", {true, call<&R::read_mem_path>}},
      {"mem-prealloc", {kAlone}},
      {"overcommit", {true, call<&R::read_overcommit>}},
      {"realtime", {true}},
      {"name", {true, call<&R::read_name>}},
      {"uuid", {true, call<&R::read_uuid>}},
      {"smbios", {true, call<&R::read_smbios>}},
      {"boot", {true, call<&R::read_boot>}},
      {"bios", {true, [](R& r, std::string_view value) { r.machine_.bios = value; }}},
      {"kernel", {true, [](R& r, std::string_view value) { r.machine_.boot.kernel = value; }}},
      {"initrd", {true, [](R& r, std::string_view value) { r.machine_.boot.initrd = value; }}},
      {"append", {true, [](R& r, std::string_view value) { r.machine_.boot.cmdline = value; }}},
      {"rtc", {true, call<&R::read_rtc>}},
      {"localtime", {kAlone, [](R& r, std::string_view) { r.machine_.local_time = true; }}},
      {"startdate",
       {true, [](R& r, std::string_view value) { r.set_clock(value == "now" ? "utc" : value); }}},
      {"no-acpi", {kAlone, [](R& r, std::string_view) { r.machine_.acpi = false; }}},
      {"no-fd-bootchk", {kAlone, [](R& r, std::string_view) { r.machine_.boot.floppy_check = false; }}},
      {"no-reboot", {kAlone, [](R& r, std::string_view) { r.machine_.on.reboot_exits = true; }}},
      {"no-shutdown", {kAlone, nullptr, kKeptRunning}},
      {"action", {true, call<&R::read_action>}},
      {"global", {true, call<&R::read_global>}},
      {"set", {true, nullptr, kNotHere}},
      {"object", {true, call<&R::read_object>}},
      {"nodefaults", {kAlone, [](R& r, std::string_view) { r.defaults_ = false; }}},
      {"no-user-config", {kAlone}},
      {"nouserconfig", {kAlone}},
      {"no-hpet", {kAlone}},
      {"no-kvm-irqchip", {kAlone}},
      {"no-kvm-pit", {kAlone}},
      {"no-kvm-pit-reinjection", {kAlone}},
      {"rtc-td-hack", {kAlone}},
      {"tdf", {kAlone}},
      {"win2k-hack", {kAlone, nullptr, kNotHere}},
      {"L", {true, nullptr, "give the files themselves as firmware.bios and firmware.vga_bios: left out"}},
      {"pflash", {true, nullptr, kNoUefi}},
      {"acpitable", {true, nullptr, "Whistler takes no further ACPI tables: left out"}},
      {"option-rom", {true, nullptr, "Whistler takes no further option ROMs: left out"}},
      {"fw_cfg", {true, nullptr, "Whistler takes no items for fw_cfg: left out"}},
      {"numa", {true, nullptr, "Whistler has one node of memory: left out"}},
      {"dtb", {true, nullptr, kNotHere}},
      {"readconfig", {true, nullptr, "give what the file says as options: left out"}},
      {"writeconfig", {true}},

      // Drives
      {"hda", {true, [](R& r, std::string_view value) { r.add_image(value, 0, Media::kDisk); }}},
      {"hdb", {true, [](R& r, std::string_view value) { r.add_image(value, 1, Media::kDisk); }}},
      {"hdc", {true, [](R& r, std::string_view value) { r.add_image(value, 2, Media::kDisk); }}},
      {"hdd", {true, [](R& r, std::string_view value) { r.add_image(value, 3, Media::kDisk); }}},
      {"cdrom", {true, [](R& r, std::string_view value) { r.add_image(value, 2, Media::kCdrom); }}},
      {"fda", {true, [](R& r, std::string_view value) { r.add_floppy(value, 0); }}},
      {"fdb", {true, [](R& r, std::string_view value) { r.add_floppy(value, 1); }}},
      {"drive", {true, call<&R::read_drive>}},
      {"blockdev", {true, call<&R::read_blockdev>}},
      {"snapshot", {kAlone, nullptr, kOverlay}},
      {"mtdblock", {true, nullptr, kNotHere}},
      {"sd", {true, nullptr, kNotHere}},

      // Screen, keyboard, sound
      {"vga", {true, call<&R::read_vga>}},
      {"vnc", {true, call<&R::read_vnc>}},
      {"display", {true, call<&R::read_display>}},
      {"sdl", {kAlone, [](R& r, std::string_view) { r.read_display("sdl"); }}},
      {"curses", {kAlone, [](R& r, std::string_view) { r.read_display("curses"); }}},
      {"nographic", {kAlone, [](R& r, std::string_view) { r.nographic_ = r.no_screen_ = true; }}},
      {"spice", {true, call<&R::read_spice>}},
      {"k", {true}},
      {"full-screen", {kAlone}},
      {"alt-grab", {kAlone}},
      {"ctrl-grab", {kAlone}},
      {"no-quit", {kAlone}},
      {"no-frame", {kAlone}},
      {"show-cursor", {kAlone}},
      {"g", {true}},
      {"soundhw", {true, nullptr, kNoSound}},
      {"audiodev", {true}},  // the host's side of sound cards, which are noted themselves
      {"audio",
       {true,
        [](R& r, std::string_view value) {
          if (value != "none" && !value.starts_with("driver=none")) {
            r.note(kNoSound);
          }
        }}},
      {"audio-help", {kAlone}},

      // Network
      {"netdev", {true, call<&R::read_netdev>}},
      {"nic", {true, call<&R::read_nic>}},
      {"net", {true, call<&R::read_net>}},

      // Lines to the outside
      {"chardev", {true, call<&R::read_chardev>}},
      {"serial", {true, call<&R::read_serial>}},
      {"monitor", {true, call<&R::read_monitor>}},
      {"qmp", {true, call<&R::read_qmp>}},
      {"qmp-pretty", {true, call<&R::read_qmp>}},
      {"mon", {true, call<&R::read_mon>}},
      {"debugcon", {true, call<&R::read_debugcon>}},
      {"parallel",
       {true,
        [](R& r, std::string_view value) {
          if (value != "none" && value != "null") {
            r.note("Whistler has no parallel port: left out");
          }
        }}},
      {"virtioconsole", {true, nullptr, kNotHere}},
      {"echr", {true}},

      // Other devices
      {"device", {true, call<&R::read_device>}},
      {"usb", {kAlone, nullptr, kNoUsb}},
      {"usbdevice", {true, nullptr, kNoUsb}},
      {"balloon",
       {true,
        [](R& r, std::string_view value) {
          if (value != "none") {
            r.note("Whistler has no balloon: left out");
          }
        }}},
      {"watchdog", {true, nullptr, kNotHere}},
      {"watchdog-action", {true}},
      {"virtfs", {true, nullptr, "Whistler shares no folders: put the files on a disk image or a CD image"}},
      {"fsdev", {true, nullptr, "Whistler shares no folders: put the files on a disk image or a CD image"}},
      {"tpmdev", {true, nullptr, kNotHere}},

      // How the program runs
      {"S", {kAlone, nullptr, "the guest runs at once: left out"}},
      {"s", {kAlone, nullptr, kNoDebugger}},
      {"gdb", {true, nullptr, kNoDebugger}},
      {"daemonize", {kAlone, nullptr, kStarter}},
      {"pidfile", {true, nullptr, kStarter}},
      {"runas", {true, nullptr, kStarter}},
      {"run-with", {true, nullptr, kStarter}},
      {"user", {true, nullptr, kStarter}},
      {"chroot", {true, nullptr, kStarter}},
      {"sandbox", {true}},
      {"msg", {true}},
      {"compat", {true}},
      {"add-fd", {true, nullptr, "name the file itself: left out"}},
      {"loadvm", {true, nullptr, kNoState}},
      {"incoming", {true, nullptr, kNoState}},
      {"only-migratable", {kAlone}},
      {"icount", {true, nullptr, kNotHere}},
      {"seed", {true}},
      {"d", {true, nullptr, kNoLog}},
      {"D", {true, nullptr, kNoLog}},
      {"trace", {true, nullptr, kNoLog}},
      {"dfilter", {true}},
      {"singlestep", {kAlone}},
      {"one-insn-per-tb", {kAlone}},
      {"tb-size", {true}},
      {"perfmap", {kAlone}},
      {"jitdump", {kAlone}},
      {"plugin", {true, nullptr, kNotHere}},
      {"semihosting", {kAlone}},
      {"semihosting-config", {true}},
      {"prom-env", {true}},
      {"preconfig", {kAlone, nullptr, kNotHere}},
      {"dump-vmstate", {true}},
      {"enable-sync-profile", {kAlone}},
      {"xen-domid", {true, nullptr, kNotHere}},
      {"xen-attach", {kAlone, nullptr, kNotHere}},
      {"xen-domid-restrict", {kAlone, nullptr, kNotHere}},
      {"qtest", {true, nullptr, "whistler run --accel qtest --qtest ... does that: left out"}},
      {"qtest-log", {true}},
      {"h", {kAlone}},
      {"help", {kAlone}},
      {"version", {kAlone}},
  };
  return kOptions;
}

}  // namespace whistler

#include "vmm/import/qemu_command_line.hpp"

#include <algorithm>
#include <catch2/catch.hpp>

#include "vmm/import/qemu_settings.hpp"

using namespace whistler;

namespace {

struct Imported {
  Description description;
  std::vector<std::string> notes;

  [[nodiscard]] bool notes_have(std::string_view text) const {
    return std::ranges::any_of(notes, [&](const auto& note) { return note.find(text) != std::string::npos; });
  }
};

Imported imported(std::string_view line) {
  const auto words = split_shell_words(line);
  REQUIRE(words.has_value());
  ImportReport report("--qemu");
  const auto machine = import_qemu_command_line(*words, report);
  const auto text = write_description(machine, report, "/vm/m.json");
  REQUIRE(text.has_value());
  const auto parsed = parse_description(*text, "/vm/m.json");
  REQUIRE(parsed.has_value());
  return {*parsed, report.notes()};
}

std::string error_of(std::string_view line) {
  const auto words = split_shell_words(line);
  REQUIRE(words.has_value());
  ImportReport report("--qemu");
  const auto machine = import_qemu_command_line(*words, report);
  const auto text = write_description(machine, report, "");
  REQUIRE_FALSE(text.has_value());
  return text.error().message;
}

}  // namespace

TEST_CASE("qemu_without_options_has_qemus_defaults_and_no_notes", "[import]") {
  const auto [d, notes] = imported("qemu-system-i386");
  REQUIRE(notes.empty());
  REQUIRE(d.memory == 128 * kMiB);
  REQUIRE_FALSE(d.clock.local_time);
  REQUIRE(d.machine.acpi);
  REQUIRE(d.display.vga);
  REQUIRE(d.vnc->listen == "127.0.0.1");
  REQUIRE(d.vnc->port == -1);
  REQUIRE(d.boot.order == std::vector<std::string>{"disk", "cdrom"});
  REQUIRE(d.drives.size() == 1);
  REQUIRE(d.drives[0].media == Media::kCdrom);
  REQUIRE(d.drives[0].bus == 1);
  REQUIRE(d.on.triple_fault == OnEvent::kReset);
}

TEST_CASE("qemu_nodefaults_adds_nothing", "[import]") {
  const auto [d, notes] = imported("qemu-system-i386 -nodefaults -display none");
  REQUIRE(notes.empty());
  REQUIRE(d.drives.empty());
  REQUIRE_FALSE(d.vnc.has_value());
}

TEST_CASE("qemu_usual_machine_options_come_along", "[import]") {
  const auto [d, notes] = imported(
      "sudo /usr/bin/qemu-system-x86_64 -enable-kvm -M pc-i440fx-6.2,accel=kvm,acpi=off -cpu "
      "host,+pae,-lm,nx=on "
      "-smp 4,sockets=1,cores=4 -m size=2G -name guest=xp,debug-threads=on -uuid "
      "5f0c6a1e8f4b4c0e9a571d2b6c3e7f10 "
      "-rtc base=localtime,driftfix=slew -boot order=dc,menu=on,splash-time=3000,strict=on -bios b.bin "
      "-no-reboot "
      "-global kvm-pit.lost_tick_policy=delay -kernel k -initrd i -append 'console=ttyS0 quiet'");
  REQUIRE(notes.empty());
  REQUIRE(d.name == "xp");
  REQUIRE(d.uuid[0] == 0x5F);
  REQUIRE_FALSE(d.machine.acpi);
  REQUIRE(d.cpu.cores == 4);
  REQUIRE(d.cpu.features == decltype(d.cpu.features){{"lm", false}, {"nx", true}, {"pae", true}});
  REQUIRE(d.memory == 2 * kGiB);
  REQUIRE(d.clock.local_time);
  REQUIRE(d.boot.order == std::vector<std::string>{"cdrom", "disk"});
  REQUIRE(d.boot.menu);
  REQUIRE(d.boot.menu_timeout == 3000);
  REQUIRE(d.boot.cmdline == "console=ttyS0 quiet");
  REQUIRE(d.boot.kernel == std::filesystem::absolute("k"));
  REQUIRE(d.firmware.bios == std::filesystem::absolute("b.bin"));
  REQUIRE(d.on.reboot == OnEvent::kExit);
}

TEST_CASE("qemu_drives_have_their_places", "[import]") {
  const auto result = imported(
      "qemu-system-i386 -hda /a.qcow2 -cdrom /c.iso -drive file=/b.img,format=raw,cache=none,readonly=on "
      "-drive if=ide,index=3,media=cdrom,file=/d.iso -fda /f.img");
  const auto& drives = result.description.drives;
  REQUIRE(drives.size() == 4);
  REQUIRE(drives[0].file == "/a.qcow2");
  REQUIRE(drives[0].format == "qcow2");
  REQUIRE(drives[1].file == "/b.img");
  REQUIRE(drives[1].unit == 1);
  REQUIRE(drives[1].cache == CacheMode::kNone);
  REQUIRE(drives[1].read_only);
  REQUIRE(drives[2].media == Media::kCdrom);
  REQUIRE(drives[3].file == "/d.iso");
  REQUIRE(result.notes.size() == 2);
  REQUIRE(result.notes_have("-hda: no format is given: qcow2 by its name"));
  REQUIRE(result.notes_have("-fda: is in the description, but this version has no floppy drives"));
}

TEST_CASE("qemu_devices_find_their_drives_and_nodes", "[import]") {
  const auto result = imported(
      "qemu-system-x86_64 -device "
      "ide-hd,drive=one,bus=ide.0,unit=1,bootindex=2,serial=QM1,model=Old,ver=2.5+ "
      "-drive if=none,id=one,file=/a.img,format=raw "
      "-blockdev driver=file,filename=/b.qcow2,node-name=f,cache.direct=on "
      "-blockdev driver=qcow2,file=f,node-name=two -device ide-hd,drive=two,bus=ide.1,unit=1 "
      R"(-blockdev '{"driver":"raw","node-name":"cd","read-only":true,"file":{"driver":"file","filename":"/c.iso"}}' )"
      R"(-device '{"driver":"ide-cd","drive":"cd","bus":"ide.1","unit":0,"bootindex":1,"id":"ide0-1-0"}')");
  const auto& d = result.description;
  REQUIRE(result.notes.empty());
  REQUIRE(d.drives.size() == 3);
  REQUIRE(d.drives[0].id == "one");
  REQUIRE(d.drives[0].unit == 1);
  REQUIRE(d.drives[0].serial == "QM1");
  REQUIRE(d.drives[0].model == "Old");
  REQUIRE(d.drives[0].version == "2.5+");
  REQUIRE(d.drives[1].id == "ide0-1-0");
  REQUIRE(d.drives[1].file == "/c.iso");
  REQUIRE(d.drives[2].file == "/b.qcow2");
  REQUIRE(d.drives[2].format == "qcow2");
  REQUIRE(d.drives[2].cache == CacheMode::kNone);
  REQUIRE(d.boot.order == std::vector<std::string>{"cdrom", "disk"});
}

TEST_CASE("qemu_drives_that_whistler_cannot_open_are_named", "[import]") {
  const auto result = imported(
      "qemu-system-i386 -drive file=/a.vmdk,format=vmdk -drive file=rbd:pool/x,format=raw "
      "-drive file=nbd://host/x,format=raw,if=virtio -drive if=pflash,file=/code.fd -drive "
      "if=none,id=lost,file=/l");
  REQUIRE(result.description.drives.size() == 2);  // the empty CD-ROM is the other
  REQUIRE(result.description.drives[0].file == "nbd://host/x");
  REQUIRE(result.notes_have("whistler img convert -O qcow2 /a.vmdk NEW.qcow2"));
  REQUIRE(result.notes_have("rbd:pool/x is neither a file nor a block device nor an NBD server"));
  REQUIRE(result.notes_have("installed with UEFI"));
  REQUIRE(result.notes_have("\"lost\" is used by no -device"));
}

TEST_CASE("qemu_lines_to_the_outside_come_along", "[import]") {
  const auto result = imported(
      "qemu-system-i386 -chardev socket,id=q,path=/q.sock,server=on,wait=off -mon chardev=q,mode=control "
      "-chardev file,id=d,path=/d.log -device isa-debugcon,iobase=0x402,chardev=d -serial mon:stdio "
      "-serial unix:/s.sock,server,nowait -device isa-debug-exit,iobase=0xf4,iosize=4 -device pc-testdev "
      "-monitor none -parallel none");
  const auto& d = result.description;
  REQUIRE(result.notes.empty());
  REQUIRE(d.monitor_socket == "/q.sock");
  REQUIRE(d.debug.console == "file:/d.log");
  REQUIRE(d.debug.exit_port == 0xF4);
  REQUIRE(d.debug.testdev);
  REQUIRE(d.serial.size() == 2);
  REQUIRE(d.serial[0].backend == SerialDescription::Backend::kStdio);
  REQUIRE(d.serial[1].path == "/s.sock");
}

TEST_CASE("qemu_nographic_is_a_serial_port_on_stdio", "[import]") {
  const auto d = imported("qemu-system-i386 -nographic").description;
  REQUIRE_FALSE(d.vnc.has_value());
  REQUIRE(d.serial.size() == 1);
  REQUIRE(d.serial[0].backend == SerialDescription::Backend::kStdio);
}

TEST_CASE("qemu_vnc_has_displays_and_passwords", "[import]") {
  REQUIRE(imported("qemu-system-i386 -vnc :3").description.vnc->listen == "0.0.0.0");
  REQUIRE(imported("qemu-system-i386 -vnc :3").description.vnc->port == 5903);
  REQUIRE(imported("qemu-system-i386 -vnc [::1]:0").description.vnc->listen == "::1");
  REQUIRE(imported("qemu-system-i386 -display vnc=127.0.0.1:0,to=9").description.vnc->port == -1);
  REQUIRE(imported("qemu-system-i386 -vnc :1,password").description.vnc->password_file == "/vm/vnc.pass");
  REQUIRE_FALSE(imported("qemu-system-i386 -vnc none").description.vnc.has_value());
}

TEST_CASE("qemu_network_cards_are_described_and_noted", "[import]") {
  const auto result = imported(
      "qemu-system-i386 -device rtl8139,netdev=n,mac=52:54:00:12:34:56 -netdev tap,id=n -nic "
      "user,model=pcnet -net none");
  REQUIRE(result.notes.size() == 3);
  REQUIRE(result.notes_have("-device rtl8139: network[1] of the description"));
  REQUIRE(result.notes_have("the connection to tap becomes"));
  REQUIRE(result.notes_have("-nic: network[0]"));
}

TEST_CASE("qemu_unknown_options_take_their_arguments_along", "[import]") {
  const auto [d, notes] =
      imported("qemu-system-i386 -frob -m 64 -brew tea --usb -soundhw ac97 -device usb-tablet");
  REQUIRE(d.memory == 64 * kMiB);
  REQUIRE(notes == std::vector<std::string>{
                       "--qemu: -frob: is not known to this version: left out",
                       "--qemu: -brew: is not known to this version: left out with its argument \"tea\"",
                       "--qemu: -usb: this version has no USB: left out",
                       "--qemu: -soundhw: this version has no sound cards: left out",
                       "--qemu: -device usb-tablet: this version has no USB: left out"});
}

TEST_CASE("qemu_clock_may_start_at_a_date", "[import]") {
  REQUIRE(imported("qemu -rtc base=2006-06-17T16:01:21").description.clock.start == 1'150'560'081);
  REQUIRE(imported("qemu -rtc 1970-01-02").description.clock.start == 86'400);
  REQUIRE(error_of("qemu -rtc 1970-02-30").find("--qemu: -rtc: \"1970-02-30\" is not utc") == 0);
}

TEST_CASE("qemu_mistakes_are_errors_that_name_the_option", "[import]") {
  REQUIRE(error_of("").find("--qemu: is empty") == 0);
  REQUIRE(error_of("firefox -m 5").find("--qemu: \"firefox\" is not QEMU") == 0);
  REQUIRE(error_of("qemu-system-arm -m 5").find("--qemu: qemu-system-arm is for another kind of machine") ==
          0);
  REQUIRE(error_of("qemu -m") == "--qemu: -m: needs an argument, and nothing follows it");
  REQUIRE(error_of("qemu -m lots").find("--qemu: -m: \"lots\" is not a size") == 0);
  REQUIRE(error_of("qemu -m 0").find("--qemu: -m: is 0 bytes") == 0);
  REQUIRE(error_of("qemu -m 99999999999999T").find("--qemu: -m: ") == 0);
  REQUIRE(error_of("qemu -smp 9") == "--qemu: -smp: \"9\" is not a number from 1 to 8");
  REQUIRE(error_of("qemu -smp sockets=4,cores=4") == "--qemu: -smp: is 16 CPUs; a guest can have 1 to 8");
  REQUIRE(error_of("qemu -uuid 5").find("--qemu: -uuid: is not of the form") == 0);
  REQUIRE(error_of("qemu -boot z").find("--qemu: -boot: \"z\" has letters") == 0);
  REQUIRE(error_of("qemu -vnc :99999").find("--qemu: -vnc: \"99999\" is not a number") == 0);
  REQUIRE(error_of("qemu -device ide-hd,drive=x") ==
          "--qemu: -device ide-hd: there is no -drive or -blockdev \"x\"");
  REQUIRE(error_of("qemu -device '{'").find("--qemu: -device: has JSON") == 0);
  REQUIRE(error_of("qemu -drive if=none,file=x").find("--qemu: -drive: if=none needs an id") == 0);
}

TEST_CASE("qemu_block_nodes_in_a_ring_end", "[import]") {
  const auto result = imported(
      "qemu -blockdev driver=raw,file=b,node-name=a -blockdev driver=raw,file=a,node-name=b -device "
      "ide-hd,drive=a");
  REQUIRE(result.notes_have("it names no image"));
}

#include "vmm/import/libvirt_domain.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>
#include <sstream>

using namespace whistler;

namespace {

const std::filesystem::path kSource = WHISTLER_SOURCE;

struct Imported {
  Description description;
  std::vector<std::string> notes;

  [[nodiscard]] bool notes_have(std::string_view text) const {
    return std::ranges::any_of(notes, [&](const auto& note) { return note.find(text) != std::string::npos; });
  }
};

Imported imported(std::string_view xml) {
  ImportReport report("d.xml");
  const auto machine = import_libvirt_domain(xml, report);
  const auto text = write_description(machine, report, "/vm/m.json");
  REQUIRE(text.has_value());
  const auto parsed = parse_description(*text, "/vm/m.json");
  REQUIRE(parsed.has_value());
  return {*parsed, report.notes()};
}

std::string error_of(std::string_view xml) {
  ImportReport report("d.xml");
  const auto machine = import_libvirt_domain(xml, report);
  const auto text = write_description(machine, report, "");
  REQUIRE_FALSE(text.has_value());
  return text.error().message;
}

/// A small domain with something more in it.
std::string domain(std::string_view top, std::string_view devices = "") {
  return fmt::format(
      "<domain type='kvm'>\n<memory unit='MiB'>64</memory>\n<os><type>hvm</type></os>\n{}\n<devices>\n{}\n"
      "</devices></domain>",
      top, devices);
}

std::string disk(std::string_view target, std::string_view more = "") {
  return fmt::format("<disk type='file'><driver type='raw'/><source file='/{}'/><target dev='{}'/>{}</disk>",
                     target, target, more);
}

std::string file_text(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

}  // namespace

TEST_CASE("domain_that_people_use_for_xp_is_configs_winxp_json", "[import]") {
  const auto [d, notes] = imported(file_text(kSource / "tests/cli/domains/winxp.xml"));
  const auto shipped = load_description(kSource / "configs/winxp.json");
  REQUIRE(shipped.has_value());
  REQUIRE(notes.empty());
  REQUIRE(d.name == "WinXP-Guest");
  REQUIRE(d.machine.acpi == shipped->machine.acpi);
  REQUIRE(d.machine.apic == shipped->machine.apic);
  REQUIRE(d.machine.ide == shipped->machine.ide);
  REQUIRE(d.cpu.cores == shipped->cpu.cores);
  REQUIRE(d.cpu.features == shipped->cpu.features);
  REQUIRE(d.memory == shipped->memory);
  REQUIRE(d.memory_options.huge_pages == shipped->memory_options.huge_pages);
  REQUIRE(d.memory_options.merge == shipped->memory_options.merge);
  REQUIRE(d.clock.local_time == shipped->clock.local_time);
  REQUIRE(d.clock.start == shipped->clock.start);
  REQUIRE(d.boot.order == shipped->boot.order);
  REQUIRE(d.boot.once == shipped->boot.once);
  REQUIRE(d.boot.floppy_check == shipped->boot.floppy_check);
  REQUIRE(d.boot.reboot_timeout == shipped->boot.reboot_timeout);
  REQUIRE(d.boot.menu == shipped->boot.menu);
  REQUIRE(d.boot.kernel == shipped->boot.kernel);
  REQUIRE(d.firmware.bios == shipped->firmware.bios);
  // The domain has no CD-ROM drive, which the shipped machine has for installing.
  REQUIRE(d.drives.size() == 1);
  const auto& ours = d.drives[0];
  const auto& theirs = shipped->drives[0];
  REQUIRE(ours.id == theirs.id);
  REQUIRE(ours.interface == theirs.interface);
  REQUIRE(ours.bus == theirs.bus);
  REQUIRE(ours.unit == theirs.unit);
  REQUIRE(ours.media == theirs.media);
  REQUIRE(std::filesystem::path(ours.file).filename() == std::filesystem::path(theirs.file).filename());
  REQUIRE(ours.format == theirs.format);
  REQUIRE(ours.cache == theirs.cache);
  REQUIRE(ours.read_only == theirs.read_only);
  REQUIRE(d.display.vga == shipped->display.vga);
  REQUIRE(d.display.vram == shipped->display.vram);
  REQUIRE(d.vnc->port == shipped->vnc->port);
  REQUIRE(d.vnc->listen == "0.0.0.0");
  REQUIRE(d.vnc->password_file == shipped->vnc->password_file);
  REQUIRE(d.serial.empty());
  REQUIRE(d.left_out.empty());
  REQUIRE(d.on.reboot == shipped->on.reboot);
  REQUIRE(d.on.poweroff == shipped->on.poweroff);
  REQUIRE(d.on.triple_fault == shipped->on.triple_fault);
}

TEST_CASE("domain_as_dumped_comes_along_with_a_line_for_the_rest", "[import]") {
  const auto result = imported(file_text(kSource / "tests/cli/domains/dumped.xml"));
  const auto& d = result.description;
  REQUIRE(d.cpu.cores == 2);
  REQUIRE(d.cpu.features == decltype(d.cpu.features){{"lm", false}, {"nx", false}, {"sse3", true}});
  REQUIRE(d.boot.order == std::vector<std::string>{"cdrom", "disk"});
  REQUIRE(d.boot.menu_timeout == 3000);
  REQUIRE(d.boot.reboot_timeout == 5000);
  REQUIRE(d.drives.size() == 3);
  REQUIRE(d.drives[0].cache == CacheMode::kNone);
  REQUIRE(d.drives[0].serial == "QM00001");
  REQUIRE(d.drives[1].id == "vda");
  REQUIRE(d.drives[1].unit == 1);
  REQUIRE(d.drives[2].media == Media::kCdrom);
  REQUIRE(d.drives[2].file.empty());
  REQUIRE(d.vnc->port == 5901);
  REQUIRE(d.vnc->password_file == "/vm/vnc.pass");
  REQUIRE(d.serial.size() == 1);
  REQUIRE(d.debug.console == "file:/tmp/bios.log");
  REQUIRE(d.debug.exit_port == 0xF4);
  for (const auto* word :
       {"line 25: hyperv", "line 30: cpu: Penryn", "line 36: feature: Whistler has no switch for \"xtpr\"",
        "line 67: disk vda", "line 80: disk fda", "line 85: controller", "line 93: interface: network[0]",
        "line 93: interface: the connection", "line 109: channel", "line 112: input", "line 118: sound",
        "line 121: model: qxl", "line 133: qemu:arg -frobnicate", "vnc: the password"}) {
    INFO(word);
    REQUIRE(result.notes_have(word));
  }
  REQUIRE(result.notes.size() == 14);
}

TEST_CASE("domain_ide_addresses_and_names_are_places", "[import]") {
  const auto [d, notes] = imported(
      domain("", disk("hdd") + disk("hdb", "<address type='drive' controller='0' bus='1' unit='0'/>")));
  REQUIRE(notes.empty());
  REQUIRE(d.drives.size() == 2);
  REQUIRE(d.drives[0].file == "/hdb");
  REQUIRE(d.drives[0].bus == 1);
  REQUIRE(d.drives[0].unit == 0);
  REQUIRE(d.drives[1].unit == 1);
}

TEST_CASE("domain_disks_that_whistler_cannot_open_are_named", "[import]") {
  const auto result = imported(domain("", R"(
    <disk type='file'><driver type='vmdk'/><source file='/a.vmdk'/><target dev='hda'/></disk>
    <disk type='network'><driver type='raw'/><source protocol='rbd' name='p/x'/><target dev='hdb'/></disk>
    <disk type='volume'><driver type='raw'/><source pool='p' volume='v.img'/><target dev='hdc'/></disk>
    <disk type='network'><driver type='raw'/><source protocol='nbd' name='x'><host name='h' port='99'/></source>
      <target dev='hdd'/></disk>)"));
  REQUIRE(result.description.drives.size() == 1);
  REQUIRE(result.description.drives[0].file == "nbd://h:99/x");
  REQUIRE(result.notes.size() == 3);
  REQUIRE(result.notes_have("disk hda: left out: /a.vmdk is vmdk"));
  REQUIRE(result.notes_have("disk hdb: left out: its source is of the type network rbd"));
  REQUIRE(result.notes_have("virsh vol-path v.img"));
}

TEST_CASE("domain_without_acpi_has_none_but_keeps_the_apic_of_qemu", "[import]") {
  const auto d = imported(domain("<features/>")).description;
  REQUIRE_FALSE(d.machine.acpi);
  REQUIRE(d.machine.apic);
}

TEST_CASE("domain_without_a_screen_gets_none", "[import]") {
  const auto d = imported(domain("")).description;
  REQUIRE_FALSE(d.display.vga);
  REQUIRE_FALSE(d.vnc.has_value());
  REQUIRE(d.boot.order == std::vector<std::string>{"disk"});
}

TEST_CASE("domain_with_spice_is_shown_on_vnc", "[import]") {
  const auto result = imported(
      domain("", "<graphics type='spice' autoport='yes'/><video><model type='vga' vram='9000'/></video>"));
  REQUIRE(result.description.vnc->listen == "127.0.0.1");
  REQUIRE(result.description.display.vram == 16 * kMiB);
  REQUIRE(result.notes.size() == 1);
  REQUIRE(result.notes_have("line 6: graphics: spice becomes VNC"));
}

TEST_CASE("domain_events_and_clock_come_along", "[import]") {
  const auto d =
      imported(domain("<on_reboot>destroy</on_reboot><on_crash>restart</on_crash>"
                      "<clock offset='absolute' start='86400'><timer name='kvmclock' present='no'/></clock>"))
          .description;
  REQUIRE(d.on.reboot == OnEvent::kExit);
  REQUIRE(d.on.triple_fault == OnEvent::kReset);
  REQUIRE(d.clock.start == 86400);
  REQUIRE_FALSE(d.cpu.features.at("kvmclock"));
}

TEST_CASE("domain_memory_has_libvirts_units", "[import]") {
  const auto memory = [](std::string_view element) {
    return imported(fmt::format("<domain type='kvm'>{}</domain>", element)).description.memory;
  };
  REQUIRE(memory("<memory>65536</memory>") == 64 * kMiB);
  REQUIRE(memory("<memory unit='bytes'>67108864</memory>") == 64 * kMiB);
  REQUIRE(memory("<memory unit='G'>1</memory>") == kGiB);
  REQUIRE(memory("<memory unit='MB'>100</memory>") == 95 * kMiB);
}

TEST_CASE("domain_numbers_out_of_range_are_errors_with_their_line", "[import]") {
  const auto with_memory = [](std::string_view element) {
    return error_of(fmt::format("<domain type='kvm'>\n{}</domain>", element));
  };
  REQUIRE(with_memory("<memory>0</memory>") ==
          "d.xml: line 2: memory: is 0 bytes; a guest can have 1 MiB to 1 TiB");
  REQUIRE(
      with_memory("<memory unit='EiB'>99999999999</memory>").find("d.xml: line 2: memory: \"99999999999\"") ==
      0);
  REQUIRE(with_memory("<memory unit='apples'>1</memory>").find("in the unit \"apples\" is no size") !=
          std::string::npos);
  REQUIRE(with_memory("<memory>-1</memory>").find("d.xml: line 2: memory") == 0);
  REQUIRE(with_memory("").find("d.xml: line 1: domain: <memory> is missing") == 0);
  REQUIRE(error_of(domain("<vcpu>9</vcpu>")) ==
          "d.xml: line 4: vcpu: is \"9\" where a number from 1 to 8 is needed");
  REQUIRE(error_of(domain("<uuid>1</uuid>")).find("d.xml: line 4: uuid") == 0);
  REQUIRE(error_of(domain("<clock offset='moon'/>")).find("d.xml: line 4: clock") == 0);
  REQUIRE(error_of(domain("", "<graphics type='vnc' port='99999'/>")).find("d.xml: line 6: graphics") == 0);
}

TEST_CASE("domain_of_another_kind_is_refused", "[import]") {
  REQUIRE(error_of("<domain type='xen'><memory>65536</memory></domain>")
              .find("d.xml: line 1: domain: is of the type \"xen\"") == 0);
  REQUIRE(error_of("<network/>").find("d.xml: line 1: network: is not a <domain>") == 0);
  REQUIRE(error_of("<domain><memory>65536</memory><os><type arch='aarch64'>hvm</type></os></domain>")
              .find("aarch64") != std::string::npos);
  REQUIRE(error_of("<domain><memory>65536</memory><os><type>exe</type></os></domain>").find("\"hvm\"") !=
          std::string::npos);
}

TEST_CASE("hostile_xml_is_refused_by_name", "[import]") {
  const std::string bomb =
      "<!DOCTYPE d [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;'>]>\n<domain><name>&b;</name></domain>";
  REQUIRE(error_of(bomb).find("d.xml: line 1: DOCTYPE: declares entities") == 0);
  REQUIRE(
      error_of("\n<!DOCTYPE d SYSTEM \"file:///etc/passwd\">\n<domain/>").find("d.xml: line 2: DOCTYPE") ==
      0);
  std::string deep;
  for (int i = 0; i < 100'000; ++i) {
    deep += "<a>";
  }
  std::string closed = deep;
  for (int i = 0; i < 100'000; ++i) {
    closed += "</a>";
  }
  REQUIRE(error_of(closed) == "d.xml: line 1: a: is nested deeper than 64 elements");
  REQUIRE(error_of(deep).find("d.xml: line 1: is not XML") == 0);
  REQUIRE(error_of("<domain>\n<memory>\n</domain>").find("d.xml: line 3: is not XML") == 0);
  REQUIRE(error_of("nothing").find("d.xml: is not XML: there is no element") == 0);
  REQUIRE(error_of(std::string_view("\x7f"
                                    "ELF\0\1",
                                    6))
              .find("d.xml: is not UTF-8 text") == 0);
  REQUIRE(error_of("<domain/><domain/>").find("d.xml: line 1: domain: stands after the end") == 0);
}

TEST_CASE("plain_doctype_is_no_reason_to_refuse", "[import]") {
  REQUIRE(imported("<?xml version='1.0'?><!DOCTYPE domain>" + domain("")).notes.empty());
}

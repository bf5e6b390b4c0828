#include "vmm/import/imported_machine.hpp"

#include <catch2/catch.hpp>

using namespace whistler;

namespace {

ImportedDrive disk(std::string file) {
  ImportedDrive drive;
  drive.where = file;
  drive.file = std::move(file);
  drive.format = "raw";
  return drive;
}

ImportedDrive disk_at(std::string file, unsigned bus, unsigned unit) {
  auto drive = disk(std::move(file));
  drive.bus = bus;
  drive.unit = unit;
  return drive;
}

ImportedDrive cdrom(std::string file) {
  auto drive = disk(std::move(file));
  drive.media = Media::kCdrom;
  return drive;
}

/// The description that comes of it, read back.
Description described(const ImportedMachine& machine, ImportReport& report) {
  const auto text = write_description(machine, report, "/vm/m.json");
  REQUIRE(text.has_value());
  const auto parsed = parse_description(*text, "/vm/m.json");
  REQUIRE(parsed.has_value());
  return *parsed;
}

}  // namespace

TEST_CASE("imported_drive_on_another_bus_becomes_the_first_free_ide_disk_with_a_note", "[import]") {
  ImportReport report("s");
  ImportedMachine machine;
  machine.drives = {disk("/a"), disk_at("/b", 0, 0)};
  machine.drives[0].other_bus = "virtio";
  const auto d = described(machine, report);
  REQUIRE(d.drives.size() == 2);
  REQUIRE(d.drives[0].file == "/b");
  REQUIRE(d.drives[1].file == "/a");
  REQUIRE(d.drives[1].unit == 1);
  REQUIRE(report.notes().size() == 1);
  REQUIRE(report.notes()[0].find("s: /a: is on virtio") == 0);
}

TEST_CASE("imported_cdrom_without_a_place_goes_to_the_second_channel", "[import]") {
  ImportReport report("s");
  ImportedMachine machine;
  machine.drives = {cdrom("/c"), disk("/a")};
  const auto d = described(machine, report);
  REQUIRE(d.drives[0].file == "/a");
  REQUIRE(d.drives[0].bus == 0);
  REQUIRE(d.drives[1].bus == 1);
  REQUIRE(d.drives[1].unit == 0);
  REQUIRE(report.notes().empty());
}

TEST_CASE("imported_drives_beyond_the_four_of_ide_are_left_out_with_a_note", "[import]") {
  ImportReport report("s");
  ImportedMachine machine;
  machine.drives = {disk("/a"), disk("/b"), disk("/c"), disk("/d"), disk_at("/e", 7, 0), disk_at("/f", 0, 0)};
  const auto d = described(machine, report);
  REQUIRE(d.drives.size() == 4);
  REQUIRE(d.drives[0].file == "/f");
  REQUIRE(report.notes().size() == 3);
  REQUIRE(report.notes()[0] == "s: /e: IDE bus 7 unit 0 does not exist: it gets another place");
  REQUIRE(report.notes()[1] == "s: /d: left out: the four places of IDE are taken");
}

TEST_CASE("imported_drives_of_one_name_get_names_of_their_own", "[import]") {
  ImportReport report("s");
  ImportedMachine machine;
  machine.drives = {disk("/a"), disk("/b")};
  machine.drives[0].id = "x";
  machine.drives[1].id = "x";
  const auto d = described(machine, report);
  REQUIRE(d.drives[0].id == "x");
  REQUIRE(d.drives[1].id == "x_");
}

TEST_CASE("imported_name_is_cut_between_characters", "[import]") {
  ImportReport report("s");
  ImportedMachine machine;
  machine.name = std::string(63, 'n') + "\xc3\xa4";
  REQUIRE(described(machine, report).name == std::string(63, 'n'));
  REQUIRE(report.notes().size() == 1);
}

TEST_CASE("imported_relative_paths_are_made_whole_for_a_description_elsewhere", "[import]") {
  ImportReport report("s");
  ImportedMachine machine;
  machine.drives = {disk("a.img")};
  const auto here = std::filesystem::absolute("a.img").string();
  REQUIRE(described(machine, report).drives[0].file == here);
  const auto beside = write_description(machine, report, "m.json");
  REQUIRE(beside.has_value());
  REQUIRE(beside->find("\"file\": \"a.img\"") != std::string::npos);
}

TEST_CASE("imported_text_that_json_cannot_hold_is_an_error", "[import]") {
  ImportReport report("s");
  ImportedMachine machine;
  machine.drives = {disk("/a\xff")};
  const auto text = write_description(machine, report, "");
  REQUIRE_FALSE(text.has_value());
  REQUIRE(text.error().message == "s: a name or path in it is not UTF-8: rename what it names");
}

TEST_CASE("import_that_whistler_would_not_read_is_an_error", "[import]") {
  ImportReport report("s");
  ImportedMachine machine;
  machine.drives = {disk("/a")};
  machine.drives[0].geometry = Geometry{1, 1, 1};
  machine.drives[0].translation = "odd";
  const auto text = write_description(machine, report, "/m.json");
  REQUIRE_FALSE(text.has_value());
  REQUIRE(
      text.error().message.find(
          "s: cannot become a machine description: /m.json: drives[0].geometry.translation: is \"odd\"") ==
      0);
}

TEST_CASE("imported_identity_is_cut_to_what_a_drive_can_tell", "[import]") {
  ImportReport report("s");
  ImportedMachine machine;
  machine.drives = {disk("/a")};
  machine.drives[0].serial = std::string(25, 'x');
  machine.drives[0].model = "a\xc3\xa4";
  const auto d = described(machine, report);
  REQUIRE(d.drives[0].serial == std::string(20, 'x'));
  REQUIRE(d.drives[0].model.empty());
  REQUIRE(report.notes().size() == 2);
}

TEST_CASE("import_password_becomes_a_file_that_a_person_writes", "[import]") {
  ImportReport report("s");
  ImportedMachine machine;
  machine.vnc = ImportedVnc{.password = true};
  REQUIRE(described(machine, report).vnc->password_file == "/vm/vnc.pass");
  REQUIRE(report.notes().size() == 1);
}

TEST_CASE("import_features_are_known_by_all_their_names", "[import]") {
  ImportedMachine machine;
  REQUIRE(machine.switch_feature("pni", true));
  REQUIRE(machine.switch_feature("sse4_1", true));
  REQUIRE(machine.switch_feature("fxsr_opt", false));
  REQUIRE(machine.switch_feature("xd", true));
  REQUIRE_FALSE(machine.switch_feature("flux", true));
  REQUIRE(machine.features ==
          decltype(machine.features){{"nx", true}, {"sse3", true}, {"sse4.1", true}, {"fxsr-opt", false}});
}

TEST_CASE("import_video_memory_is_a_power_of_two_within_limits", "[import]") {
  ImportedMachine machine;
  machine.set_vram(9 * kMiB);
  REQUIRE(machine.vram == 16 * kMiB);
  machine.set_vram(1);
  REQUIRE(machine.vram == kMiB);
  machine.set_vram(UINT64_MAX);
  REQUIRE(machine.vram == 256 * kMiB);
}

TEST_CASE("import_notes_beyond_a_hundred_are_counted", "[import]") {
  ImportReport report("s");
  for (int i = 0; i < 1000; ++i) {
    report.note("here", "again");
  }
  REQUIRE(report.notes().size() == 101);
  REQUIRE(report.notes().back() == "s: and 900 more such lines");
}

TEST_CASE("uuid_may_lack_its_dashes", "[import]") {
  REQUIRE(tidy_uuid("5f0c6a1e8f4b4c0e9a571d2b6c3e7f10") == "5f0c6a1e-8f4b-4c0e-9a57-1d2b6c3e7f10");
  REQUIRE_FALSE(tidy_uuid("5f0c6a1e").has_value());
  REQUIRE_FALSE(tidy_uuid("zf0c6a1e-8f4b-4c0e-9a57-1d2b6c3e7f10").has_value());
}

TEST_CASE("plain_text_is_utf8_without_control_characters", "[import]") {
  REQUIRE(is_plain_text("a\tb\r\n\xc3\xa4 \xe2\x82\xac \xf0\x9f\x90\xa6"));
  REQUIRE_FALSE(is_plain_text(std::string_view("a\0b", 3)));
  REQUIRE_FALSE(is_plain_text("\x1b[2J"));
  REQUIRE_FALSE(is_plain_text("\xc0\x80"));
  REQUIRE_FALSE(is_plain_text("\xed\xa0\x80"));
  REQUIRE_FALSE(is_plain_text("\xf5\x80\x80\x80"));
  REQUIRE_FALSE(is_plain_text("\xe2\x82"));
}

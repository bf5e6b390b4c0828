#include "vmm/config/description.hpp"

#include <catch2/catch.hpp>

using namespace whistler;

namespace {

std::string error_of(std::string_view text, const std::vector<Override>& overrides = {}) {
  const auto result = parse_description(text, "m.json", overrides);
  REQUIRE_FALSE(result.has_value());
  return result.error().message;
}

}  // namespace

TEST_CASE("minimal_description_has_defaults", "[description]") {
  const auto d = parse_description(R"({"memory": "64M"})", "/tmp/m.json");
  REQUIRE(d.has_value());
  REQUIRE(d->memory == 64 * kMiB);
  REQUIRE(d->name == "m");
  REQUIRE(d->cpu.cores == 1);
  REQUIRE_FALSE(d->vnc.has_value());
}

TEST_CASE("ide_chip_is_a_piix3_unless_told_otherwise", "[description]") {
  REQUIRE(parse_description(R"({"memory": "64M"})", "/m.json")->machine.ide == IdeChip::kPiix3);
  REQUIRE(parse_description(R"({"memory": "64M", "machine": {"ide": "piix4"}})", "/m.json")->machine.ide ==
          IdeChip::kPiix4);
  REQUIRE(error_of(R"({"memory": "64M", "machine": {"ide": "ich"}})").find("machine.ide") !=
          std::string::npos);
}

TEST_CASE("unknown_key_names_its_path_and_the_nearest_key", "[description]") {
  const auto message =
      error_of(R"({"memory": "64M", "drives": [{"fromat": "raw", "file": "x", "format": "raw"}]})");
  REQUIRE(message == "m.json: drives[0].fromat: is not a key here; did you mean \"format\"?");
}

TEST_CASE("memory_is_needed_and_bounded", "[description]") {
  REQUIRE(error_of("{}") == "m.json: memory: is missing");
  REQUIRE(error_of(R"({"memory": "1"})").find("memory: is 1 bytes") != std::string::npos);
  REQUIRE(error_of(R"({"memory": -5})").find("memory: is -5") != std::string::npos);
  REQUIRE(error_of(R"({"memory": "99999999999T"})").find("memory") != std::string::npos);
}

TEST_CASE("format_of_a_disk_is_never_guessed", "[description]") {
  REQUIRE(error_of(R"({"memory": "64M", "drives": [{"file": "a.qcow2"}]})") ==
          "m.json: drives[0].format: is missing");
}

TEST_CASE("relative_paths_are_relative_to_the_file", "[description]") {
  const auto d = parse_description(
      R"({"memory": "64M", "drives": [{"file": "disks/a.qcow2", "format": "qcow2"}]})", "/vm/xp/m.json");
  REQUIRE(d->drives[0].file == "/vm/xp/disks/a.qcow2");
}

TEST_CASE("two_drives_on_one_unit_are_refused", "[description]") {
  const auto message = error_of(R"({"memory": "64M", "drives": [
    {"id": "a", "file": "a", "format": "raw"}, {"id": "b", "file": "b", "format": "raw"}]})");
  REQUIRE(message.find("drives[1].unit: bus 0 unit 0 is taken by the drive \"a\"") != std::string::npos);
}

TEST_CASE("overrides_change_nested_values_and_arrays", "[description]") {
  const auto d =
      parse_description(R"({"memory": "64M", "drives": [{"file": "a", "format": "raw"}]})", "/m.json",
                        {{"memory", "128M"}, {"drives.0.format", "qcow2"}, {"vnc.port", "5907"}});
  REQUIRE(d.has_value());
  REQUIRE(d->memory == 128 * kMiB);
  REQUIRE(d->drives[0].format == "qcow2");
  REQUIRE(d->vnc->port == 5907);
}

TEST_CASE("cpu_feature_slip_is_corrected", "[description]") {
  REQUIRE(
      error_of(R"({"memory": "64M", "cpu": {"features": {"peae": true}}})").find("did you mean \"pae\"") !=
      std::string::npos);
}

TEST_CASE("deep_nesting_is_refused", "[description]") {
  std::string bomb = "{\"memory\": ";
  bomb.append(100000, '[');
  REQUIRE(error_of(bomb).find("m.json: is n") != std::string::npos);
}

TEST_CASE("sizes_have_units", "[description]") {
  REQUIRE(parse_size("512k") == 512 * kKiB);
  REQUIRE(parse_size("2 GiB") == 2 * kGiB);
  REQUIRE(parse_size("4096") == 4096);
  REQUIRE_FALSE(parse_size("12Q").has_value());
  REQUIRE_FALSE(parse_size("M").has_value());
  REQUIRE_FALSE(parse_size("99999999999T").has_value());
}

TEST_CASE("parts_of_later_versions_are_left_out_with_a_warning", "[description]") {
  const auto d = parse_description(R"({"memory": "64M",
    "drives": [{"id": "fd0", "interface": "floppy", "unit": 0, "file": "f6.img", "format": "raw"}],
    "network": [{"model": "rtl8139", "backend": "user", "mac": "52:54:00:12:34:56", "restrict": true}],
    "monitor": {"socket": "a.qmp"}})",
                                   "/m.json");
  REQUIRE(d.has_value());
  REQUIRE(d->drives.empty());
  REQUIRE(d->monitor_socket == "a.qmp");
  REQUIRE(d->left_out.size() == 2);
  REQUIRE(d->left_out[1] ==
          "/m.json: network[0]: this version has no network cards yet: the guest sees none");
}

TEST_CASE("key_given_twice_is_refused", "[description]") {
  REQUIRE(error_of(R"({"memory": "64M", "memory": "32M"})") ==
          "m.json: memory: is there twice in one object");
  REQUIRE(error_of(R"({"memory": "64M", "vnc": {"port": 1, "port": 1}})") ==
          "m.json: port: is there twice in one object");
  REQUIRE(parse_description(R"({"memory": "64M", "debug": {}, "vnc": {"port": 1}, "serial": []})", "m.json")
              .has_value());
}

TEST_CASE("null_override_takes_a_key_away", "[description]") {
  const auto d =
      parse_description(R"({"memory": "64M", "vnc": {"port": 5900}})", "m.json", {{"vnc", "null"}});
  REQUIRE(d.has_value());
  REQUIRE_FALSE(d->vnc.has_value());
}

TEST_CASE("hostile_overrides_are_refused", "[description]") {
  const std::string deep = std::string(5000, '[') + std::string(5000, ']');
  REQUIRE(error_of(R"({"memory": "64M"})", {{"name", deep}}).find("deeper") != std::string::npos);
  REQUIRE(error_of(R"({"memory": "64M"})", {{"memory.x", "1"}}).find("memory.x") != std::string::npos);
  REQUIRE(error_of(R"({"memory": "64M", "drives": []})", {{"drives.4.id", "x"}}).find("drives.4.id") !=
          std::string::npos);
  REQUIRE(error_of(R"({"memory": "64M"})", {{"a..b", "1"}}).find("empty part") != std::string::npos);
}

TEST_CASE("identity_that_a_drive_cannot_tell_is_refused", "[description]") {
  REQUIRE(error_of(R"({"memory": "64M", "drives": [{"file": "a", "format": "raw", "serial": "a\nb"}]})") ==
          "m.json: drives[0].serial: has characters other than printable ASCII");
}

TEST_CASE("boot_once_and_what_the_bios_is_told_are_read", "[description]") {
  const auto d = parse_description(R"({"memory": "64M", "boot": {"order": [], "once": ["cdrom", "disk"],
    "floppy_check": false, "reboot_timeout": 15}, "debug": {"testdev": true},
    "drives": [{"file": "a", "format": "raw", "version": "2.5+",
      "geometry": {"cylinders": 480, "heads": 4, "sectors": 32, "translation": "lba"},
      "bios_geometry": {"cylinders": 10000, "heads": 120, "sectors": 30}}]})",
                                   "/m.json");
  REQUIRE(d.has_value());
  REQUIRE(d->boot.order.empty());
  REQUIRE(d->boot.once == std::vector<std::string>{"cdrom", "disk"});
  REQUIRE_FALSE(d->boot.floppy_check);
  REQUIRE(d->boot.reboot_timeout == 15);
  REQUIRE(d->debug.testdev);
  REQUIRE(d->drives[0].version == "2.5+");
  REQUIRE(d->drives[0].translation == Translation::kLba);
  REQUIRE(d->drives[0].bios_geometry->heads == 120);
  REQUIRE(error_of(R"({"memory": "64M", "boot": {"once": ["tape"]}})") ==
          "m.json: boot.once[0]: must be one of \"disk\", \"cdrom\", \"floppy\", \"network\"");
  REQUIRE(error_of(R"({"memory": "64M", "drives": [{"file": "a", "format": "raw", "version": "123456789"}]})")
              .find("room for 8") != std::string::npos);
}

TEST_CASE("keys_are_listed_once_each", "[description]") {
  const auto message = error_of(R"({"memory": "64M", "boot": {"zzzzzzzzzzzzz": 1}})");
  REQUIRE(message.find("order") != std::string::npos);
  REQUIRE(message.find("order") == message.rfind("order"));
}

TEST_CASE("drive_on_an_nbd_server_keeps_its_name", "[description]") {
  const auto d = parse_description(R"({"memory": "64M", "drives": [
    {"file": "nbd://host:10809/xp", "format": "qcow2", "remote_backing": true},
    {"file": "local", "format": "raw", "unit": 1}]})",
                                   "/m.json");
  REQUIRE(d.has_value());
  REQUIRE(d->drives[0].file == "nbd://host:10809/xp");
  REQUIRE(d->drives[0].remote_backing);
  REQUIRE(d->drives[1].file == "/local");
  REQUIRE_FALSE(d->drives[1].remote_backing);
}

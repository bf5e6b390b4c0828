#include "vmm/import/qemu_settings.hpp"

#include <catch2/catch.hpp>

using namespace whistler;

namespace {

using Words = std::vector<std::string>;

std::string error_of(std::string_view line) {
  const auto words = split_shell_words(line);
  REQUIRE_FALSE(words.has_value());
  return words.error().message;
}

}  // namespace

TEST_CASE("settings_have_keys_values_and_doubled_commas", "[import]") {
  auto settings = QemuSettings::parse("a,,b.img,format=raw,readonly,noacpi", "file");
  REQUIRE(settings.has_value());
  REQUIRE(settings->take("file") == "a,b.img");
  REQUIRE(settings->take("format") == "raw");
  REQUIRE(settings->flag("readonly", false));
  REQUIRE_FALSE(settings->flag("acpi", true));
  REQUIRE(settings->flag("missing", true));
  REQUIRE(settings->left().empty());
}

TEST_CASE("settings_given_twice_take_the_last_value", "[import]") {
  auto settings = QemuSettings::parse("a=1,a=2,b=3", "");
  REQUIRE(settings->take("a") == "2");
  REQUIRE(settings->left() == Words{"b"});
}

TEST_CASE("settings_as_json_have_dotted_keys", "[import]") {
  auto settings = QemuSettings::parse(
      R"({"driver": "qcow2", "file": {"driver": "file", "filename": "/x"}, "read-only": true, "n": 7, "l": ["a"]})",
      "driver");
  REQUIRE(settings.has_value());
  REQUIRE(settings->take("file.filename") == "/x");
  REQUIRE(settings->flag("read-only", false));
  REQUIRE(settings->take("n") == "7");
  REQUIRE(settings->take("l.0") == "a");
}

TEST_CASE("settings_as_broken_or_endless_json_are_refused", "[import]") {
  REQUIRE_FALSE(QemuSettings::parse("{\"a\": ", "").has_value());
  std::string deep;
  for (int i = 0; i < 100; ++i) {
    deep += "{\"a\":";
  }
  REQUIRE_FALSE(QemuSettings::parse(deep + "1" + std::string(100, '}'), "").has_value());
}

TEST_CASE("shell_words_are_split_as_a_shell_does", "[import]") {
  REQUIRE(split_shell_words("qemu  -hda 'My Disk.img' -name \"a \\\"b\\\"\" \\\n -append a\\ b''c") ==
          Words{"qemu", "-hda", "My Disk.img", "-name", "a \"b\"", "-append", "a bc"});
  REQUIRE(split_shell_words("a '' \"\"") == Words{"a", "", ""});
  REQUIRE(split_shell_words(" \t\n") == Words{});
  REQUIRE(split_shell_words("'$HOME;|'") == Words{"$HOME;|"});
}

TEST_CASE("shell_words_that_need_a_shell_are_refused", "[import]") {
  REQUIRE(error_of("qemu -hda $HOME/xp.img").find("character 11: \"$HOME/xp.img\"") == 0);
  REQUIRE(error_of("qemu \"`id`\"").find("character 7") == 0);
  REQUIRE(error_of("qemu -m 512 &").find("character 13: \"&\"") == 0);
  REQUIRE(error_of("qemu > log").find("character 6") == 0);
  REQUIRE(error_of("qemu 'x") == "a quote ' is never closed");
  REQUIRE(error_of("qemu \\") == "character 6: nothing follows the backslash");
}

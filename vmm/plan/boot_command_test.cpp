#include "vmm/plan/boot_command.hpp"

#include <catch2/catch.hpp>

using namespace whistler;
using namespace whistler::plan;

namespace {

/// "+ret -ret 5s": presses, releases, waits.
std::string shown(const Result<std::vector<Typing>>& typed) {
  if (!typed) {
    return "error: " + typed.error().message;
  }
  std::string text;
  for (const auto& one : *typed) {
    text += text.empty() ? "" : " ";
    text += one.key.empty() ? std::to_string(one.wait).substr(0, 4) + "s" : (one.down ? "+" : "-") + one.key;
  }
  return text;
}

std::string typed(std::string_view text) { return shown(parse_boot_command(text)); }

}  // namespace

TEST_CASE("boot command: characters are keys of a US keyboard, with Shift where it is needed") {
  CHECK(typed("a") == "+a -a");
  CHECK(typed("A") == "+shift +a -a -shift");
  CHECK(typed("2@") == "+2 -2 +shift +2 -2 -shift");
  CHECK(typed("~|") == "+shift +grave_accent -grave_accent -shift +shift +backslash -backslash -shift");
  CHECK(typed(" \n\t") == "+spc -spc +ret -ret +tab -tab");
}

TEST_CASE("boot command: every printable ASCII character can be typed") {
  std::string all;
  for (char c = ' '; c <= '~'; ++c) {
    all += c == '<' ? std::string("<lt>") : std::string(1, c);
  }
  CHECK(parse_boot_command(all).has_value());
}

TEST_CASE("boot command: special keys in any case") {
  CHECK(typed("<enter><ESC><F12><pageUp>") == "+ret -ret +esc -esc +f12 -f12 +pgup -pgup");
  CHECK(typed("<lt>>") == "+shift +comma -comma -shift +shift +dot -dot -shift");
}

TEST_CASE("boot command: keys held down around others") {
  CHECK(typed("<leftCtrlOn>c<leftCtrlOff>") == "+ctrl +c -c -ctrl");
  CHECK(typed("<leftCtrlOn><leftAltOn><del><leftAltOff><leftCtrlOff>") ==
        "+ctrl +alt +delete -delete -alt -ctrl");
  CHECK(typed("<leftShiftOn>aB<leftShiftOff>") == "+shift +a -a +b -b -shift");
  CHECK(typed("<aOn><aOff>") == "+a -a");
}

TEST_CASE("boot command: waits") {
  CHECK(typed("<wait><wait5><wait10s><wait500ms><wait2m>") == "1.00s 5.00s 10.0s 0.50s 120.s");
}

TEST_CASE("boot command: a key whose name ends in on is not half of one") {
  CHECK(typed("<wait0.5s>") == "0.50s");
  CHECK_THAT(typed("<option>"), Catch::Contains("is no key"));
}

TEST_CASE("boot command: what cannot be typed is refused with its place") {
  CHECK_THAT(typed(""), Catch::Contains("is empty"));
  CHECK_THAT(typed("ab<entre>"), Catch::Contains("<entre> at character 3") && Catch::Contains("<enter>"));
  CHECK_THAT(typed("a<enter"), Catch::Contains("at character 2 is never closed"));
  CHECK_THAT(typed("x\xC3\xA9"), Catch::Contains("character 2 cannot be typed"));
  CHECK_THAT(typed("<wait0>"), Catch::Contains("is no wait"));
  CHECK_THAT(typed("<wait5x>"), Catch::Contains("is no wait"));
  CHECK_THAT(typed("<waitnan>"), Catch::Contains("is no wait"));
  CHECK_THAT(typed("<wait99999>"), Catch::Contains("is no wait"));
  CHECK_THAT(typed("<>"), Catch::Contains("is no key"));
}

TEST_CASE("boot command: a key is never left down, nor pressed or let go twice") {
  CHECK_THAT(typed("<leftCtrlOn>c"), Catch::Contains("never let go"));
  CHECK_THAT(typed("<leftCtrlOff>"), Catch::Contains("is not down"));
  CHECK_THAT(typed("<leftCtrlOn><leftCtrlOn>"), Catch::Contains("is down already"));
}

TEST_CASE("key chord: pressed in order and let go in the opposite one") {
  CHECK(shown(parse_key_chord("ctrl-alt-delete")) == "+ctrl +alt +delete -delete -alt -ctrl");
  CHECK(shown(parse_key_chord("f8")) == "+f8 -f8");
  CHECK_THAT(shown(parse_key_chord("ctrl-alt-dlete")), Catch::Contains("\"dlete\" is no key"));
  CHECK_THAT(shown(parse_key_chord("")), Catch::Contains("is no key"));
}

#include "vmm/plan/trouble.hpp"

#include <catch2/catch.hpp>

using namespace whistler::plan;

TEST_CASE("trouble: a panic is found once all of it has come, with its line") {
  const TroubleFinder finder{FailOn{}};
  std::size_t seen = 0;
  std::string text = "[ 1.0] fine\r\n[ 2.0] Kernel panic - not";
  CHECK_FALSE(finder.in_stream(text, seen));
  CHECK(seen == text.size());
  text += " syncing: VFS: Un";
  const auto found = finder.in_stream(text, seen);
  REQUIRE(found);
  CHECK_FALSE(found->line_is_whole(text));
  text += "able to mount root\r\nmore";
  CHECK(found->line_is_whole(text));
  CHECK(found->with_line(text) ==
        "Linux has panicked: [ 2.0] Kernel panic - not syncing: VFS: Unable to mount root");
}

TEST_CASE("trouble: blue screens and firmware that finds nothing") {
  const TroubleFinder finder{FailOn{}};
  CHECK(finder.in_screen("\n  A problem has been detected and Windows has been shut down\n") ==
        "Windows has stopped with a blue screen: A problem has been detected and Windows has been shut down");
  CHECK(finder.in_screen("*** STOP: 0x0000007B (0x1)"));
  CHECK(finder.in_screen("No bootable device.  Retrying in 60 seconds."));
  CHECK_FALSE(finder.in_screen("A device that boots"));
}

TEST_CASE("trouble: what is switched off is not looked for, what a plan adds is") {
  FailOn fail_on{.panic = false, .blue_screen = false, .no_boot_device = false};
  fail_on.text.push_back(*Pattern::compile("BUG: .*at"));
  const TroubleFinder finder(fail_on);
  CHECK_FALSE(finder.in_screen("Kernel panic - not syncing; *** STOP: 0x; No bootable device"));
  CHECK(finder.in_screen("BUG: soft lockup at") ==
        "the guest says what fail_on.text names, \"BUG: .*at\": BUG: soft lockup at");
}

TEST_CASE("trouble: the line around a place") {
  CHECK(line_around("one\ntwo\nthree", 5) == "two");
  CHECK(line_around("one", 0) == "one");
  CHECK(line_around("one\n", 4) == "");
  CHECK(line_around("a\x1b[1mb\r\n", 0) == "a [1mb");
  CHECK(line_around("", 0) == "");
}

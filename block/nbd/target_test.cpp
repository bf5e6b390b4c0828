#include <catch2/catch.hpp>

#include "block/nbd/address.hpp"

using namespace whistler;
using namespace whistler::nbd;

TEST_CASE("nbd names: every way to name a server is understood") {
  struct Case {
    const char* name;
    Address address;
    const char* export_name;
    bool tls;
  };
  const Case each = GENERATE(Case{"nbd://host/disk", {"", "host", "10809"}, "disk", false},
                             Case{"nbd+tcp://host:1/", {"", "host", "1"}, "", false},
                             Case{"nbd://[::1]:2/a%20b", {"", "::1", "2"}, "a b", false},
                             Case{"nbd+unix:///disk?socket=/a/b", {"/a/b", "", ""}, "disk", false},
                             Case{"nbd+unix://?socket=x", {"x", "", ""}, "", false},
                             Case{"nbds://host", {"", "host", "10809"}, "", true},
                             Case{"nbd:host:3", {"", "host", "3"}, "", false},
                             Case{"nbd:[::1]:3:exportname=d", {"", "::1", "3"}, "d", false},
                             Case{"nbd:unix:/a/b:exportname=d:e", {"/a/b", "", ""}, "d:e", false});
  const auto target = parse_target(each.name);
  REQUIRE(target);
  CHECK(target->address == each.address);
  CHECK(target->export_name == each.export_name);
  CHECK(target->tls == each.tls);
}

TEST_CASE("nbd names: what names no server is refused") {
  const std::string name =
      GENERATE("nbd:", "nbd:host", "nbd://", "nbd:///x", "nbd+unix:///x", "nbd+unix://host/x?socket=y",
               "nbd+unix:///x?socket=y&z=1", "nbd+foo://host", "nbd://[::1", "nbd://host?x=y");
  CHECK_FALSE(parse_target(name));
}

TEST_CASE("nbd names: a target is named by the URL that leads to it") {
  CHECK(Target{{"", "host", "10809"}, "disk"}.url() == "nbd://host:10809/disk");
  CHECK(Target{{"", "host", "10809"}, ""}.url() == "nbd://host:10809");
  CHECK(Target{{"/s", "", ""}, "disk"}.url() == "nbd+unix:///disk?socket=/s");
  CHECK(Target{{"/s", "", ""}, ""}.url() == "nbd+unix://?socket=/s");
}

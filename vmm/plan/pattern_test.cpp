#include "vmm/plan/pattern.hpp"

#include <catch2/catch.hpp>
#include <chrono>

using namespace whistler;
using namespace whistler::plan;

TEST_CASE("pattern: finds places one after the other") {
  const auto pattern = Pattern::compile("lo+gin");
  REQUIRE(pattern);
  const std::string text = "login: looogin: ";
  CHECK(pattern->search(text) == Found{0, 5});
  CHECK(pattern->search(text, 5) == Found{7, 14});
  CHECK(pattern->search(text, 14) == std::nullopt);
  CHECK(pattern->search(text, 99) == std::nullopt);
}

TEST_CASE("pattern: dots match line ends, anchors match at lines") {
  CHECK(Pattern::compile("one.two")->search("one\ntwo"));
  CHECK(Pattern::compile("^two$")->search("one\ntwo\nthree") == Found{4, 7});
}

TEST_CASE("pattern: what would always be found is refused") {
  for (const auto* text : {"", "a*", "(x|)", "^", "$"}) {
    const auto pattern = Pattern::compile(text);
    REQUIRE_FALSE(pattern);
    CHECK_THAT(pattern.error().message, Catch::Contains("empty text"));
  }
}

TEST_CASE("pattern: what is no expression, or too large a one, is refused") {
  for (const auto* text : {"(", "[a", "a**", "\\q", "(a{1000}){1000}", "(?=a)"}) {
    CHECK_FALSE(Pattern::compile(text));
  }
}

TEST_CASE("pattern: bytes that are no UTF-8 do no harm") {
  CHECK(Pattern::compile("ok")->search("\xFF\xC0\x80ok"));
}

TEST_CASE("pattern: time grows with the text and not with the expression's ways") {
  const auto pattern = Pattern::compile("(a+)+b");
  REQUIRE(pattern);
  const auto start = std::chrono::steady_clock::now();
  CHECK_FALSE(pattern->search(std::string(100'000, 'a')));
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(10));
}

TEST_CASE("pattern: a literal means itself") {
  CHECK(Pattern::literal("*** STOP: 0x").search("x *** STOP: 0x1") == Found{2, 14});
}

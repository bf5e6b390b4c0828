#include "vmm/monitor/qmp_protocol.hpp"

#include <catch2/catch.hpp>

using namespace whistler;
using namespace whistler::qmp;

TEST_CASE("splitter_objects_without_space_between_them_come_one_by_one", "[qmp]") {
  Splitter splitter;
  REQUIRE(splitter.feed(R"({"a":1}{"b":"}"})"));
  REQUIRE(splitter.next() == R"({"a":1})");
  REQUIRE(splitter.next() == R"({"b":"}"})");
  REQUIRE(splitter.next() == std::nullopt);
}

TEST_CASE("splitter_object_in_pieces_comes_when_it_is_whole", "[qmp]") {
  Splitter splitter;
  REQUIRE(splitter.feed("{\"execute\": \"st"));
  REQUIRE(splitter.next() == std::nullopt);
  REQUIRE(splitter.feed("op\"}"));
  REQUIRE(splitter.next() == R"({"execute": "stop"})");
}

TEST_CASE("splitter_quote_behind_a_backslash_does_not_end_a_string", "[qmp]") {
  Splitter splitter;
  REQUIRE(splitter.feed(R"({"a":"\"}"})"));
  REQUIRE(splitter.next() == R"({"a":"\"}"})");
}

TEST_CASE("splitter_word_outside_an_object_ends_with_its_line", "[qmp]") {
  Splitter splitter;
  REQUIRE(splitter.feed("hello\n{}"));
  REQUIRE(splitter.next() == "hello\n");
  REQUIRE(splitter.next() == "{}");
}

TEST_CASE("splitter_endless_message_is_refused", "[qmp]") {
  Splitter splitter;
  const std::string part(64 * 1024, '[');
  bool taken = true;
  for (std::size_t sent = 0; taken && sent < 2 * kLargestMessage; sent += part.size()) {
    taken = splitter.feed(part);
    static_cast<void>(splitter.next());
  }
  REQUIRE_FALSE(taken);
}

TEST_CASE("splitter_deep_nesting_is_refused", "[qmp]") {
  Splitter splitter;
  REQUIRE(splitter.feed(std::string(kDeepestNesting + 1, '[')));
  static_cast<void>(splitter.next());
  REQUIRE_FALSE(splitter.feed("["));
}

TEST_CASE("request_with_everything_is_read", "[qmp]") {
  Json id;
  const auto request = read_request(R"({"execute":"x","arguments":{"a":1},"id":[7]})", id);
  REQUIRE(request.has_value());
  REQUIRE(request->command == "x");
  REQUIRE(request->arguments["a"] == 1);
  REQUIRE(id == Json::array({7}));
}

TEST_CASE("request_that_is_wrong_keeps_its_id_for_the_answer", "[qmp]") {
  Json id;
  const auto request = read_request(R"({"execute":5,"id":"me"})", id);
  REQUIRE(request.error().description == "QMP input member 'execute' must be a string");
  REQUIRE(id == "me");
}

TEST_CASE("request_with_unknown_member_is_refused_by_name", "[qmp]") {
  Json id;
  REQUIRE(read_request(R"({"execute":"x","extra":1})", id).error().description ==
          "QMP input member 'extra' is unexpected");
}

TEST_CASE("answer_is_one_line_with_the_id", "[qmp]") {
  REQUIRE(answer_line(Json::object(), 3) == "{\"id\":3,\"return\":{}}\r\n");
}

TEST_CASE("answer_with_text_that_is_no_utf_8_is_still_json", "[qmp]") {
  const auto line = answer_line(refuse("bad \xff name"), nullptr);
  REQUIRE_FALSE(Json::parse(line, nullptr, false).is_discarded());
}

TEST_CASE("arguments_left_over_are_unexpected", "[qmp]") {
  const Json object = {{"a", "x"}, {"b", 1}};
  Arguments arguments(object);
  REQUIRE(arguments.text("a") == "x");
  REQUIRE(arguments.finish().error().description == "Parameter 'b' is unexpected");
}

TEST_CASE("arguments_first_refusal_stands", "[qmp]") {
  const Json object = {{"a", 5}};
  Arguments arguments(object);
  static_cast<void>(arguments.text("a"));
  static_cast<void>(arguments.text("b"));
  REQUIRE(arguments.finish().error().description == "Invalid parameter type for 'a', expected: string");
}

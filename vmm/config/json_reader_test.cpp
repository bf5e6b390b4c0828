#include "vmm/config/json_reader.hpp"

#include <catch2/catch.hpp>

using namespace whistler;

namespace {

struct Fixture {
  JsonErrors errors;
  nlohmann::json document;
  JsonObject read(const char* text) {
    document = nlohmann::json::parse(text);
    return {document, "", errors};
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "known_keys_of_the_right_type_are_read", "[json_reader]") {
  auto object = read(R"({"flag": true, "word": "b", "text": "t", "count": 7, "bytes": "4k"})");
  bool flag = false;
  int word = 0;
  int count = 0;
  std::string text;
  std::uint64_t bytes = 0;
  object.boolean("flag", flag);
  object.choice("word", {{"a", 1}, {"b", 2}}, word);
  object.text("text", text);
  object.number("count", 0, 7, count);
  object.size("bytes", 0, 1 << 20, bytes);
  object.finish();
  REQUIRE_FALSE(errors.first().has_value());
  REQUIRE((flag && word == 2 && text == "t" && count == 7 && bytes == 4096));
}

TEST_CASE_METHOD(Fixture, "first_error_is_kept", "[json_reader]") {
  auto object = read(R"({"a": 1, "b": 2})");
  std::string text;
  object.text("a", text);
  object.text("b", text);
  REQUIRE(*errors.first() == "a: is 1 where a string is needed");
}

TEST_CASE_METHOD(Fixture, "slip_is_reported_before_the_key_it_leaves_missing", "[json_reader]") {
  auto object = read(R"({"fiel": "x"})");
  std::string file;
  object.text("file", file);
  object.need("file");
  object.finish();
  REQUIRE(*errors.first() == "fiel: is not a key here; did you mean \"file\"?");
}

TEST_CASE_METHOD(Fixture, "missing_key_of_another_object_stays_first", "[json_reader]") {
  auto root = read(R"({"inner": {}, "stray": 1})");
  auto inner = root.object("inner");
  inner.need("file", "it is needed");
  inner.finish();
  root.finish();
  REQUIRE(*errors.first() == "inner.file: is missing: it is needed");
}

TEST_CASE_METHOD(Fixture, "number_out_of_range_or_not_whole_is_refused", "[json_reader]") {
  const auto* text = GENERATE("-1", "11", "1.5", "18446744073709551615", "\"5\"", "null", "1e3");
  auto object = read((std::string("{\"n\": ") + text + "}").c_str());
  std::int64_t n = 5;
  object.number("n", 0, 10, n);
  REQUIRE(errors.first()->starts_with("n: is "));
  REQUIRE(n == 5);
}

TEST_CASE_METHOD(Fixture, "text_with_nul_is_refused", "[json_reader]") {
  auto object = read(R"({"path": "a\u0000b"})");
  std::string path;
  object.text("path", path);
  REQUIRE(errors.first()->starts_with("path: "));
}

TEST_CASE_METHOD(Fixture, "what_is_no_object_reads_as_an_empty_one", "[json_reader]") {
  auto root = read(R"({"inner": [1]})");
  auto inner = root.object("inner");
  REQUIRE_FALSE(inner.has("x"));
  REQUIRE(*errors.first() == "inner: is an array where an object {...} is needed");
}

TEST_CASE_METHOD(Fixture, "array_longer_than_allowed_is_refused_whole", "[json_reader]") {
  auto root = read(R"({"list": [1, 2, 3]})");
  REQUIRE(root.array("list", 2).empty());
  REQUIRE(errors.first()->starts_with("list: has 3 elements"));
}

TEST_CASE("nearest_word_knows_slips", "[json_reader]") {
  REQUIRE(nearest_word("pea", {"de", "pae"}) == "pae");
  REQUIRE(nearest_word("memroy", {"memory", "name"}) == "memory");
  REQUIRE(nearest_word("drive", {"drives", "display"}) == "drives");
  REQUIRE_FALSE(nearest_word("xylophone", {"memory", "name"}).has_value());
  REQUIRE_FALSE(nearest_word(std::string(100'000, 'x'), {"memory"}).has_value());
  REQUIRE_FALSE(nearest_word("a", {}).has_value());
}

#include "block/node_options.hpp"

#include <catch2/catch.hpp>

using namespace whistler;

TEST_CASE("sizes_with_suffixes_are_read_as_qemu_reads_them", "[node]") {
  CHECK(parse_size_text("1k") == 1024U);
  CHECK(parse_size_text("1.5G") == 1610612736U);
  CHECK(parse_size_text("0x10") == 16U);
  CHECK(parse_size_text("7E") == 8070450532247928832U);
}

TEST_CASE("sizes_that_are_none_are_refused_by_kind", "[node]") {
  CHECK(parse_size_text("").error().code == ErrorCode::kInvalid);
  CHECK(parse_size_text("1.5").error().code == ErrorCode::kInvalid);
  CHECK(parse_size_text("1X").error().code == ErrorCode::kInvalid);
  CHECK(parse_size_text("-1").error().code == ErrorCode::kInvalid);
  CHECK(parse_size_text("16E").error().code == ErrorCode::kNoSpace);
}

TEST_CASE("dotted_options_make_a_tree", "[node]") {
  const auto options = parse_dotted_options("driver=qcow2,file.driver=file,file.filename=a,,b");
  REQUIRE(options);
  CHECK(*options == Options{{"driver", "qcow2"}, {"file", {{"driver", "file"}, {"filename", "a,b"}}}});
}

TEST_CASE("json_names_take_single_quotes_and_dotted_keys", "[node]") {
  const auto options = parse_json_name("json:{'driver': 'raw', \"file.filename\": 'it\\'s'}");
  REQUIRE(options);
  CHECK(*options == Options{{"driver", "raw"}, {"file", {{"filename", "it's"}}}});
}

TEST_CASE("json_names_that_are_no_json_are_refused", "[node]") {
  CHECK(parse_json_name("json:{bad").error().message ==
        "Could not parse the JSON options: JSON parse error, invalid keyword 'bad'");
  CHECK(parse_json_name("json:[]").error().message == "Invalid JSON object given");
}

TEST_CASE("json_is_printed_in_the_order_of_qemus_table", "[node]") {
  const Options info = {{"filename", "x"}, {"virtual-size", 1}, {"format", "raw"}, {"dirty-flag", false}};
  CHECK(print_json(info, false) ==
        "{\"virtual-size\": 1, \"filename\": \"x\", \"format\": \"raw\", \"dirty-flag\": false}");
}

TEST_CASE("names_with_a_protocol_have_a_colon_before_any_slash", "[node]") {
  CHECK(has_protocol("nbd:x"));
  CHECK(!has_protocol("./a:b"));
  CHECK(!has_protocol("plain"));
  CHECK(protocol_of("nbd+unix:///x") == "nbd+unix");
}

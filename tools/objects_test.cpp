#include "tools/objects.hpp"

#include <catch2/catch.hpp>

using namespace whistler::tools;

namespace {

std::string message(const std::string& text) {
  const auto defined = define_object(text);
  return defined ? "" : defined.error().message;
}

}  // namespace

TEST_CASE("secrets_are_defined_from_data_in_both_formats", "[tools][objects]") {
  CHECK(message("secret,id=plain,data=a,,b") == "");
  CHECK(secrets().at("plain") == "a,b");
  CHECK(message("secret,id=coded,data=YWJj,format=base64") == "");
  CHECK(secrets().at("coded") == "abc");
  CHECK(message(R"({"qom-type": "secret", "id": "json", "data": "x"})") == "");
  CHECK(secrets().at("json") == "x");
  CHECK(message("secret,id=plain,data=x") ==
        "attempt to add duplicate property 'plain' to object (type 'container')");
}

TEST_CASE("secret_encrypted_with_another_is_decrypted", "[tools][objects]") {
  // The key is 32 bytes of 'k', the vector 16 of 'i'; "hello" and eleven bytes of padding.
  REQUIRE(message("secret,id=master,data=kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk") == "");
  CHECK(message("secret,id=inner,keyid=master,iv=aWlpaWlpaWlpaWlpaWlpaQ==,format=base64,data=aRyXOIIhJzBhh+"
                "BthfFstw==") == "");
  CHECK(secrets().at("inner") == "hello");
  CHECK(message("secret,id=other,keyid=master,format=base64,data=YWJj") ==
        "IV is required to decrypt secret");
}

TEST_CASE("objects_that_cannot_be_are_refused_in_qemus_words", "[tools][objects]") {
  CHECK(message("secret") == "Parameter 'id' is missing");
  CHECK(message("") == "Parameter 'qom-type' is missing");
  CHECK(message("foo,id=a") == "Parameter 'qom-type' does not accept value 'foo'");
  CHECK(message("secret,id=a") == "Either 'file' or 'data' must be provided");
  CHECK(message("secret,id=a,data=x,file=y") == "'file' and 'data' are mutually exclusive");
  CHECK(message("secret,id=a,file=/nonexistent") ==
        "Unable to read /nonexistent: Failed to open file “/nonexistent”: No such file or directory");
  CHECK(message("secret,id=a,data=x,format=foo") == "Parameter 'format' does not accept value 'foo'");
  CHECK(message("secret,id=a,data=$$,format=base64") == "Base64 data contains invalid characters");
  CHECK(message("secret,id=a,data=x,foo=b") == "Parameter 'foo' is unexpected");
  CHECK(message("secret,id=1a,data=x").starts_with("Parameter 'id' expects an identifier\n"));
  CHECK(message("secret,id=a,data=YWJj,keyid=nobody") == "No secret with id 'nobody'");
}

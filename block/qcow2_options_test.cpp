#include "block/qcow2_options.hpp"

#include <catch2/catch.hpp>

using namespace whistler;

namespace {

Result<Qcow2Options> take(const char* text) {
  auto options = *parse_dotted_options(text);
  auto taken = take_qcow2_options(options);
  CHECK((!taken || options.empty()));
  return taken;
}

qcow2::Header header_of(std::uint32_t version) {
  qcow2::Header header;
  header.version = version;
  header.cluster_bits = 16;
  header.size = 1ULL << 30;
  return header;
}

Result<void> check(const char* text, std::uint32_t version = 3) {
  return check_qcow2_options(*take(text), header_of(version));
}

}  // namespace

TEST_CASE("qcow2_options_are_taken_with_their_values", "[node]") {
  const auto taken =
      take("lazy-refcounts=on,cache-size=1M,refcount-cache-size=64k,overlap-check.template=all");
  REQUIRE(taken);
  CHECK(taken->lazy_refcounts == true);
  CHECK(taken->memory_for_l2() == 1024U * 1024 - 65536);
}

TEST_CASE("qcow2_options_that_contradict_each_other_are_refused", "[node]") {
  CHECK(take("cache-size=1M,l2-cache-size=0,refcount-cache-size=0").error().message ==
        "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time");
  CHECK(take("overlap-check=constant,overlap-check.template=all").error().message ==
        "Conflicting values for qcow2 options 'overlap-check' ('constant') and 'overlap-check.template' "
        "('all')");
  CHECK(take("overlap-check.active-l1=2").error().message ==
        "Parameter 'overlap-check.active-l1' expects 'on' or 'off'");
  CHECK(take("cache-clean-interval=-1").error().message == "Cache clean interval too big");
}

TEST_CASE("qcow2_options_are_measured_against_the_image", "[node]") {
  CHECK(check("l2-cache-entry-size=64k"));
  CHECK(check("l2-cache-size=1E"));  // no more than the tables of the disk is used
  CHECK_FALSE(check("l2-cache-entry-size=33k"));
  CHECK_FALSE(check("l2-cache-entry-size=128k"));
  CHECK(check("refcount-cache-size=256T").error().message == "Refcount cache size too big");
  CHECK_FALSE(check("lazy-refcounts=on", 2));
}

TEST_CASE("qcow2_options_of_reopen_replace_what_they_contradict", "[node]") {
  auto options = *parse_dotted_options("overlap-check.template=all,l2-cache-size=1M,file.node-name=b");
  const auto before =
      *parse_dotted_options("overlap-check=none,cache-size=4M,refcount-cache-size=1M,file.driver=file");
  join_options(options, before);
  CHECK(options == *parse_dotted_options("overlap-check.template=all,l2-cache-size=1M,"
                                         "refcount-cache-size=1M,file.driver=file,file.node-name=b"));
}

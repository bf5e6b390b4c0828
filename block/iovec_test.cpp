#include "block/iovec.hpp"

#include <catch2/catch.hpp>
#include <numeric>

using namespace whistler;

namespace {

/// Twelve pieces of 10 bytes that count up from 0.
struct Pieces {
  std::vector<std::uint8_t> bytes = std::vector<std::uint8_t>(120);
  std::vector<iovec> vec;
  Pieces() {
    std::iota(bytes.begin(), bytes.end(), std::uint8_t{0});
    for (std::size_t at = 0; at < bytes.size(); at += 10) {
      vec.push_back({&bytes[at], 10});
    }
  }
};

}  // namespace

TEST_CASE("io_slice_of_a_part_names_just_those_bytes", "[iovec]") {
  const Pieces pieces;
  const IoSlice slice(pieces.vec, 15, 10);
  REQUIRE(slice.vec().size() == 2);
  CHECK(iovec_bytes(slice) == 10);
  CHECK(slice.vec()[0].iov_base == &pieces.bytes[15]);
  CHECK(slice.vec()[1].iov_len == 5);
}

TEST_CASE("io_slice_longer_than_its_inline_space_keeps_all_pieces", "[iovec]") {
  const Pieces pieces;
  IoSlice slice(pieces.vec, 0, 120);
  CHECK(slice.vec().size() == 12);
  slice.advance(95);
  REQUIRE(iovec_bytes(slice) == 25);
  CHECK(slice.vec()[0].iov_base == &pieces.bytes[95]);
  slice.advance(25);
  CHECK(slice.vec().empty());
}

TEST_CASE("iovec_copies_and_zeroes_across_pieces", "[iovec]") {
  Pieces pieces;
  std::vector<std::uint8_t> copy(30);
  copy_from_iovec(copy, pieces.vec, 5);
  CHECK(copy == std::vector<std::uint8_t>(pieces.bytes.begin() + 5, pieces.bytes.begin() + 35));
  copy_to_iovec(pieces.vec, 90, copy);
  CHECK(pieces.bytes[90] == 5);
  CHECK(pieces.bytes[119] == 34);
  CHECK_FALSE(iovec_is_zero(pieces.vec));
  zero_iovec(pieces.vec, 1, 119);
  CHECK(iovec_is_zero(pieces.vec));
}

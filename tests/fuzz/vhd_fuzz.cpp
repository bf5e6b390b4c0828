// Any bytes as a VHD image; the checksum of the first sector is made right, else few inputs would get past
// it.
#include "base/bytes.hpp"
#include "block/formats/vhd.hpp"
#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  using namespace whistler;
  std::vector<std::uint8_t> content(data, data + bytes);
  for (const auto at : {std::size_t{0}, bytes - std::min<std::size_t>(bytes, 512)}) {
    if (bytes >= 512 && formats::is_vhd(std::span(content).subspan(at))) {
      std::fill_n(content.begin() + static_cast<std::ptrdiff_t>(at) + 64, 4, std::uint8_t{0});
      std::uint32_t sum = 0;
      for (std::size_t i = 0; i < 512; ++i) {
        sum += content[at + i];
      }
      store_be<std::uint32_t>(&content[at + 64], ~sum);
    }
  }
  auto image = fuzz::now(formats::VhdImage::open(std::make_unique<fuzz::File>(content, false)));
  if (image) {
    fuzz::use(**image);
  }
  return 0;
}

// Any bytes as a VDI image: opened for writing, checked, used.
#include "block/formats/vdi.hpp"
#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  using namespace whistler;
  auto image =
      fuzz::now(formats::VdiImage::open(std::make_unique<fuzz::File>(std::span(data, bytes), false)));
  if (image) {
    static_cast<void>(fuzz::now((*image)->check()));
    fuzz::use(**image);
  }
  return 0;
}

// Any bytes as a VMDK image or descriptor; every file it names is the input again.
#include "block/formats/vmdk.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace whistler;

class Again final : public formats::SiblingOpener {
 public:
  explicit Again(std::span<const std::uint8_t> content) : content_(content) {}
  [[nodiscard]] Task<Result<std::unique_ptr<BlockDevice>>> open_sibling(std::string) override {
    if (++opened_ > 20) {
      co_return fail(ErrorCode::kNotFound, "too many files");
    }
    co_return std::make_unique<fuzz::File>(content_, true);
  }

 private:
  std::span<const std::uint8_t> content_;
  int opened_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  const std::span content(data, bytes);
  Again siblings(content);
  auto image = fuzz::now(formats::VmdkImage::open(std::make_unique<fuzz::File>(content, true), siblings));
  if (image) {
    fuzz::use(**image);
  }
  return 0;
}

// Any bytes as a qcow2 image: opened, used, its snapshots listed, applied, made and removed, checked and
// repaired.
//
// The first input byte says what is done; the image follows.
#include "block/qcow2/check.hpp"
#include "block/qcow2/image.hpp"
#include "block/qcow2/snapshots.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace whistler;

void snapshots(qcow2::Image& image) {
  qcow2::Snapshots all(image);
  const auto list = fuzz::now(all.list());
  if (!list) {
    return;
  }
  qcow2::Snapshot made;
  made.name = "fuzz";
  static_cast<void>(fuzz::now(all.create(made)));
  if (!list->empty()) {
    static_cast<void>(fuzz::now(all.apply(list->front().id)));
    static_cast<void>(fuzz::now(all.remove(list->back().id)));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  if (bytes == 0) {
    return 0;
  }
  const auto what = data[0];
  const bool read_only = (what & 1) != 0;
  const bool for_repair = (what & 2) != 0;
  auto file = std::make_unique<fuzz::File>(std::span(data + 1, bytes - 1), read_only);
  auto opened =
      fuzz::now(qcow2::Image::open(std::move(file), {.read_only = read_only, .for_repair = for_repair}));
  if (!opened) {
    return 0;
  }
  auto& image = **opened;
  if (!fuzz::now(image.prepare())) {
    return 0;
  }
  if ((what & 4) != 0) {
    const auto repair = read_only         ? qcow2::Repair::kNone
                        : (what & 8) != 0 ? qcow2::Repair::kAll
                                          : qcow2::Repair::kLeaks;
    static_cast<void>(fuzz::now(qcow2::check_image(image, repair)));
  }
  if ((what & 16) != 0) {
    snapshots(image);
  }
  if ((what & 32) != 0) {
    static_cast<void>(fuzz::now(image.resize(image.size() / 2 + 512)));
  }
  fuzz::use(image);
  return 0;
}

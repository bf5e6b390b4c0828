#include "block/qcow2/image.hpp"
#include "tools/io/special_writes.hpp"

namespace whistler::tools::io {

Task<Result<void>> read_vm_state(OpenedImage& image, std::uint64_t offset, std::span<const iovec> to) {
  if (image.qcow2 == nullptr) {
    co_return fail(ErrorCode::kUnsupported, image.device->name() + ": has no place for a machine's state");
  }
  auto done = co_await image.qcow2->read_vm_state(offset, to);
  co_return done;
}

Task<Result<void>> write_vm_state(OpenedImage& image, std::uint64_t offset, std::span<const iovec> from) {
  if (image.qcow2 == nullptr) {
    co_return fail(ErrorCode::kUnsupported, image.device->name() + ": has no place for a machine's state");
  }
  auto done = co_await image.qcow2->write_vm_state(offset, from);
  co_return done;
}

}  // namespace whistler::tools::io

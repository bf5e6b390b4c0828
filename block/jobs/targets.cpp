#include "block/jobs/targets.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include "block/jobs/unread_backing.hpp"
#include "block/qcow2/create.hpp"
#include "block/qcow2/image.hpp"

namespace whistler {
namespace {

Task<Result<void>> fill(FileDevice& device, const NewFile& file) {
  Result<void> done;
  if (file.format == "raw") {
    done = co_await device.resize(file.size);
  } else {
    qcow2::CreateOptions options;
    options.size = file.size;
    options.backing_file = file.backing_file;
    options.backing_format = file.backing_format;
    done = co_await qcow2::create(device, std::move(options));
  }
  if (done) {
    done = co_await device.close();
  }
  co_return done;
}

}  // namespace

Task<Result<void>> make_image(Ring& ring, NewFile file) {
  if (file.format != "raw" && file.format != "qcow2") {
    co_return fail(ErrorCode::kInvalid,
                   fmt::format("{}: images of the format '{}' are not made here", file.path, file.format));
  }
  FileOptions wanted{.path = file.path};
  auto device = co_await create_file_task(ring, std::move(wanted), file.stop);
  if (!device) {
    co_return std::unexpected(device.error());
  }
  auto done = co_await fill(**device, file);
  if (!done) {
    ::unlink(file.path.c_str());  // half an image is no image
  }
  co_return done;
}

Task<Result<Target>> open_target(Ring& ring, OpenOptions options) {
  options.ignore_backing = true;
  auto image = co_await open_image_task(ring, std::move(options));
  if (!image) {
    co_return std::unexpected(image.error());
  }
  Target target;
  target.image = std::move(*image);
  if (auto* const qcow2 = dynamic_cast<qcow2::Image*>(target.image.get())) {
    target.qcow2 = qcow2;
    target.cluster = qcow2->header().geometry().cluster_size();
    if (qcow2->header().backing_file) {
      qcow2->set_backing(std::make_unique<UnreadBacking>(qcow2->size()));
    }
  }
  co_return target;
}

}  // namespace whistler

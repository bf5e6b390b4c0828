#include "block/create.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include "block/crypto/luks_device.hpp"
#include "block/open.hpp"

namespace whistler {

namespace {

/// The size of the disk that will lie behind the new image.
Result<std::uint64_t> backing_size(Ring& ring, const NewImage& image) {
  if (!image.qcow2.backing_file) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: a new image needs a size", image.path));
  }
  const auto path = resolve_name(image.path, *image.qcow2.backing_file);
  if (!path) {
    return std::unexpected(path.error());
  }
  auto backing = open_image(ring, {.path = *path, .format = *image.qcow2.backing_format, .read_only = true});
  if (!backing) {
    return std::unexpected(backing.error().within(fmt::format("backing file of {}", image.path)));
  }
  return (*backing)->size();
}

Result<void> create_file(Ring& ring, const std::string& path, std::uint64_t bytes,
                         Preallocation preallocation) {
  auto file = FileDevice::create(ring, {.path = path});
  if (!file) {
    return std::unexpected(file.error());
  }
  auto done = sync_wait(ring, (*file)->resize(bytes));
  if (done) {
    done = sync_wait(ring, (*file)->preallocate(0, bytes, preallocation));
  }
  return done ? sync_wait(ring, (*file)->close()) : done;
}

Result<void> create_luks(Ring& ring, const NewImage& image) {
  auto file = FileDevice::create(ring, {.path = image.path});
  if (!file) {
    return std::unexpected(file.error());
  }
  auto done = sync_wait(ring, crypto::LuksDevice::create(**file, image.luks, image.password, *image.size));
  return done ? sync_wait(ring, (*file)->close()) : done;
}

/// A half-made file is not left, but neither is one that was not ours to make.
Result<void> finish(const NewImage& image, Result<void> done) {
  if (!done && done.error().code != ErrorCode::kBusy && done.error().code != ErrorCode::kPermission) {
    ::unlink(image.path.c_str());
  }
  return done;
}

Result<void> preallocate(Ring& ring, const std::string& path, const qcow2::CreateOptions& options) {
  OpenOptions opening{.path = path, .format = "qcow2", .ignore_backing = true};
  if (options.encryption) {
    opening.password = options.encryption->password;
  }
  auto image = open_image(ring, opening);
  if (!image) {
    return std::unexpected(image.error());
  }
  auto done = sync_wait(ring, (*image)->preallocate(0, (*image)->size(), options.effective_preallocation()));
  return done ? sync_wait(ring, (*image)->close()) : done;
}

Result<void> create_qcow2(Ring& ring, const NewImage& image, const qcow2::CreateOptions& options) {
  if (options.data_file) {
    const auto path = resolve_name(image.path, *options.data_file);
    if (!path) {
      return std::unexpected(path.error());
    }
    // As large as the disk from the beginning, as QEMU makes it.
    if (auto made = create_file(ring, *path, options.size, Preallocation::kOff); !made) {
      return made;
    }
  }
  auto file = FileDevice::create(ring, {.path = image.path});
  if (!file) {
    return std::unexpected(file.error());
  }
  auto done = sync_wait(ring, qcow2::create(**file, options));
  if (done) {
    done = sync_wait(ring, (*file)->close());
  }
  if (done && options.effective_preallocation() != Preallocation::kOff) {
    done = preallocate(ring, image.path, options);
  }
  return done;
}

}  // namespace

Result<void> create_image(Ring& ring, const NewImage& image) {
  if (image.format != "raw" && image.format != "qcow2" && image.format != "luks") {
    return fail(ErrorCode::kInvalid,
                fmt::format("{}: format '{}' is not one of raw, qcow2, luks", image.path, image.format));
  }
  if (image.format != "qcow2") {
    if (!image.size || image.qcow2.backing_file) {
      return fail(ErrorCode::kInvalid, fmt::format("{}: a new {} image needs a size, and has no backing file",
                                                   image.path, image.format));
    }
    return image.format == "raw" ? create_file(ring, image.path, *image.size, image.qcow2.preallocation)
                                 : finish(image, create_luks(ring, image));
  }
  auto options = image.qcow2;
  if (options.backing_file && !options.backing_format) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{}: the format of the backing file '{}' is never guessed, so it must be given",
                            image.path, *options.backing_file));
  }
  // Everything that can be known to be wrong is known before the old file is touched.
  if (!image.size) {
    const auto size = backing_size(ring, image);
    if (!size) {
      return std::unexpected(size.error());
    }
    options.size = *size;
  } else {
    options.size = *image.size;
  }
  if (auto ok = qcow2::check_options(options); !ok) {
    return std::unexpected(ok.error().within(image.path));
  }
  return finish(image, create_qcow2(ring, image, options));
}

}  // namespace whistler

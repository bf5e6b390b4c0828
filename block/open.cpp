#include "block/open.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <vector>

#include "block/crypto/luks_device.hpp"
#include "block/formats/drivers.hpp"
#include "block/nbd/client.hpp"
#include "block/qcow2/image.hpp"
#include "block/raw.hpp"
#include "block/uring/stoppable.hpp"
#include "block/write_policy.hpp"

namespace whistler {

namespace {

using Device = std::unique_ptr<BlockDevice>;

/// How long a guest's request waits for an NBD server that went away: a server that is started again is not
/// noticed by the guest, and one that is gone for good does not hang it.
constexpr std::chrono::seconds kReconnectDelay{5};

/// The files of a chain, from the top down, to see when one comes twice.
struct Chain {
  struct Link {
    dev_t device;
    ino_t inode;
  };
  std::vector<Link> links;

  Task<Result<void>> enter(Ring& ring, std::string path, Stop* stop) {
    auto look = [path] {
      struct stat status{};
      return ::stat(path.c_str(), &status) == 0 ? std::optional(status) : std::nullopt;
    };
    const auto looked = co_await in_thread(ring, std::move(look), stop);
    if (!looked || !*looked) {
      co_return Result<void>{};  // opening it says why
    }
    const auto& status = **looked;
    const bool seen = std::any_of(links.begin(), links.end(), [&](const Link& link) {
      return link.device == status.st_dev && link.inode == status.st_ino;
    });
    if (seen) {
      co_return fail(ErrorCode::kInvalid,
                     fmt::format("{}: is its own backing file, directly or by way of others", path));
    }
    links.push_back({status.st_dev, status.st_ino});
    co_return Result<void>{};
  }
};

FileOptions file_options(const OpenOptions& options, const std::string& path) {
  return {.path = path,
          .read_only = options.read_only,
          .cache = options.cache,
          .lock = options.lock,
          .force_share = options.force_share,
          .inline_writes = options.inline_writes};
}

/// What lies at the bottom of a layer: a host file, or a disk on an NBD server.
Task<Result<Device>> open_bottom(Ring& ring, const OpenOptions& options, const std::string& path) {
  if (!nbd::is_target(path)) {
    auto file = co_await open_file_task(ring, file_options(options, path), options.stop);
    if (!file) {
      co_return std::unexpected(file.error());
    }
    co_return std::move(*file);
  }
  const auto target = nbd::parse_target(path);
  if (!target) {
    co_return std::unexpected(target.error().within(path));
  }
  if (target->tls) {
    co_return fail(ErrorCode::kUnsupported,
                   fmt::format("{}: TLS needs credentials, which cannot be given here", path));
  }
  nbd::ClientOptions wanted;
  wanted.address = target->address;
  wanted.export_name = target->export_name;
  wanted.read_only = options.read_only;
  wanted.reconnect_delay = kReconnectDelay;
  wanted.stop = options.stop;
  wanted.let_go = options.let_go;
  auto client = co_await nbd::Client::open(ring, std::move(wanted));
  if (!client) {
    co_return std::unexpected(client.error().within(path));
  }
  if (!options.read_only && (*client)->read_only()) {
    (void)co_await (*client)->close();
    co_return fail(ErrorCode::kPermission, fmt::format("{}: the server lets nobody write to it", path));
  }
  co_return std::move(*client);
}

/// A name that the image of `options` stores, if it may be followed.
Result<std::string> stored_path(const OpenOptions& options, const std::string& stored) {
  auto path = resolve_name(options.path, stored);
  if (path && nbd::is_target(*path) && !options.allow_remote) {
    return fail(
        ErrorCode::kPermission,
        fmt::format("{}: refers to '{}' on a server, which an image may not do by itself: allow it with the "
                    "drive's \"remote_backing\"",
                    options.path, stored));
  }
  return path;
}

Task<Result<Device>> open_layer(Ring& ring, OpenOptions options, Chain& chain);

Task<Result<Device>> open_backing(Ring& ring, OpenOptions options, const qcow2::Header& header,
                                  Chain& chain) {
  auto path = stored_path(options, *header.backing_file);
  if (!path) {
    co_return std::unexpected(path.error());
  }
  auto format = header.backing_format().value_or(options.backing_format);
  if (format.empty()) {
    co_return fail(ErrorCode::kInvalid, fmt::format("{}: names the backing file '{}' but not its format, "
                                                    "which is never guessed: give the backing format, or "
                                                    "store it with rebase -u -F",
                                                    options.path, *header.backing_file));
  }
  auto below = options;
  below.path = *path;
  below.format = format;
  below.read_only = true;
  auto device = co_await open_layer(ring, below, chain);
  if (!device) {
    co_return std::unexpected(device.error().within(fmt::format("backing file of {}", options.path)));
  }
  co_return device;
}

std::unexpected<Error> needs_password(const OpenOptions& options) {
  return fail(ErrorCode::kPermission,
              fmt::format("{}: the image is encrypted, so its password must be given", options.path));
}

Task<Result<Device>> open_luks(Ring& ring, const OpenOptions& options, Device file) {
  auto volume = co_await crypto::LuksDevice::open(std::move(file));
  if (!volume) {
    co_return std::unexpected(volume.error().within(options.path));
  }
  if (!options.password) {
    co_return needs_password(options);
  }
  auto unlocked = co_await (*volume)->luks().unlock(*options.password, &ring, options.stop);
  if (!unlocked) {
    co_return std::unexpected(unlocked.error().within(options.path));
  }
  co_return Device(std::move(*volume));
}

Task<Result<Device>> open_qcow2(Ring& ring, const OpenOptions& options, Device file, Chain& chain) {
  auto opened =
      co_await qcow2::Image::open(std::move(file), {.read_only = options.read_only,
                                                    .metadata_cache_bytes = options.metadata_cache_bytes,
                                                    .discard = options.discard});
  if (!opened) {
    co_return std::unexpected(opened.error());
  }
  auto image = std::move(*opened);
  if (image->encrypted()) {
    if (!options.password) {
      co_return needs_password(options);
    }
    auto unlocked = co_await image->unlock(*options.password, &ring, options.stop);
    if (!unlocked) {
      co_return std::unexpected(unlocked.error().within(options.path));
    }
  }
  const auto& header = image->header();
  const bool needs_data_file = header.geometry().external_data;
  if (!options.allow_backing && ((header.backing_file && !options.ignore_backing) || needs_data_file)) {
    co_return fail(ErrorCode::kPermission,
                   fmt::format("{}: refers to the file '{}', which is not allowed here", options.path,
                               header.backing_file ? *header.backing_file : header.data_file().value_or("")));
  }
  if (needs_data_file) {
    const auto stored = header.data_file();
    if (!stored) {
      co_return fail(ErrorCode::kInvalid,
                     fmt::format("{}: keeps its data in another file, but does not name it", options.path));
    }
    auto path = stored_path(options, *stored);
    if (!path) {
      co_return std::unexpected(path.error());
    }
    auto data_file = co_await open_bottom(ring, options, *path);
    if (!data_file) {
      co_return std::unexpected(data_file.error().within(fmt::format("data file of {}", options.path)));
    }
    image->set_data_file(std::move(*data_file));
  }
  if (header.backing_file && !options.ignore_backing) {
    auto backing = co_await open_backing(ring, options, header, chain);
    if (!backing) {
      co_return std::unexpected(backing.error());
    }
    image->set_backing(std::move(*backing));
  }
  auto prepared = co_await image->prepare();
  if (!prepared) {
    co_return std::unexpected(prepared.error());
  }
  co_return Device(std::move(image));
}

Task<Result<Device>> open_other(Ring& ring, OpenOptions options, Device file, Chain& chain) {
  auto image = co_await formats::open_foreign(ring, std::move(file), options.format, options.allow_backing);
  if (!image) {
    co_return std::unexpected(image.error());
  }
  if (!options.read_only && (*image)->read_only()) {
    co_return fail(
        ErrorCode::kUnsupported,
        fmt::format("{}: {} images can only be read: open it read-only, or make an overlay over it",
                    options.path, options.format));
  }
  const auto stored = (*image)->backing_name();
  if (!stored || options.ignore_backing) {
    co_return Device(std::move(*image));
  }
  if (!options.allow_backing) {
    co_return fail(
        ErrorCode::kPermission,
        fmt::format("{}: refers to the file '{}', which is not allowed here", options.path, *stored));
  }
  auto path = stored_path(options, *stored);
  if (!path) {
    co_return std::unexpected(path.error());
  }
  auto below = options;
  below.path = *path;
  below.read_only = true;
  auto parent = co_await open_layer(ring, below, chain);
  if (!parent) {
    co_return std::unexpected(parent.error().within(fmt::format("parent of {}", options.path)));
  }
  if (auto joined = formats::join_parent(**image, std::move(*parent)); !joined) {
    co_return std::unexpected(joined.error());
  }
  co_return Device(std::move(*image));
}

Task<Result<Device>> open_layer(Ring& ring, OpenOptions options, Chain& chain) {
  const bool foreign = formats::is_foreign_format(options.format);
  if (options.format != "raw" && options.format != "qcow2" && options.format != "luks" && !foreign) {
    co_return fail(
        ErrorCode::kInvalid,
        fmt::format("{}: format '{}' is not one of raw, qcow2, luks, vdi, vmdk, vpc, vhdx; it is never "
                    "guessed, so it must be given",
                    options.path, options.format));
  }
  auto entered = co_await chain.enter(ring, options.path, options.stop);
  if (!entered) {
    co_return std::unexpected(entered.error());
  }
  auto file = co_await open_bottom(ring, options, options.path);
  if (!file) {
    co_return std::unexpected(file.error());
  }
  if (options.format == "raw") {
    co_return std::make_unique<RawDevice>(std::move(*file));
  }
  if (options.format == "luks") {
    auto volume = co_await open_luks(ring, options, std::move(*file));
    co_return volume;
  }
  if (foreign) {
    auto image = co_await open_other(ring, options, std::move(*file), chain);
    co_return image;
  }
  auto image = co_await open_qcow2(ring, options, std::move(*file), chain);
  co_return image;
}

}  // namespace

Result<std::string> resolve_name(const std::string& image, std::string name) {
  if (nbd::is_target(name)) {
    return name;
  }
  if (name.starts_with("file:")) {
    name.erase(0, 5);
  } else if (const auto colon = name.find(':'); colon != std::string::npos && name.find('/') > colon) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("{}: refers to '{}', which is not a file name", image, name));
  }
  const std::filesystem::path path(name);
  return path.is_absolute() ? name : (std::filesystem::path(image).parent_path() / path).string();
}

Task<Result<Device>> open_image_task(Ring& ring, OpenOptions options) {
  Chain chain;
  auto image = co_await open_layer(ring, options, chain);
  if (image && (is_writethrough(options.cache) || options.detect_zeroes != DetectZeroes::kOff)) {
    co_return std::make_unique<WritePolicy>(std::move(*image), is_writethrough(options.cache),
                                            options.detect_zeroes);
  }
  co_return image;
}

Result<Device> open_image(Ring& ring, const OpenOptions& options) {
  return sync_wait(ring, open_image_task(ring, options));
}

}  // namespace whistler

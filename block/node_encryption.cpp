#include "block/node_encryption.hpp"

#include <fmt/format.h>

#include "block/crypto/key_options.hpp"
#include "block/crypto/luks_device.hpp"

namespace whistler {

namespace {

crypto::OptionLookup lookup_in(const Options& options) {
  return [&options](const std::string& name) { return option_text(options, name); };
}

int probe_luks(std::span<const std::uint8_t> start, std::string_view) {
  // Version 1 alone; 2 is another format.
  return start.size() >= 8 && crypto::looks_like_luks(start) && start[6] == 0 && start[7] == 1 ? 100 : 0;
}

Task<Result<std::unique_ptr<BlockDevice>>> open_luks(Ring&, std::unique_ptr<BlockDevice> file,
                                                     Options& options, NodeFlags flags, Node& node) {
  const auto id = option_text(options, "key-secret");
  std::optional<Result<crypto::Secret>> password;
  if (!flags.no_io) {
    password = crypto::key_secret(lookup_in(options), flags.secrets, "");
    if (!*password) {
      co_return std::unexpected(password->error());
    }
  }
  options.erase("key-secret");
  auto volume = co_await crypto::LuksDevice::open(std::move(file));
  if (!volume) {
    co_return std::unexpected(volume.error());
  }
  if (password) {
    auto unlocked = co_await (*volume)->luks().unlock(**password);
    if (!unlocked) {
      co_return std::unexpected(unlocked.error());
    }
  }
  node.luks = volume->get();
  if (id) {
    node.full_options["key-secret"] = *id;
    node.exact_filename.clear();
    node.filename = "json:" + print_json(node.full_options, false);
  }
  co_return std::unique_ptr<BlockDevice>(std::move(*volume));
}

/// The text of QEMU for a format in the options that is not the image's.
Result<void> check_format(const qcow2::Image& image, const Options& encrypt) {
  const auto format = option_text(encrypt, "format");
  if (!image.encrypted()) {
    return format ? fail(ErrorCode::kInvalid,
                         fmt::format("No encryption in image header, but options specified format '{}'",
                                     *format))
                  : Result<void>{};
  }
  const std::string_view stored = image.luks_header() != nullptr ? "luks" : "aes";
  if (format && *format != stored) {
    return fail(
        ErrorCode::kInvalid,
        fmt::format("Header reported '{}' encryption format but options specify '{}'", stored, *format));
  }
  for (const auto& [key, value] : encrypt.items()) {
    if (key != "format" && key != "key-secret") {
      return fail(ErrorCode::kInvalid, fmt::format("Parameter '{}' is unexpected", key));
    }
  }
  return {};
}

}  // namespace

FormatDriver luks_format() { return {.name = "luks", .probe = probe_luks, .open = open_luks}; }

Task<Result<void>> unlock_image(qcow2::Image& image, Options encrypt, NodeFlags flags, Options& own) {
  if (!encrypt.is_object()) {
    co_return fail(ErrorCode::kInvalid, "Invalid parameter type for 'encrypt', expected: object");
  }
  if (auto ok = check_format(image, encrypt); !ok) {
    co_return ok;
  }
  for (const auto& [key, value] : encrypt.items()) {
    own["encrypt." + key] = value;
  }
  if (!image.encrypted() || flags.no_io) {
    co_return Result<void>{};
  }
  auto password = crypto::key_secret(lookup_in(encrypt), flags.secrets, "encrypt.");
  if (!password) {
    co_return std::unexpected(password.error());
  }
  auto unlocked = co_await image.unlock(*password);
  co_return unlocked;
}

}  // namespace whistler

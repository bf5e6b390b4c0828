#include "tools/img/encryption.hpp"

#include <fmt/format.h>

#include <array>
#include <system_error>

#include "block/crypto/key_options.hpp"
#include "block/crypto/luks_device.hpp"
#include "block/qcow2/image.hpp"
#include "tools/img/opening.hpp"
#include "tools/objects.hpp"

namespace whistler::tools {

namespace {

using enum OptionType;

constexpr std::array kLuksOptions = {
    OptionSpec{"size", kSize, "", "Virtual disk size"},
    OptionSpec{"key-secret", kText, "", "ID of the secret that provides the keyslot passphrase"},
    OptionSpec{"cipher-alg", kText, "", "Name of encryption cipher algorithm"},
    OptionSpec{"cipher-mode", kText, "", "Name of encryption cipher mode"},
    OptionSpec{"ivgen-alg", kText, "", "Name of IV generator algorithm"},
    OptionSpec{"ivgen-hash-alg", kText, "", "Name of IV generator hash algorithm"},
    OptionSpec{"hash-alg", kText, "", "Name of encryption hash algorithm"},
    OptionSpec{"iter-time", kNumber, "", "Time to spend in PBKDF in milliseconds"}};

constexpr std::array kLuksAmendOptions = {
    OptionSpec{"state", kText, "", "Select new state of affected keyslots (active/inactive)"},
    OptionSpec{"keyslot", kNumber, "", "Select a single keyslot to modify explicitly"},
    OptionSpec{"old-secret", kText, "", "Select all keyslots that match this password"},
    OptionSpec{"new-secret", kText, "", "New secret to set in the matching keyslots. Empty string to erase"},
    OptionSpec{"iter-time", kNumber, "", "Time to spend in PBKDF in milliseconds"}};

std::unexpected<Error> refuse(std::string text) { return fail(ErrorCode::kInvalid, std::move(text)); }

crypto::OptionLookup lookup_in(const Options& values, const std::string& prefix) {
  return [&values, prefix](const std::string& name) { return option_text(values, prefix + name); };
}

/// Those that begin with "encrypt."; the first one's name.
std::optional<std::string> first_of_encryption(const Options& values, bool beyond_key = false) {
  for (const auto& [name, value] : values.items()) {
    const bool key = name == "encrypt.format" || name == "encrypt.key-secret";
    if (name.starts_with("encrypt.") && !(beyond_key && key)) {
      return name;
    }
  }
  return std::nullopt;
}

struct NewLuks {
  crypto::LuksOptions options;
  crypto::Secret password;
};

Result<NewLuks> read_new_luks(const Options& values) {
  const auto option = lookup_in(values, "");
  auto options = crypto::parse_luks_options(option);
  if (!options) {
    return std::unexpected(options.error());
  }
  auto password = crypto::key_secret(option, &secrets(), "");
  if (!password) {
    return std::unexpected(password.error());
  }
  return NewLuks{std::move(*options), std::move(*password)};
}

Result<void> create_luks(Ring& ring, const std::string& filename, const Options& values) {
  auto luks = read_new_luks(values);
  if (!luks) {
    return std::unexpected(luks.error());
  }
  NewImage image{.path = host_path(filename),
                 .format = "luks",
                 .size = option_size(values, "size").value_or(std::nullopt).value_or(0),
                 .luks = std::move(luks->options),
                 .password = std::move(luks->password)};
  auto done = create_image(ring, image);
  if (!done && done.error().brief.empty() && done.error().sys_errno != 0) {
    done.error().brief = fmt::format("Could not create '{}': {}", image.path,
                                     std::generic_category().message(done.error().sys_errno));
  }
  return done;
}

}  // namespace

Result<std::uint64_t> luks_header_bytes(const Options& values) {
  const auto luks = read_new_luks(values);
  if (!luks) {
    return std::unexpected(luks.error());
  }
  return crypto::Luks::payload_offset(luks->options);
}

ImageFormat luks_image_format() { return {"luks", kLuksOptions, create_luks, kLuksAmendOptions}; }

Result<std::optional<qcow2::EncryptionOptions>> read_encryption(const Options& values) {
  const auto old_flag = values.find("encryption");
  auto format = option_text(values, "encrypt.format");
  if (old_flag != values.end() && format) {
    return refuse("'encrypt.format' and its alias 'encryption' can't be used at the same time");
  }
  if (old_flag != values.end() && old_flag->get<bool>()) {
    format = "aes";
  }
  if (!format) {
    return first_of_encryption(values) ? Result<std::optional<qcow2::EncryptionOptions>>(
                                             refuse("Parameter 'encrypt.format' is missing"))
                                       : std::optional<qcow2::EncryptionOptions>{};
  }
  if (*format != "aes" && *format != "luks") {
    return refuse(fmt::format("Parameter 'format' does not accept value '{}'", *format));
  }
  const auto option = lookup_in(values, "encrypt.");
  qcow2::EncryptionOptions encryption;
  if (*format == "luks") {
    const auto luks = crypto::parse_luks_options(option);
    if (!luks) {
      return std::unexpected(luks.error());
    }
    encryption.luks = *luks;
  } else {
    encryption.method = qcow2::CryptMethod::kAes;
    if (const auto more = first_of_encryption(values, true)) {
      return refuse(fmt::format("Parameter '{}' is unexpected", *more));
    }
  }
  auto password = crypto::key_secret(option, &secrets(), "encrypt.");
  if (!password) {
    return std::unexpected(password.error());
  }
  encryption.password = std::move(*password);
  return encryption;
}

Result<void> amend_encryption(Ring& ring, const Node& node, const Options& values, bool force) {
  const std::string prefix = node.qcow2 != nullptr ? "encrypt." : "";
  if (node.qcow2 != nullptr) {
    if (!first_of_encryption(values)) {
      return {};
    }
    if (!node.qcow2->encrypted()) {
      return refuse("Can't amend encryption options - encryption not present");
    }
    if (node.qcow2->luks_header() == nullptr) {
      return refuse("Only LUKS encryption options can be amended");
    }
  }
  auto change = crypto::parse_luks_amend(lookup_in(values, prefix), &secrets(), force);
  if (!change) {
    return std::unexpected(change.error());
  }
  return node.qcow2 != nullptr ? sync_wait(ring, node.qcow2->amend_encryption(std::move(*change)))
                               : sync_wait(ring, node.luks->luks().amend(std::move(*change)));
}

Options encryption_info(const Node& node) {
  if (node.luks != nullptr) {
    return {{"encrypted", true},
            {"format-specific", {{"type", "luks"}, {"data", crypto::describe(node.luks->header())}}}};
  }
  if (node.qcow2 == nullptr || !node.qcow2->encrypted()) {
    return nullptr;
  }
  Options encrypt = Options::object();
  if (const auto* header = node.qcow2->luks_header()) {
    encrypt = crypto::describe(*header);
    encrypt["format"] = "luks";
  } else {
    encrypt["format"] = "aes";
  }
  return {{"encrypted", true}, {"format-specific", {{"data", {{"encrypt", std::move(encrypt)}}}}}};
}

}  // namespace whistler::tools

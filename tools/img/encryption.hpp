// Encrypted images in img's commands: the options of create and amend, the format luks, what info shows.
#pragma once

#include "block/create.hpp"
#include "block/node.hpp"
#include "tools/img/formats.hpp"

namespace whistler::tools {

[[nodiscard]] ImageFormat luks_image_format();
/// What a volume of the format luks, made with these options, has in front of the disk.
[[nodiscard]] Result<std::uint64_t> luks_header_bytes(const Options& values);

/// The encryption that `create -o` asks for with "encrypt.*" or "encryption"; nothing if it does not.
[[nodiscard]] Result<std::optional<qcow2::EncryptionOptions>> read_encryption(const Options& values);

/// Adds or erases keys as `amend -o` says, if it says anything of them.
[[nodiscard]] Result<void> amend_encryption(Ring& ring, const Node& node, const Options& values, bool force);

/// What info adds for an encrypted image; null for others.
[[nodiscard]] Options encryption_info(const Node& node);

}  // namespace whistler::tools

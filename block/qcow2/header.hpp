// A qcow2 header read from hostile bytes, checked, and written back with what it did not understand kept.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "block/qcow2/format.hpp"

namespace whistler::qcow2 {

struct Extension {
  std::uint32_t type = 0;
  std::vector<std::uint8_t> data;
};

/// Where in the file the LUKS header with its key material lies: at a cluster boundary, whole clusters taken.
struct CryptoHeader {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

/// The fields of the header in host order, with the defaults a version 2 image has where it lacks them.
struct Header {
  unsigned version = 3;
  unsigned cluster_bits = 16;
  std::uint64_t size = 0;
  std::uint32_t l1_size = 0;  ///< entries
  std::uint64_t l1_table_offset = 0;
  std::uint64_t refcount_table_offset = 0;
  std::uint32_t refcount_table_clusters = 0;
  std::uint32_t nb_snapshots = 0;
  std::uint64_t snapshots_offset = 0;
  std::uint64_t incompatible = 0;
  std::uint64_t compatible = 0;
  std::uint64_t autoclear = 0;
  unsigned refcount_order = 4;
  Compression compression = Compression::kZlib;
  CryptMethod crypt_method = CryptMethod::kNone;
  /// Bytes of the fixed header in the file: 72, or what the version 3 header says.
  std::uint32_t header_length = sizeof(DiskHeader);
  std::optional<std::string> backing_file;
  std::uint64_t backing_name_offset = 0;  ///< where its name lies in the file; 0 if there is none
  std::vector<Extension> extensions;      ///< in file order, unknown ones included

  [[nodiscard]] Geometry geometry() const {
    return {.cluster_bits = cluster_bits,
            .refcount_order = refcount_order,
            .version = version,
            .extended_l2 = (incompatible & kExtendedL2) != 0,
            .external_data = (incompatible & kExternalData) != 0};
  }
  [[nodiscard]] const Extension* find_extension(std::uint32_t type) const;
  /// The text of the extension of that type.
  [[nodiscard]] std::optional<std::string> extension_text(std::uint32_t type) const;
  [[nodiscard]] std::optional<std::string> backing_format() const {
    return extension_text(kBackingFormatExtension);
  }
  [[nodiscard]] std::optional<std::string> data_file() const { return extension_text(kDataFileExtension); }
  /// Puts `data` in the place of the extension of that type, or behind all others; none if it is empty.
  void set_extension(std::uint32_t type, std::vector<std::uint8_t> data);
  void set_extension_text(std::uint32_t type, const std::string& text);
  /// Set if, and only if, the encryption is LUKS.
  [[nodiscard]] std::optional<CryptoHeader> crypto_header() const;
  void set_crypto_header(CryptoHeader place);
};

/// `bytes`: the first cluster of the file, or the file if that is shorter; more does no harm. Errors name
/// `name`, the field, its value and what is wrong with it. kUnsupported for features this engine lacks, by
/// name. `for_repair`: more snapshots than allowed are no error.
[[nodiscard]] Result<Header> parse_header(std::span<const std::uint8_t> bytes, std::uint64_t file_size,
                                          const std::string& name, bool for_repair = false);

/// The fixed fields alone, of which min(header_length, sizeof(DiskHeader)) bytes are in the file: what is
/// rewritten when a field changes.
[[nodiscard]] DiskHeader encode_fields(const Header& header);

/// The whole header with extensions and backing file name, which is given a new place. kInvalid if it does
/// not fit into a cluster.
[[nodiscard]] Result<std::vector<std::uint8_t>> encode_header(Header& header);

/// The table that lets other programs name the features of this image.
[[nodiscard]] Extension feature_names();

}  // namespace whistler::qcow2

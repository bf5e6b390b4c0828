#include "block/qcow2/header.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

namespace whistler::qcow2 {

namespace {

struct Feature {
  std::uint8_t type;  ///< 0 incompatible, 1 compatible, 2 autoclear
  std::uint8_t bit;
  std::string_view name;
};

constexpr std::array<Feature, 8> kFeatures = {{
    {0, 0, "dirty bit"},
    {0, 1, "corrupt bit"},
    {0, 2, "external data file"},
    {0, 3, "compression type"},
    {0, 4, "extended L2 entries"},
    {1, 0, "lazy refcounts"},
    {2, 0, "bitmaps"},
    {2, 1, "raw external data"},
}};
constexpr std::size_t kFeatureBytes = 48;
constexpr std::size_t kCryptoExtensionBytes = 16;

/// The names of the incompatible features this engine does not know, as the image itself names them.
std::string name_unknown_features(std::uint64_t unknown, const Header& header) {
  std::string names;
  const Extension* table = header.find_extension(kFeatureNamesExtension);
  for (unsigned bit = 0; bit < 64; ++bit) {
    if ((unknown >> bit & 1) == 0) {
      continue;
    }
    std::string name = fmt::format("bit {}", bit);
    for (std::size_t at = 0; table != nullptr && at + kFeatureBytes <= table->data.size();
         at += kFeatureBytes) {
      const std::uint8_t* entry = table->data.data() + at;
      if (entry[0] == 0 && entry[1] == bit) {
        const auto* text = reinterpret_cast<const char*>(entry + 2);
        name = fmt::format("{} (bit {})", std::string(text, ::strnlen(text, kFeatureBytes - 2)), bit);
      }
    }
    names += (names.empty() ? "" : ", ") + name;
  }
  // A name comes from the image: nothing in it may disturb a terminal.
  std::replace_if(names.begin(), names.end(), [](char c) { return c < ' ' || c == 0x7f; }, '?');
  return names;
}

/// The same as QEMU lists them: those the image names, then the others as a mask.
std::string qemu_names_of_features(std::uint64_t unknown, const Header& header) {
  std::string names;
  const Extension* found = header.find_extension(kFeatureNamesExtension);
  auto table = found == nullptr ? std::vector<std::uint8_t>() : found->data;
  table.resize(
      static_cast<std::size_t>(align_up(table.size(), kFeatureBytes)));  // the last one may be cut short
  for (std::size_t at = 0; at < table.size(); at += kFeatureBytes) {
    const std::uint8_t* entry = table.data() + at;
    if (entry[0] == 0 && entry[1] < 64 && (unknown >> entry[1] & 1) != 0) {
      const auto* text = reinterpret_cast<const char*>(entry + 2);
      names += (names.empty() ? "" : ", ") + std::string(text, ::strnlen(text, kFeatureBytes - 2));
      unknown &= ~(std::uint64_t{1} << entry[1]);
    }
  }
  std::replace_if(names.begin(), names.end(), [](char c) { return c < ' ' || c == 0x7f; }, '?');
  if (unknown != 0) {
    names += fmt::format("{}Unknown incompatible feature: {:x}", names.empty() ? "" : ", ", unknown);
  }
  return names;
}

/// What QEMU calls a table.
std::string qemu_name(std::string_view what) {
  return what == "L1 table"         ? "Active L1 table"
         : what == "refcount table" ? "Reference count table"
                                    : "Snapshot table";
}

/// The error with what QEMU's tools say.
std::unexpected<Error> told(std::unexpected<Error> error, std::string brief) {
  error.error().brief = std::move(brief);
  return error;
}

class Checker {
 public:
  Checker(std::uint64_t file_size, const std::string& name) : file_size_(file_size), name_(name) {}

  template <typename... Args>
  [[nodiscard]] std::unexpected<Error> corrupt(fmt::format_string<Args...> format, Args&&... args) const {
    return fail(ErrorCode::kCorrupt,
                name_ + ": qcow2 header: " + fmt::format(format, std::forward<Args>(args)...));
  }

  /// Whether a table of `bytes` bytes at `offset` is aligned and inside the file.
  [[nodiscard]] Result<void> table(std::string_view what, std::uint64_t offset, std::uint64_t bytes,
                                   const Geometry& geometry) const {
    if (geometry.in_cluster(offset) != 0) {
      return told(corrupt("the {} at offset {:#x} is not at a cluster boundary", what, offset),
                  qemu_name(what) + " offset invalid");
    }
    if (offset == 0) {
      return told(corrupt("the {} is at offset 0, where the header is", what),
                  qemu_name(what) + " offset invalid");
    }
    if (offset > file_size_ || bytes > file_size_ - offset) {
      return told(corrupt("the {} ({} bytes at offset {:#x}) reaches beyond the end of the file ({} bytes)",
                          what, bytes, offset, file_size_),
                  offset > kMaxHostOffset ? qemu_name(what) + " offset invalid"
                                          : "Could not read " + qemu_name(what));
    }
    return {};
  }

 private:
  std::uint64_t file_size_;
  const std::string& name_;
};

Result<void> parse_extensions(std::span<const std::uint8_t> area, std::size_t start, Header& header,
                              const Checker& check) {
  std::size_t at = start;
  while (at + 8 <= area.size()) {
    const auto type = load_be<std::uint32_t>(&area[at]);
    const std::size_t length = load_be<std::uint32_t>(&area[at + 4]);
    at += 8;
    if (length > area.size() - at) {
      return told(check.corrupt(
                      "the extension {:#010x} at offset {:#x} has {} bytes, more than the header area holds",
                      type, at - 8, length),
                  "Header extension too large");
    }
    if (type == kEndOfExtensions) {
      return {};
    }
    const auto data = area.subspan(at, length);
    if (type == kBackingFormatExtension) {  // of several the last one counts
      std::erase_if(header.extensions, [=](const Extension& e) { return e.type == type; });
    }
    header.extensions.push_back({type, {data.begin(), data.end()}});
    at += static_cast<std::size_t>(align_up(length, 8));
  }
  if (at < area.size()) {
    return told(check.corrupt("the header area ends within the extension at offset {:#x}", at),
                "Header extension too large");
  }
  return {};
}

Result<void> check_tables(const Header& header, const Checker& check, bool for_repair) {
  const auto geometry = header.geometry();
  const std::uint64_t l1_bytes = std::uint64_t{header.l1_size} * 8;
  if (l1_bytes > kMaxL1Bytes) {
    return told(check.corrupt("the L1 table has {} entries, more than the allowed {}", header.l1_size,
                              kMaxL1Bytes / 8),
                "Active L1 table too large");
  }
  if (geometry.l1_entries_for(header.size) > INT32_MAX) {
    return told(check.corrupt("a disk of {} bytes is more than any L1 table can map", header.size),
                "Image is too big");
  }
  if (geometry.l1_entries_for(header.size) > header.l1_size) {
    return told(check.corrupt("the L1 table has {} entries, too few for a disk of {} bytes", header.l1_size,
                              header.size),
                "L1 table is too small");
  }
  if (header.l1_size != 0) {
    if (auto ok = check.table("L1 table", header.l1_table_offset, l1_bytes, geometry); !ok) {
      return ok;
    }
  }
  if (header.refcount_table_clusters == 0) {
    return told(check.corrupt("there is no refcount table"),
                "Image does not contain a reference count table");
  }
  const std::uint64_t table_bytes = std::uint64_t{header.refcount_table_clusters} << header.cluster_bits;
  if (table_bytes > kMaxRefcountTableBytes) {
    return told(check.corrupt("the refcount table has {} bytes, more than the allowed {}", table_bytes,
                              kMaxRefcountTableBytes),
                "Reference count table too large");
  }
  if (auto ok = check.table("refcount table", header.refcount_table_offset, table_bytes, geometry); !ok) {
    return ok;
  }
  if (header.nb_snapshots > kMaxSnapshots && !for_repair) {
    return told(check.corrupt("{} snapshots are more than the allowed {}; check -r all leaves the rest out",
                              header.nb_snapshots, kMaxSnapshots),
                "Snapshot table too large");
  }
  if (geometry.in_cluster(header.snapshots_offset) != 0) {
    return told(check.corrupt("the snapshot table at offset {:#x} is not at a cluster boundary",
                              header.snapshots_offset),
                "Snapshot table offset invalid");
  }
  if (header.nb_snapshots != 0) {
    return check.table("snapshot table", header.snapshots_offset,
                       std::uint64_t{header.nb_snapshots} * sizeof(DiskSnapshot), geometry);
  }
  return {};
}

Result<void> check_features(const Header& header, const std::string& name, const Checker& check) {
  if (const auto unknown = header.incompatible & ~kKnownIncompatible; unknown != 0) {
    return told(fail(ErrorCode::kUnsupported,
                     fmt::format("{}: the image needs qcow2 features this program does not have: {}", name,
                                 name_unknown_features(unknown, header))),
                "Unsupported qcow2 feature(s): " + qemu_names_of_features(unknown, header));
  }
  if (header.refcount_order > kMaxRefcountOrder) {
    return told(check.corrupt("the refcount order {} is more than the allowed {}", header.refcount_order,
                              kMaxRefcountOrder),
                "Reference count entry width too large; may not exceed 64 bits");
  }
  if ((header.incompatible & kExtendedL2) != 0 && header.cluster_bits < kMinExtendedL2ClusterBits) {
    return check.corrupt("extended L2 entries need clusters of at least 16384 bytes, not {}",
                         1U << header.cluster_bits);
  }
  if (static_cast<unsigned>(header.compression) > static_cast<unsigned>(Compression::kZstd)) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("{}: the compression type {} is neither 0 (zlib) nor 1 (zstd)", name,
                            static_cast<unsigned>(header.compression)));
  }
  if ((header.compression != Compression::kZlib) != ((header.incompatible & kCompressionType) != 0)) {
    return check.corrupt("the compression type {} and its feature bit contradict each other",
                         static_cast<unsigned>(header.compression));
  }
  return {};
}

/// The field and the extension agree, and what the extension names is inside the file.
Result<void> check_encryption(const Header& header, std::uint64_t file_size, const Checker& check) {
  const auto* extension = header.find_extension(kCryptoExtension);
  if (static_cast<unsigned>(header.crypt_method) > static_cast<unsigned>(CryptMethod::kLuks)) {
    return check.corrupt("Unsupported encryption method {}", static_cast<unsigned>(header.crypt_method));
  }
  if (header.crypt_method != CryptMethod::kLuks) {
    return extension == nullptr
               ? Result<void>{}
               : check.corrupt("CRYPTO header extension only expected with LUKS encryption method");
  }
  if (extension == nullptr) {
    return check.corrupt("Missing CRYPTO header for crypt method 2");
  }
  const auto place = header.crypto_header();
  if (!place) {
    return check.corrupt("CRYPTO header extension size {}, but expected size {}", extension->data.size(),
                         kCryptoExtensionBytes);
  }
  if (header.geometry().in_cluster(place->offset) != 0) {
    return check.corrupt("Encryption header offset '{}' is not a multiple of cluster size '{}'",
                         place->offset, header.geometry().cluster_size());
  }
  if (place->bytes > kMaxCryptoHeaderBytes || place->offset == 0 || place->offset > file_size ||
      place->bytes > file_size - place->offset) {
    return check.corrupt("the encryption header ({} bytes at offset {:#x}) is not inside the file ({} bytes)",
                         place->bytes, place->offset, file_size);
  }
  return {};
}

}  // namespace

const Extension* Header::find_extension(std::uint32_t type) const {
  const auto found =
      std::find_if(extensions.begin(), extensions.end(), [=](const Extension& e) { return e.type == type; });
  return found == extensions.end() ? nullptr : &*found;
}

std::optional<std::string> Header::extension_text(std::uint32_t type) const {
  const Extension* found = find_extension(type);
  if (found == nullptr) {
    return std::nullopt;
  }
  return std::string(found->data.begin(), found->data.end());
}

void Header::set_extension_text(std::uint32_t type, const std::string& text) {
  set_extension(type, {text.begin(), text.end()});
}

void Header::set_extension(std::uint32_t type, std::vector<std::uint8_t> data) {
  const auto found =
      std::find_if(extensions.begin(), extensions.end(), [=](const Extension& e) { return e.type == type; });
  if (data.empty()) {
    std::erase_if(extensions, [=](const Extension& e) { return e.type == type; });
  } else if (found != extensions.end()) {
    found->data = std::move(data);
  } else {
    extensions.push_back({type, std::move(data)});
  }
}

std::optional<CryptoHeader> Header::crypto_header() const {
  const auto* found = crypt_method == CryptMethod::kLuks ? find_extension(kCryptoExtension) : nullptr;
  if (found == nullptr || found->data.size() != kCryptoExtensionBytes) {
    return std::nullopt;
  }
  return CryptoHeader{load_be<std::uint64_t>(&found->data[0]), load_be<std::uint64_t>(&found->data[8])};
}

void Header::set_crypto_header(CryptoHeader place) {
  std::erase_if(extensions, [](const Extension& e) { return e.type == kCryptoExtension; });
  Extension extension{kCryptoExtension, std::vector<std::uint8_t>(kCryptoExtensionBytes)};
  store_be<std::uint64_t>(&extension.data[0], place.offset);
  store_be<std::uint64_t>(&extension.data[8], place.bytes);
  extensions.push_back(std::move(extension));
}

Result<Header> parse_header(std::span<const std::uint8_t> bytes, std::uint64_t file_size,
                            const std::string& name, bool for_repair) {
  const Checker check(file_size, name);
  DiskHeader disk;
  if (!bytes.empty()) {
    std::memcpy(&disk, bytes.data(), std::min(bytes.size(), sizeof disk));
  }
  if (bytes.size() < 8 || disk.magic != kMagic) {
    return told(fail(ErrorCode::kInvalid,
                     fmt::format("{}: is not a qcow2 image (it does not begin with 'QFI\\xfb')", name)),
                "Image is not in qcow2 format");
  }
  if (disk.version != 2 && disk.version != 3) {
    return told(fail(ErrorCode::kUnsupported, fmt::format("{}: qcow2 version {} is neither 2 nor 3", name,
                                                          std::uint32_t{disk.version})),
                fmt::format("Unsupported qcow2 version {}", std::uint32_t{disk.version}));
  }
  Header header;
  header.version = disk.version;
  if (bytes.size() < (header.version == 2 ? kHeaderV2Bytes : kHeaderV3Bytes)) {
    return check.corrupt("the file ends within it, after {} bytes", bytes.size());
  }
  header.cluster_bits = disk.cluster_bits;
  if (header.cluster_bits < kMinClusterBits || header.cluster_bits > kMaxClusterBits) {
    return told(check.corrupt("cluster bits {} are not between {} and {}", header.cluster_bits,
                              kMinClusterBits, kMaxClusterBits),
                fmt::format("Unsupported cluster size: 2^{}", header.cluster_bits));
  }
  header.size = disk.size;
  header.l1_size = disk.l1_size;
  header.l1_table_offset = disk.l1_table_offset;
  header.refcount_table_offset = disk.refcount_table_offset;
  header.refcount_table_clusters = disk.refcount_table_clusters;
  header.nb_snapshots = disk.nb_snapshots;
  header.snapshots_offset = disk.snapshots_offset;
  // A value too large for the type is as unknown as 255.
  header.crypt_method = static_cast<CryptMethod>(std::min<std::uint32_t>(disk.crypt_method, 255));
  header.header_length = kHeaderV2Bytes;
  const auto cluster_size = std::size_t{1} << header.cluster_bits;
  const auto area = bytes.first(std::min(bytes.size(), cluster_size));
  if (header.version >= 3) {
    header.incompatible = disk.incompatible_features;
    header.compatible = disk.compatible_features;
    header.autoclear = disk.autoclear_features;
    header.refcount_order = disk.refcount_order;
    header.header_length = disk.header_length;
    if (header.header_length < kHeaderV3Bytes || header.header_length > area.size() ||
        header.header_length % 8 != 0) {
      return told(check.corrupt("the header length {} is not a multiple of 8 between {} and the cluster size",
                                header.header_length, kHeaderV3Bytes),
                  header.header_length < kHeaderV3Bytes ? "qcow2 header too short"
                                                        : "qcow2 header exceeds cluster size");
    }
    if (header.header_length > kHeaderV3Bytes) {
      header.compression = static_cast<Compression>(disk.compression_type);
    }
  }
  const std::uint64_t backing_at = disk.backing_file_offset;
  const std::uint32_t backing_length = disk.backing_file_size;
  if (backing_at != 0) {
    if (backing_length > kMaxBackingNameBytes || backing_at < header.header_length ||
        backing_at > area.size() || backing_length > area.size() - backing_at) {
      return told(check.corrupt("the backing file name ({} bytes at offset {:#x}) is not inside the first "
                                "cluster, or longer than "
                                "{} bytes",
                                backing_length, backing_at, kMaxBackingNameBytes),
                  backing_at > area.size() ? "Invalid backing file offset" : "Backing file name too long");
    }
    header.backing_file.emplace(reinterpret_cast<const char*>(bytes.data()) + backing_at, backing_length);
    if (header.backing_file->find('\0') != std::string::npos) {
      return check.corrupt("the backing file name at offset {:#x} contains a zero byte", backing_at);
    }
    header.backing_name_offset = backing_at;
    if (header.backing_file->empty()) {
      header.backing_file.reset();
    }
  }
  const auto extensions_end = backing_at != 0 ? static_cast<std::size_t>(backing_at) : area.size();
  if (auto ok = parse_extensions(area.first(extensions_end), header.header_length, header, check); !ok) {
    return std::unexpected(ok.error());
  }
  if (auto ok = check_features(header, name, check); !ok) {
    return std::unexpected(ok.error());
  }
  if (auto ok = check_encryption(header, file_size, check); !ok) {
    return std::unexpected(ok.error());
  }
  if (auto ok = check_tables(header, check, for_repair); !ok) {
    return std::unexpected(ok.error());
  }
  return header;
}

namespace {

/// In the order in which QEMU writes them, with those it does not know behind.
constexpr std::array kKnownExtensions = {kBackingFormatExtension, kDataFileExtension, kCryptoExtension,
                                         kFeatureNamesExtension, kBitmapsExtension};

/// Bytes of the extensions with their end mark.
std::size_t extensions_bytes(const Header& header) {
  std::size_t bytes = 8;
  for (const auto& extension : header.extensions) {
    bytes += 8 + static_cast<std::size_t>(align_up(extension.data.size(), 8));
  }
  return bytes;
}

}  // namespace

DiskHeader encode_fields(const Header& header) {
  DiskHeader disk;
  disk.magic = kMagic;
  disk.version = header.version;
  if (header.backing_file) {
    disk.backing_file_offset = header.backing_name_offset;
    disk.backing_file_size = static_cast<std::uint32_t>(header.backing_file->size());
  }
  disk.cluster_bits = header.cluster_bits;
  disk.size = header.size;
  disk.crypt_method = static_cast<std::uint32_t>(header.crypt_method);
  disk.l1_size = header.l1_size;
  disk.l1_table_offset = header.l1_table_offset;
  disk.refcount_table_offset = header.refcount_table_offset;
  disk.refcount_table_clusters = header.refcount_table_clusters;
  disk.nb_snapshots = header.nb_snapshots;
  disk.snapshots_offset = header.snapshots_offset;
  disk.incompatible_features = header.incompatible;
  disk.compatible_features = header.compatible;
  disk.autoclear_features = header.autoclear;
  disk.refcount_order = header.refcount_order;
  disk.header_length = header.header_length;
  disk.compression_type = static_cast<std::uint8_t>(header.compression);
  return disk;
}

Result<std::vector<std::uint8_t>> encode_header(Header& header) {
  header.backing_name_offset = header.backing_file ? header.header_length + extensions_bytes(header) : 0;
  const auto fields = encode_fields(header);
  const auto name_bytes = header.backing_file ? header.backing_file->size() : 0;
  const auto bytes = header.header_length + extensions_bytes(header) + name_bytes;
  if (bytes > (std::size_t{1} << header.cluster_bits) || name_bytes > kMaxBackingNameBytes) {
    return fail(ErrorCode::kInvalid,
                "the backing file name and the header extensions do not fit into the first cluster");
  }
  std::vector<std::uint8_t> out(bytes);
  std::memcpy(out.data(), &fields, std::min<std::size_t>(sizeof fields, header.header_length));
  std::size_t at = header.header_length;
  const auto put = [&](const Extension& extension) {
    store_be<std::uint32_t>(&out[at], extension.type);
    store_be<std::uint32_t>(&out[at + 4], static_cast<std::uint32_t>(extension.data.size()));
    std::copy(extension.data.begin(), extension.data.end(),
              out.begin() + static_cast<std::ptrdiff_t>(at + 8));
    at += 8 + static_cast<std::size_t>(align_up(extension.data.size(), 8));
  };
  for (const auto type : kKnownExtensions) {
    if (const auto* known = header.find_extension(type)) {
      put(*known);
    }
  }
  for (const auto& extension : header.extensions) {
    if (std::find(kKnownExtensions.begin(), kKnownExtensions.end(), extension.type) ==
        kKnownExtensions.end()) {
      put(extension);
    }
  }
  at += 8;  // the end mark is zeroes
  if (header.backing_file) {
    std::copy(header.backing_file->begin(), header.backing_file->end(),
              out.begin() + static_cast<std::ptrdiff_t>(at));
  }
  return out;
}

Extension feature_names() {
  Extension table{kFeatureNamesExtension, std::vector<std::uint8_t>(kFeatures.size() * kFeatureBytes)};
  std::size_t at = 0;
  for (const auto& feature : kFeatures) {
    table.data[at] = feature.type;
    table.data[at + 1] = feature.bit;
    std::copy(feature.name.begin(), feature.name.end(),
              table.data.begin() + static_cast<std::ptrdiff_t>(at + 2));
    at += kFeatureBytes;
  }
  return table;
}

}  // namespace whistler::qcow2

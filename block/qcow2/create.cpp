#include "block/qcow2/create.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

namespace whistler::qcow2 {

namespace {

Result<Header> make_header(const CreateOptions& options) {
  const auto invalid = [](std::string why) { return fail(ErrorCode::kInvalid, std::move(why)); };
  if (options.version != 2 && options.version != 3) {
    return invalid(fmt::format("qcow2 version {} is neither 2 nor 3", options.version));
  }
  if (!std::has_single_bit(options.cluster_size) || options.cluster_size < 1U << kMinClusterBits ||
      options.cluster_size > 1U << kMaxClusterBits) {
    return invalid(
        fmt::format("a cluster size of {} is not a power of two between 512 and 2M", options.cluster_size));
  }
  if (!std::has_single_bit(options.refcount_bits) || options.refcount_bits > 64) {
    return invalid(
        fmt::format("refcounts of {} bits: the width must be a power of two and may not exceed 64 bits",
                    options.refcount_bits));
  }
  if (options.version < 3 && (options.refcount_bits != 16 || options.lazy_refcounts || options.extended_l2 ||
                              options.data_file || options.compression != Compression::kZlib)) {
    return invalid(
        "refcount widths other than 16 bits, lazy refcounts, extended L2 entries, external data files and "
        "compression types need version 3");
  }
  if (options.extended_l2 && options.cluster_size < 1U << kMinExtendedL2ClusterBits) {
    return invalid("extended L2 entries need a cluster size of at least 16k");
  }
  if (options.data_file && options.backing_file && options.data_file_raw) {
    return invalid("a raw external data file and a backing file exclude each other");
  }
  if (options.preallocation != Preallocation::kOff && options.backing_file && !options.extended_l2) {
    return invalid(
        "Backing file and preallocation can only be used at the same time if extended_l2 is enabled");
  }
  if (options.data_file_raw && !options.data_file) {
    return invalid("a raw external data file needs the name of that file");
  }
  if (options.backing_format && !options.backing_file) {
    return invalid("a backing format needs a backing file");
  }
  Header header;
  header.version = options.version;
  header.cluster_bits = static_cast<unsigned>(std::countr_zero(options.cluster_size));
  header.size = align_up(options.size, kSector);
  header.refcount_order = static_cast<unsigned>(std::countr_zero(options.refcount_bits));
  header.compression = options.compression;
  header.header_length = options.version < 3 ? kHeaderV2Bytes : sizeof(DiskHeader);
  header.compatible = options.lazy_refcounts ? kLazyRefcounts : 0;
  header.incompatible = (options.extended_l2 ? kExtendedL2 : 0) | (options.data_file ? kExternalData : 0) |
                        (options.compression != Compression::kZlib ? kCompressionType : 0);
  header.autoclear = options.data_file_raw ? kRawExternalData : 0;
  header.backing_file = options.backing_file;
  header.set_extension_text(kBackingFormatExtension, options.backing_format.value_or(""));
  header.set_extension_text(kDataFileExtension, options.data_file.value_or(""));
  if (options.version >= 3) {
    header.extensions.push_back(feature_names());
  }
  return header;
}

Task<Result<void>> write(BlockDevice& file, std::uint64_t offset, std::vector<std::uint8_t>& bytes) {
  const iovec vec{bytes.data(), bytes.size()};
  auto written = co_await file.writev(offset, {&vec, 1});
  co_return written;
}

}  // namespace

Result<void> check_options(const CreateOptions& options) {
  const auto header = make_header(options);
  if (!header) {
    return std::unexpected(header.error());
  }
  const auto geometry = header->geometry();
  if (options.size > kMaxHostOffset || geometry.l1_entries_for(header->size) * 8 > kMaxL1Bytes) {
    return fail(
        ErrorCode::kInvalid,
        fmt::format("a disk of {} bytes is too large for clusters of {} bytes; the largest is {} bytes",
                    options.size, geometry.cluster_size(), kMaxL1Bytes / 8 * geometry.l2_coverage()));
  }
  return {};
}

Task<Result<void>> create(BlockDevice& file, CreateOptions options) {
  if (auto ok = check_options(options); !ok) {
    co_return std::unexpected(ok.error().within(file.name()));
  }
  auto header = make_header(options);
  const auto geometry = header->geometry();
  std::optional<crypto::Luks::New> luks;
  if (options.encryption) {
    header->crypt_method = options.encryption->method;
  }
  if (header->crypt_method == CryptMethod::kLuks) {
    auto made = crypto::Luks::make(options.encryption->luks, options.encryption->password);
    if (!made) {
      co_return std::unexpected(made.error());
    }
    luks = std::move(*made);
  }
  const auto layout = plan_layout(geometry, header->size, luks ? luks->header.payload_offset : 0);
  const auto crypto_offset = layout.crypto_first() << geometry.cluster_bits;
  if (luks) {
    header->set_crypto_header({.offset = crypto_offset, .bytes = luks->header.payload_offset});
    // Other programs write the names of features last.
    std::vector<Extension> ordered;
    for (const bool names : {false, true}) {
      for (const auto& extension : header->extensions) {
        if ((extension.type == kFeatureNamesExtension) == names) {
          ordered.push_back(extension);
        }
      }
    }
    header->extensions = std::move(ordered);
  }
  header->refcount_table_offset = geometry.cluster_size();
  header->refcount_table_clusters = static_cast<std::uint32_t>(layout.table_clusters);
  header->l1_size = static_cast<std::uint32_t>(layout.l1_entries);
  header->l1_table_offset = layout.l1_first() << geometry.cluster_bits;
  auto first = encode_header(*header);
  if (!first) {  // the names of features are a courtesy: in a small cluster the backing file's name comes
                 // first
    std::erase_if(header->extensions,
                  [](const Extension& extension) { return extension.type == kFeatureNamesExtension; });
    first = encode_header(*header);
  }
  if (!first) {
    co_return std::unexpected(first.error().within(file.name()));
  }

  // The header comes last: a file cut short by an error is no image.
  std::vector<std::uint8_t> table(static_cast<std::size_t>(layout.table_clusters << geometry.cluster_bits));
  for (std::uint64_t i = 0; i < layout.blocks; ++i) {
    store_be<std::uint64_t>(&table[static_cast<std::size_t>(i * 8)], (layout.blocks_first() + i)
                                                                         << geometry.cluster_bits);
  }
  auto done = co_await write(file, header->refcount_table_offset, table);
  std::vector<std::uint8_t> blocks(static_cast<std::size_t>(layout.blocks << geometry.cluster_bits));
  for (std::uint64_t i = 0; i < layout.total(); ++i) {
    store_refcount(blocks.data(), i, geometry.refcount_order, 1);
  }
  if (done) {
    done = co_await write(file, layout.blocks_first() << geometry.cluster_bits, blocks);
  }
  std::vector<std::uint8_t> l1(static_cast<std::size_t>(layout.l1_entries * 8));
  if (done && !l1.empty()) {
    done = co_await write(file, header->l1_table_offset, l1);
  }
  if (done && luks) {
    done = co_await write(file, crypto_offset, luks->bytes);
    if (done) {
      const auto rest = (layout.crypto_clusters << geometry.cluster_bits) - luks->bytes.size();
      done = co_await file.write_zeroes(crypto_offset + luks->bytes.size(), rest);
    }
  }
  if (done) {
    done = co_await write(file, 0, *first);
  }
  if (done) {
    done = co_await file.flush();
  }
  co_return done;
}

}  // namespace whistler::qcow2

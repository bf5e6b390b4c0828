#include "tools/img/new_qcow2.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <bit>

#include "base/unique_fd.hpp"
#include "block/create.hpp"
#include "tools/img/encryption.hpp"
#include "tools/img/opening.hpp"
#include "tools/img/size_change.hpp"

namespace whistler::tools {

namespace {

using enum OptionType;

constexpr std::array kCreateOptions = {
    OptionSpec{"encryption", kFlag, "",
               "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)"},
    OptionSpec{"encrypt.format", kText, "", "Encrypt the image, format choices: 'aes', 'luks'"},
    OptionSpec{"encrypt.key-secret", kText, "", "ID of secret providing qcow AES key or LUKS passphrase"},
    OptionSpec{"encrypt.cipher-alg", kText, "", "Name of encryption cipher algorithm"},
    OptionSpec{"encrypt.cipher-mode", kText, "", "Name of encryption cipher mode"},
    OptionSpec{"encrypt.ivgen-alg", kText, "", "Name of IV generator algorithm"},
    OptionSpec{"encrypt.ivgen-hash-alg", kText, "", "Name of IV generator hash algorithm"},
    OptionSpec{"encrypt.hash-alg", kText, "", "Name of encryption hash algorithm"},
    OptionSpec{"encrypt.iter-time", kNumber, "", "Time to spend in PBKDF in milliseconds"},
    OptionSpec{"cluster_size", kSize, "65536", "qcow2 cluster size"},
    OptionSpec{"extended_l2", kFlag, "off", "Extended L2 tables"},
    OptionSpec{"preallocation", kText, "",
               "Preallocation mode (allowed values: off, metadata, falloc, full)"},
    OptionSpec{"compression_type", kText, "zlib", "Compression method used for image cluster compression"},
    OptionSpec{"size", kSize, "", "Virtual disk size"},
    OptionSpec{"compat", kText, "", "Compatibility level (v2 [0.10] or v3 [1.1])"},
    OptionSpec{"backing_file", kText, "", "File name of a base image"},
    OptionSpec{"backing_fmt", kText, "", "Image format of the base image"},
    OptionSpec{"data_file", kText, "", "File name of an external data file"},
    OptionSpec{"data_file_raw", kFlag, "", "The external data file must stay valid as a raw image"},
    OptionSpec{"lazy_refcounts", kFlag, "off", "Postpone refcount updates"},
    OptionSpec{"refcount_bits", kNumber, "16", "Width of a reference count entry in bits"}};

constexpr std::array kAmendOptions = {
    OptionSpec{"backing_file", kText, "", "File name of a base image"},
    OptionSpec{"backing_fmt", kText, "", "Image format of the base image"},
    OptionSpec{"compat", kText, "", "Compatibility level (v2 [0.10] or v3 [1.1])"},
    OptionSpec{"data_file", kText, "", "File name of an external data file"},
    OptionSpec{"data_file_raw", kFlag, "", "The external data file must stay valid as a raw image"},
    OptionSpec{"encrypt.iter-time", kNumber, "", "Time to spend in PBKDF in milliseconds"},
    OptionSpec{"encrypt.keyslot", kNumber, "", "Select a single keyslot to modify explicitly"},
    OptionSpec{"encrypt.new-secret", kText, "",
               "New secret to set in the matching keyslots. Empty string to erase"},
    OptionSpec{"encrypt.old-secret", kText, "", "Select all keyslots that match this password"},
    OptionSpec{"encrypt.state", kText, "", "Select new state of affected keyslots (active/inactive)"},
    OptionSpec{"lazy_refcounts", kFlag, "", "Postpone refcount updates"},
    OptionSpec{"refcount_bits", kNumber, "", "Width of a reference count entry in bits"},
    OptionSpec{"size", kSize, "", "Virtual disk size"}};

std::unexpected<Error> refuse(std::string text) { return fail(ErrorCode::kInvalid, std::move(text)); }

std::unexpected<Error> too_new(std::string_view what) {
  return refuse(fmt::format(
      "{} only supported with compatibility level 1.1 and above (use version=v3 or greater)", what));
}

bool flag(const Options& values, const char* key) {
  const auto found = values.find(key);
  return found != values.end() && found->is_boolean() && found->get<bool>();
}

std::uint64_t number(const Options& values, const char* key, std::uint64_t otherwise) {
  const auto found = values.find(key);
  return found != values.end() && found->is_number() ? found->get<std::uint64_t>() : otherwise;
}

Result<Preallocation> read_preallocation(const Options& values) {
  const auto text = option_text(values, "preallocation").value_or("off");
  const auto mode = parse_preallocation(text);
  return mode ? Result<Preallocation>(*mode)
              : refuse(fmt::format("Parameter 'preallocation' does not accept value '{}'", text));
}

Result<qcow2::CreateOptions> read_qcow2_values(const Options& values) {
  qcow2::CreateOptions options;
  options.size = align_up(number(values, "size", 0), 512);
  const auto level = option_text(values, "compat").value_or("v3");
  const auto version = parse_qcow2_version(level);
  if (!version) {
    return refuse(fmt::format("Parameter 'version' does not accept value '{}'", level));
  }
  options.version = *version;
  const auto preallocation = read_preallocation(values);
  if (!preallocation) {
    return std::unexpected(preallocation.error());
  }
  options.preallocation = *preallocation;
  const auto compression = option_text(values, "compression_type").value_or("zlib");
  if (compression != "zlib" && compression != "zstd") {
    return refuse(fmt::format("Parameter 'compression-type' does not accept value '{}'", compression));
  }
  options.compression = compression == "zstd" ? qcow2::Compression::kZstd : qcow2::Compression::kZlib;
  options.cluster_size = number(values, "cluster_size", 65536);
  options.refcount_bits =
      static_cast<unsigned>(std::min<std::uint64_t>(number(values, "refcount_bits", 16), 1000));
  options.lazy_refcounts = flag(values, "lazy_refcounts");
  options.extended_l2 = flag(values, "extended_l2");
  options.data_file_raw = flag(values, "data_file_raw");
  options.data_file = option_text(values, "data_file");
  options.backing_file = option_text(values, "backing_file");
  options.backing_format = option_text(values, "backing_fmt");
  auto encryption = read_encryption(values);
  if (!encryption) {
    return std::unexpected(encryption.error());
  }
  options.encryption = std::move(*encryption);
  return options;
}

Result<void> check_cluster_size(std::uint64_t bytes, bool extended_l2) {
  if (!std::has_single_bit(bytes) || bytes < 512 || bytes > (2U << 20)) {
    return refuse("Cluster size must be a power of two between 512 and 2048k");
  }
  if (extended_l2 && bytes < 16384) {
    return refuse("Extended L2 entries are only supported with cluster sizes of at least 16384 bytes");
  }
  return {};
}

/// `hint`: the option that helps.
Result<void> check_refcount_bits(std::uint64_t bits, bool v2, std::string_view hint) {
  if (!std::has_single_bit(bits) || bits > 64) {
    return refuse("Refcount width must be a power of two and may not exceed 64 bits");
  }
  if (v2 && bits != 16) {
    return refuse(
        fmt::format("Different refcount widths than 16 bits require compatibility level 1.1 or above (use {} "
                    "or greater)",
                    hint));
  }
  return {};
}

Result<void> check_together(const qcow2::CreateOptions& options) {
  const bool v2 = options.version < 3;
  if (auto ok = check_cluster_size(options.cluster_size, options.extended_l2 && !v2); !ok) {
    return ok;
  }
  if (options.extended_l2 && v2) {
    return too_new("Extended L2 entries are");
  }
  if (options.preallocation != Preallocation::kOff && options.backing_file && !options.extended_l2) {
    return refuse("Backing file and preallocation can only be used at the same time if extended_l2 is on");
  }
  if (options.backing_format && !options.backing_file) {
    return refuse("Backing format cannot be used without backing file");
  }
  if (v2 && options.lazy_refcounts) {
    return too_new("Lazy refcounts");
  }
  if (auto ok = check_refcount_bits(options.refcount_bits, v2, "version=v3"); !ok) {
    return ok;
  }
  if (options.data_file_raw && !options.data_file) {
    return refuse("data-file-raw requires data-file");
  }
  if (options.data_file_raw && options.backing_file) {
    return refuse("Backing file and data-file-raw cannot be used at the same time");
  }
  if (options.data_file && v2) {
    return too_new("External data files are");
  }
  if (options.compression != qcow2::Compression::kZlib && v2) {
    return too_new("Non-zlib compression type is");
  }
  return {};
}

/// The options, if they go together.
Result<qcow2::CreateOptions> read_checked(const Options& values) {
  auto options = read_qcow2_values(values);
  if (!options) {
    return options;
  }
  if (auto ok = check_together(*options); !ok) {
    return std::unexpected(ok.error());
  }
  if (auto ok = qcow2::check_options(*options); !ok) {
    return refuse("The image size is too large for file format 'qcow2' (try using a larger cluster size)");
  }
  return options;
}

/// What create_image says, in QEMU's words.
Result<void> told(Result<void> done, const std::string& filename) {
  if (!done && done.error().brief.empty() && done.error().sys_errno != 0) {
    done.error().brief = fmt::format("Could not create '{}': {}", filename,
                                     std::generic_category().message(done.error().sys_errno));
  }
  return done;
}

/// As QEMU does, so that the file's block size can be found out later. A hole there does no harm.
void allocate_first_block(const std::string& path, std::uint64_t size) {
  constexpr std::array<std::uint8_t, 4096> kZeroes{};
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (file && size != 0) {
    const auto written =
        ::pwrite(file.get(), kZeroes.data(), size < kZeroes.size() ? 512 : kZeroes.size(), 0);
    static_cast<void>(written);
  }
}

}  // namespace

std::span<const OptionSpec> qcow2_create_options() { return kCreateOptions; }
std::span<const OptionSpec> qcow2_amend_options() { return kAmendOptions; }

std::optional<unsigned> parse_qcow2_version(std::string_view text) {
  if (text == "v2" || text == "0.10") {
    return 2;
  }
  return text == "v3" || text == "1.1" ? std::optional(3U) : std::nullopt;
}

Result<void> check_measured_values(const Options& values) {
  const auto cluster = number(values, "cluster_size", 65536);
  if (auto ok = check_cluster_size(cluster, flag(values, "extended_l2")); !ok) {
    return ok;
  }
  // Not by the names of versions that create takes besides.
  const auto level = option_text(values, "compat").value_or("1.1");
  if (level != "0.10" && level != "1.1") {
    return refuse(fmt::format("Invalid compatibility level: '{}'", level));
  }
  const auto refcount_bits = number(values, "refcount_bits", 16);
  if (auto ok = check_refcount_bits(refcount_bits, level == "0.10", "compat=1.1"); !ok) {
    return ok;
  }
  const auto preallocation = option_text(values, "preallocation").value_or("off");
  return parse_preallocation(preallocation) ? Result<void>{}
                                            : refuse("invalid parameter value: " + preallocation);
}

Result<void> check_measured_size(const Options& values, std::uint64_t size) {
  const qcow2::CreateOptions options{.size = size,
                                     .cluster_size = number(values, "cluster_size", 65536),
                                     .extended_l2 = flag(values, "extended_l2")};
  return qcow2::check_options(options)
             ? Result<void>{}
             : refuse("The image size is too large (try using a larger cluster size)");
}

Result<void> create_raw(Ring& ring, const std::string& filename, const Options& values) {
  const auto text = option_text(values, "preallocation").value_or("off");
  if (text != "off" && text != "metadata" && text != "falloc" && text != "full") {
    return refuse(fmt::format("invalid parameter value: {}", text));
  }
  if (text == "metadata") {
    return refuse("Unsupported preallocation mode: metadata");
  }
  const auto path = host_path(filename);
  NewImage image{.path = path, .format = "raw", .size = align_up(number(values, "size", 0), 512)};
  image.qcow2.preallocation = text == "off"      ? Preallocation::kOff
                              : text == "falloc" ? Preallocation::kFalloc
                                                 : Preallocation::kFull;
  auto done = create_image(ring, image);
  if (done && text == "off") {
    allocate_first_block(path, *image.size);
  }
  if (!done && done.error().sys_errno == EFBIG) {
    done.error().brief = "The image size is too large for file format 'raw'";
  }
  return told(std::move(done), path);
}

Result<void> create_raw_on(Ring& ring, BlockDevice& place, const Options& values) {
  const auto size = align_up(number(values, "size", 0), 512);
  if (size > place.size()) {
    return refuse(fmt::format("{}: a disk of {} bytes does not fit into its {} bytes", place.name(), size,
                              place.size()));
  }
  // What lies there must not be taken for another format.
  return sync_wait(ring, place.write_zeroes(0, std::min<std::uint64_t>(512, place.size())));
}

Result<void> create_qcow2_on(Ring& ring, BlockDevice& place, const Options& values) {
  const auto options = read_checked(values);
  if (!options) {
    return std::unexpected(options.error());
  }
  if (options->data_file || options->preallocation != Preallocation::kOff) {
    return refuse(fmt::format("{}: data_file and preallocation are for images in files", place.name()));
  }
  return sync_wait(ring, qcow2::create(place, *options));
}

Result<void> create_qcow2(Ring& ring, const std::string& filename, const Options& values) {
  const auto options = read_checked(values);
  if (!options) {
    return std::unexpected(options.error());
  }
  const auto path = host_path(filename);
  NewImage image{.path = path, .format = "qcow2", .size = options->size, .qcow2 = *options};
  if (image.qcow2.backing_file && !image.qcow2.backing_format) {
    return refuse("Backing file specified without backing format");
  }
  return told(create_image(ring, image), path);
}

}  // namespace whistler::tools

#include "tools/img/new_foreign.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <array>

#include "block/file.hpp"
#include "block/formats/vdi.hpp"
#include "block/formats/vhd.hpp"
#include "tools/img/opening.hpp"

namespace whistler::tools {

namespace {

constexpr std::array kVdiOptions = {
    OptionSpec{"size", OptionType::kSize, "", "Virtual disk size"},
    OptionSpec{"static", OptionType::kFlag, "off", "VDI static (pre-allocated) image"}};

constexpr std::array kVpcOptions = {
    OptionSpec{"size", OptionType::kSize, "", "Virtual disk size"},
    OptionSpec{"subformat", OptionType::kText, "",
               "Type of virtual hard disk format. Supported formats are {dynamic (default) | fixed} "},
    OptionSpec{"force_size", OptionType::kFlag, "",
               "Force disk size calculation to use the actual size specified, rather than using the nearest "
               "CHS-based calculation"}};

std::unexpected<Error> refuse(std::string text) { return fail(ErrorCode::kInvalid, std::move(text)); }

bool flag(const Options& values, const char* key) { return values.value(key, false); }

/// A new file in which `make` makes an image; on failure it is gone again.
template <typename Make>
Result<void> make_in_file(Ring& ring, std::string path, const Options& values, Make make) {
  const auto mode = option_text(values, "preallocation").value_or("off");
  if (mode != "off" && mode != "metadata" && mode != "falloc" && mode != "full") {
    return refuse(fmt::format("invalid parameter value: {}", mode));
  }
  if (mode == "metadata") {
    return refuse("Unsupported preallocation mode: metadata");
  }
  path = host_path(std::move(path));
  auto file = FileDevice::create(ring, {.path = path});
  if (!file) {
    return std::unexpected(file.error());
  }
  auto done = sync_wait(ring, make(**file));
  if (done) {
    done = sync_wait(ring, (*file)->close());
  }
  if (!done) {
    ::unlink(path.c_str());
  }
  return done;
}

}  // namespace

std::span<const OptionSpec> vdi_create_options() { return kVdiOptions; }
std::span<const OptionSpec> vpc_create_options() { return kVpcOptions; }

Result<void> create_vdi(Ring& ring, const std::string& filename, const Options& values) {
  const formats::VdiCreateOptions options{.size = values.value("size", std::uint64_t{0}),
                                          .fixed = flag(values, "static")};
  return make_in_file(ring, filename, values,
                      [&](BlockDevice& file) { return formats::create_vdi(file, options); });
}

Result<void> create_vpc(Ring& ring, const std::string& filename, const Options& values) {
  const auto kind = option_text(values, "subformat").value_or("dynamic");
  if (kind != "dynamic" && kind != "fixed") {
    return refuse(fmt::format("Parameter 'subformat' does not accept value '{}'", kind));
  }
  const formats::VhdCreateOptions options{.size = values.value("size", std::uint64_t{0}),
                                          .fixed = kind == "fixed",
                                          .force_size = flag(values, "force_size")};
  return make_in_file(ring, filename, values,
                      [&](BlockDevice& file) { return formats::create_vhd(file, options); });
}

}  // namespace whistler::tools

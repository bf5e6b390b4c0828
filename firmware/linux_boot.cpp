// Linux boot protocol (Documentation/arch/x86/boot.rst, zero-page.rst): the 32-bit entry.
#include <algorithm>

#include "firmware/boot_image.hpp"

namespace whistler {
namespace {

// Fields of the setup header; offsets are those in the file and in the zero page alike.
constexpr std::uint64_t kSetupSects = 0x1F1;
constexpr std::uint64_t kSysSize = 0x1F4;
constexpr std::uint64_t kVidMode = 0x1FA;
constexpr std::uint64_t kBootFlag = 0x1FE;
constexpr std::uint64_t kHeaderLength = 0x201;  // of the jump at 0x200: where the header ends, from 0x202
constexpr std::uint64_t kHeaderMagic = 0x202;
constexpr std::uint64_t kVersion = 0x206;
constexpr std::uint64_t kTypeOfLoader = 0x210;
constexpr std::uint64_t kLoadFlags = 0x211;
constexpr std::uint64_t kCode32Start = 0x214;
constexpr std::uint64_t kRamdiskImage = 0x218;
constexpr std::uint64_t kRamdiskSize = 0x21C;
constexpr std::uint64_t kCmdLinePtr = 0x228;
constexpr std::uint64_t kInitrdAddrMax = 0x22C;
constexpr std::uint64_t kCmdlineSize = 0x238;
constexpr std::uint64_t kPrefAddress = 0x258;
constexpr std::uint64_t kInitSize = 0x260;
constexpr std::uint64_t kHeaderEnd = 0x290;

// Fields of the zero page.
constexpr std::size_t kExtMemK = 0x02;
constexpr std::size_t kVideoMode = 0x06;
constexpr std::size_t kVideoCols = 0x07;
constexpr std::size_t kVideoLines = 0x0E;
constexpr std::size_t kVideoIsVga = 0x0F;
constexpr std::size_t kVideoPoints = 0x10;
constexpr std::size_t kAcpiRsdpAddr = 0x70;
constexpr std::size_t kAltMemK = 0x1E0;
constexpr std::size_t kE820Entries = 0x1E8;
constexpr std::size_t kE820Table = 0x2D0;

constexpr std::uint32_t kHdrS = 0x5372'6448;
constexpr std::uint64_t kKernelAddress = kMib;
constexpr std::uint8_t kLoadedHigh = 0x01;

/// Where the initrd ends up: as high as the kernel allows.
Result<std::uint64_t> place_initrd(const DirectBootFiles& files, const BootTarget& target,
                                   std::uint64_t kernel_end, std::uint64_t address_max) {
  const auto size = files.initrd->size();
  const auto top = std::min(target.usable_end, address_max + 1);
  if (size > top || align_down(top - size, 4096) < kernel_end) {
    return refuse(files.initrd_name, "an initrd of " + std::to_string(size) +
                                         " bytes does not fit into RAM beside the kernel, which ends at " +
                                         std::to_string(kernel_end / kMib + 1) + " MiB");
  }
  const auto address = align_down(top - size, 4096);
  if (auto done = put(target.ram, address, *files.initrd, files.initrd_name); !done) {
    return std::unexpected(done.error());
  }
  return address;
}

}  // namespace

bool is_linux(std::span<const std::uint8_t> kernel) {
  const ImageView image(kernel);
  return image.get<std::uint16_t>(kBootFlag) == 0xAA55 && image.get<std::uint32_t>(kHeaderMagic) == kHdrS;
}

Result<DirectBoot> load_linux(const DirectBootFiles& files, const BootTarget& target) {
  const ImageView image(files.kernel);
  const auto version = image.get<std::uint16_t>(kVersion);
  if (version < 0x202 || (image.get<std::uint8_t>(kLoadFlags) & kLoadedHigh) == 0) {
    return refuse(files.kernel_name, "a kernel with boot protocol below 2.02, or a zImage",
                  ErrorCode::kUnsupported);
  }
  const std::uint64_t sectors = image.get<std::uint8_t>(kSetupSects);
  const std::uint64_t setup_size = 512 * (1 + (sectors == 0 ? 4 : sectors));
  // Before 2.04 only the low half of the size is defined: the file's own length counts then.
  const std::uint64_t told = version >= 0x204 ? 16 * std::uint64_t{image.get<std::uint32_t>(kSysSize)} : 0;
  if (setup_size >= image.size() || !image.has(setup_size, told)) {
    return refuse(files.kernel_name, "shorter than its header says", ErrorCode::kCorrupt);
  }
  const auto code = image.part(setup_size, image.size() - setup_size);
  std::uint64_t kernel_end = kKernelAddress + code.size();
  if (version >= 0x20A) {
    // The kernel moves to its preferred address and unpacks itself there before it looks at the memory map.
    const auto preferred = image.get<std::uint64_t>(kPrefAddress);
    const std::uint64_t unpacked = image.get<std::uint32_t>(kInitSize);
    if (preferred > 0xFFFF'FFFF) {
      return refuse(files.kernel_name, "wants to be above 4 GiB", ErrorCode::kUnsupported);
    }
    kernel_end = std::max(kernel_end, std::max(preferred, kKernelAddress) + unpacked);
  }
  if (kernel_end > target.usable_end) {
    return refuse(files.kernel_name, "needs " + std::to_string(kernel_end / kMib + 1) + " MiB of RAM");
  }

  std::vector<std::uint8_t> page(4096);
  const auto header_end = std::min(kHeaderMagic + image.get<std::uint8_t>(kHeaderLength), kHeaderEnd);
  const auto header = image.part(kSetupSects, std::min(header_end, setup_size) - kSetupSects);
  std::ranges::copy(header, page.begin() + kSetupSects);
  page[kTypeOfLoader] = 0xFF;  // no assigned number
  store_le<std::uint16_t>(&page[kVidMode], 0xFFFF);
  store_le<std::uint32_t>(&page[kCode32Start], static_cast<std::uint32_t>(kKernelAddress));
  store_le<std::uint32_t>(&page[kCmdLinePtr], kCommandLineAddress);
  store_le<std::uint32_t>(&page[kRamdiskImage], 0);
  store_le<std::uint32_t>(&page[kRamdiskSize], 0);
  if (files.initrd && !files.initrd->empty()) {
    const std::uint64_t address_max =
        version >= 0x203 ? image.get<std::uint32_t>(kInitrdAddrMax) : 0x37FF'FFFF;
    const auto address = place_initrd(files, target, kernel_end, address_max);
    if (!address) {
      return std::unexpected(address.error());
    }
    store_le<std::uint32_t>(&page[kRamdiskImage], static_cast<std::uint32_t>(*address));
    store_le<std::uint32_t>(&page[kRamdiskSize], static_cast<std::uint32_t>(files.initrd->size()));
  }
  if (target.facts.graphics) {
    page[kVideoMode] = 3;
    page[kVideoCols] = 80;
    page[kVideoLines] = 25;
    page[kVideoIsVga] = 1;
    page[kVideoPoints] = 16;
  }
  const auto extended_kib = static_cast<std::uint32_t>((target.usable_end - kMib) / 1024);
  store_le<std::uint16_t>(&page[kExtMemK], static_cast<std::uint16_t>(std::min(extended_kib, 0xFC00U)));
  store_le<std::uint32_t>(&page[kAltMemK], extended_kib);
  if (target.facts.acpi) {
    store_le<std::uint64_t>(&page[kAcpiRsdpAddr], kLowTables);
  }
  page[kE820Entries] = static_cast<std::uint8_t>(target.map.size());
  std::ranges::copy(encode_e820(target.map), page.begin() + kE820Table);

  const std::uint64_t line_limit = version >= 0x206 ? image.get<std::uint32_t>(kCmdlineSize) : 255;
  for (const auto& step : {put_command_line(target.ram, files.cmdline, line_limit),
                           put(target.ram, kKernelAddress, code, files.kernel_name),
                           put(target.ram, kBootParamsAddress, page, "the zero page")}) {
    if (!step) {
      return std::unexpected(step.error());
    }
  }
  DirectBoot boot;
  boot.eip = static_cast<std::uint32_t>(kKernelAddress);
  boot.esi = kBootParamsAddress;
  return boot;
}

}  // namespace whistler

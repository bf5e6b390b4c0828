// Multiboot Specification 0.6.96.
#include <algorithm>
#include <array>
#include <optional>

#include "firmware/boot_image.hpp"
#include "firmware/byte_builder.hpp"

namespace whistler {
namespace {

constexpr std::uint32_t kHeaderMagic = 0x1BAD'B002;
constexpr std::uint32_t kLoaderMagic = 0x2BAD'B002;
constexpr std::uint64_t kSearchLength = 8192;
constexpr std::uint32_t kAddressFields = 1 << 16;
constexpr std::uint32_t kUnknownDemands = 0xFFF8;  // bits 0..2: aligned modules, memory, video

std::optional<std::uint64_t> find_header(const ImageView& image) {
  for (std::uint64_t at = 0; at + 12 <= std::min(image.size(), kSearchLength); at += 4) {
    if (image.get<std::uint32_t>(at) == kHeaderMagic &&
        image.get<std::uint32_t>(at) + image.get<std::uint32_t>(at + 4) + image.get<std::uint32_t>(at + 8) ==
            0) {
      return at;
    }
  }
  return std::nullopt;
}

/// Puts parts of a program into RAM and keeps count of where it ends.
class Placer {
 public:
  Placer(const DirectBootFiles& files, const BootTarget& target) : files_(files), target_(target) {}

  /// `bytes`, followed by zeros up to `memory_size`.
  Result<void> place(std::uint64_t address, std::span<const std::uint8_t> bytes, std::uint64_t memory_size) {
    memory_size = std::max<std::uint64_t>(memory_size, bytes.size());
    total_ += memory_size;
    const auto end = address + memory_size;
    const bool low = address >= kLowMemoryStart && end <= kLowMemoryEnd;
    const bool high = address >= kMib && end <= target_.usable_end;
    if (!low && !high) {
      return refuse(files_.kernel_name, "a part at " + std::to_string(address) + " of " +
                                            std::to_string(memory_size) + " bytes does not lie in free RAM");
    }
    if (total_ > target_.usable_end) {  // parts that overlap again and again
      return refuse(files_.kernel_name, "its parts are larger than RAM", ErrorCode::kCorrupt);
    }
    if (auto done = put(target_.ram, address, bytes, files_.kernel_name); !done) {
      return done;
    }
    static constexpr std::array<std::uint8_t, 0x10000> kZeros{};
    for (auto at = address + bytes.size(); at < end;) {
      const auto step = std::min<std::uint64_t>(end - at, kZeros.size());
      if (auto done = put(target_.ram, at, std::span(kZeros).first(step), files_.kernel_name); !done) {
        return done;
      }
      at += step;
    }
    end_ = std::max(end_, end);
    return {};
  }
  [[nodiscard]] std::uint64_t end() const { return end_; }

 private:
  const DirectBootFiles& files_;
  const BootTarget& target_;
  std::uint64_t end_ = kMib;
  std::uint64_t total_ = 0;
};

/// The header's own addresses. Gives the entry.
Result<std::uint32_t> place_by_header(const DirectBootFiles& files, const ImageView& image,
                                      std::uint64_t header, Placer& placer) {
  const std::uint64_t header_addr = image.get<std::uint32_t>(header + 12);
  const std::uint64_t load_addr = image.get<std::uint32_t>(header + 16);
  const std::uint64_t load_end = image.get<std::uint32_t>(header + 20);
  const std::uint64_t bss_end = image.get<std::uint32_t>(header + 24);
  if (!image.has(header, 32) || load_addr > header_addr || header_addr - load_addr > header) {
    return refuse(files.kernel_name, "the Multiboot header's addresses do not fit its place",
                  ErrorCode::kCorrupt);
  }
  const auto start = header - (header_addr - load_addr);
  const auto length = load_end == 0 ? image.size() - start : load_end - load_addr;
  if ((load_end != 0 && load_end < load_addr) || !image.has(start, length)) {
    return refuse(files.kernel_name, "shorter than its Multiboot header says", ErrorCode::kCorrupt);
  }
  const auto memory_size = bss_end > load_addr ? bss_end - load_addr : length;
  if (auto done = placer.place(load_addr, image.part(start, length), memory_size); !done) {
    return std::unexpected(done.error());
  }
  return image.get<std::uint32_t>(header + 28);
}

/// The loadable segments of an ELF32 program. Gives the entry.
Result<std::uint32_t> place_elf(const DirectBootFiles& files, const ImageView& image, Placer& placer) {
  constexpr std::uint32_t kElfMagic = 0x464C'457F;
  constexpr std::uint16_t kI386 = 3;
  constexpr std::uint32_t kLoad = 1;
  if (image.get<std::uint32_t>(0) != kElfMagic || image.get<std::uint8_t>(4) != 1 ||
      image.get<std::uint8_t>(5) != 1 || image.get<std::uint16_t>(18) != kI386) {
    return refuse(files.kernel_name, "a Multiboot image that is no 32-bit x86 ELF and gives no addresses",
                  ErrorCode::kUnsupported);
  }
  const std::uint64_t table = image.get<std::uint32_t>(28);
  const std::uint64_t entry_size = image.get<std::uint16_t>(42);
  const std::uint64_t count = image.get<std::uint16_t>(44);
  if (entry_size < 32 || count == 0 || !image.has(table, entry_size * count)) {
    return refuse(files.kernel_name, "its ELF program headers are outside the file", ErrorCode::kCorrupt);
  }
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto header = table + i * entry_size;
    const std::uint64_t offset = image.get<std::uint32_t>(header + 4);
    const std::uint64_t address = image.get<std::uint32_t>(header + 12);
    const std::uint64_t file_size = image.get<std::uint32_t>(header + 16);
    const std::uint64_t memory_size = image.get<std::uint32_t>(header + 20);
    if (image.get<std::uint32_t>(header) != kLoad || memory_size == 0) {
      continue;
    }
    if (!image.has(offset, file_size) || file_size > memory_size) {
      return refuse(files.kernel_name, "ELF segment " + std::to_string(i) + " is outside the file",
                    ErrorCode::kCorrupt);
    }
    if (auto done = placer.place(address, image.part(offset, file_size), memory_size); !done) {
      return std::unexpected(done.error());
    }
  }
  return image.get<std::uint32_t>(24);
}

/// The information structure (3.3) with what it points to, as it lies at kMultibootInfoAddress.
std::vector<std::uint8_t> information(const DirectBootFiles& files, const BootTarget& target,
                                      std::uint64_t module_start) {
  constexpr std::uint32_t kInfoSize = 116;
  constexpr std::uint32_t kModule = kMultibootInfoAddress + kInfoSize;
  constexpr std::uint32_t kMap = kModule + 16;
  const bool module = files.initrd.has_value();
  const std::uint32_t map_size = static_cast<std::uint32_t>(target.map.size()) * 24;
  const std::uint32_t text = kMap + map_size;
  const auto module_name = files.initrd_name.substr(0, 255);
  ByteBuilder out;
  out.add<std::uint32_t>(0x245 |
                         (module ? 0x08 : 0));  // memory, command line, memory map, loader name; modules
  out.add<std::uint32_t>(kLowMemoryEnd / 1024);
  out.add<std::uint32_t>(static_cast<std::uint32_t>((target.usable_end - kMib) / 1024));
  out.add<std::uint32_t>(0);
  out.add<std::uint32_t>(kCommandLineAddress);
  out.add<std::uint32_t>(module ? 1 : 0);
  out.add<std::uint32_t>(module ? kModule : 0);
  out.add_zeros(16);
  out.add<std::uint32_t>(map_size);
  out.add<std::uint32_t>(kMap);
  out.add_zeros(12);
  out.add<std::uint32_t>(text);
  out.add_zeros(kInfoSize - out.size());
  out.add<std::uint32_t>(static_cast<std::uint32_t>(module_start));
  out.add<std::uint32_t>(static_cast<std::uint32_t>(module_start + (module ? files.initrd->size() : 0)));
  out.add<std::uint32_t>(text + 9);
  out.add<std::uint32_t>(0);
  for (const auto& range : target.map) {
    out.add<std::uint32_t>(20);
    out.add<std::uint64_t>(range.base);
    out.add<std::uint64_t>(range.length);
    out.add<std::uint32_t>(range.type);
  }
  out.add_text("whistler", 9);
  out.add_text(module_name, module_name.size() + 1);
  return std::move(out.bytes);
}

}  // namespace

bool is_multiboot(std::span<const std::uint8_t> kernel) { return find_header(ImageView(kernel)).has_value(); }

Result<DirectBoot> load_multiboot(const DirectBootFiles& files, const BootTarget& target) {
  const ImageView image(files.kernel);
  const auto header = find_header(image);
  const auto flags = header ? image.get<std::uint32_t>(*header + 4) : 0;
  if (!header || (flags & kUnknownDemands) != 0) {
    return refuse(files.kernel_name, "demands Multiboot features that do not exist here",
                  ErrorCode::kUnsupported);
  }
  Placer placer(files, target);
  const auto entry = (flags & kAddressFields) != 0 ? place_by_header(files, image, *header, placer)
                                                   : place_elf(files, image, placer);
  if (!entry) {
    return std::unexpected(entry.error());
  }
  const auto module_start = align_up(placer.end(), 4096);
  if (files.initrd) {
    if (module_start > target.usable_end || files.initrd->size() > target.usable_end - module_start) {
      return refuse(files.initrd_name, "a module of " + std::to_string(files.initrd->size()) +
                                           " bytes does not fit into RAM behind the kernel");
    }
    if (auto done = put(target.ram, module_start, *files.initrd, files.initrd_name); !done) {
      return std::unexpected(done.error());
    }
  }
  // By custom the command line begins with the image's name.
  const auto line = files.cmdline.empty() ? files.kernel_name : files.kernel_name + " " + files.cmdline;
  for (const auto& step : {put_command_line(target.ram, line, kCommandLineLimit - 1),
                           put(target.ram, kMultibootInfoAddress, information(files, target, module_start),
                               "the Multiboot information")}) {
    if (!step) {
      return std::unexpected(step.error());
    }
  }
  DirectBoot boot;
  boot.eip = *entry;
  boot.eax = kLoaderMagic;
  boot.ebx = kMultibootInfoAddress;
  return boot;
}

}  // namespace whistler

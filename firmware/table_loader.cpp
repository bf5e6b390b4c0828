#include "firmware/table_loader.hpp"

#include <algorithm>
#include <bit>
#include <optional>

#include "firmware/acpi.hpp"
#include "firmware/byte_builder.hpp"

namespace whistler {
namespace {

constexpr std::size_t kEntrySize = 128;
constexpr std::size_t kNameSize = 56;
constexpr std::uint32_t kAllocate = 1;
constexpr std::uint32_t kPointer = 2;
constexpr std::uint32_t kChecksum = 3;

/// A file of the script and where it was put.
struct Placed {
  LoaderFile file;
  std::optional<std::uint64_t> address;
};

std::unexpected<Error> bad_entry(std::size_t index, std::string_view why) {
  return fail(ErrorCode::kCorrupt, "table loader entry " + std::to_string(index) + ": " + std::string(why));
}

/// Carries out one entry after the other on copies of the files.
class Runner {
 public:
  Runner(std::vector<LoaderFile> files, const LoaderZones& zones) : zones_(zones) {
    for (auto& file : files) {
      placed_.push_back({std::move(file), std::nullopt});
    }
  }

  Result<void> run(std::span<const std::uint8_t> entry, std::size_t index) {
    switch (load_le<std::uint32_t>(entry.data())) {
      case kAllocate: return allocate(entry, index);
      case kPointer: return pointer(entry, index);
      case kChecksum: return checksum(entry, index);
      default: return {};  // unknown commands are passed over, as SeaBIOS does
    }
  }

  Result<void> write(RamWriter& ram) const {
    for (const auto& placed : placed_) {
      if (placed.address && !ram.write(*placed.address, placed.file.bytes)) {
        return fail(ErrorCode::kInvalid, "table loader: no RAM for '" + placed.file.name + "'");
      }
    }
    return {};
  }

 private:
  Placed* find(std::span<const std::uint8_t> name_field) {
    const auto* first = name_field.data();
    const auto* last = std::find(first, first + kNameSize, std::uint8_t{0});
    const auto found = std::ranges::find_if(placed_, [&](const Placed& placed) {
      return std::equal(first, last, placed.file.name.begin(), placed.file.name.end());
    });
    return found == placed_.end() ? nullptr : &*found;
  }

  Result<void> allocate(std::span<const std::uint8_t> entry, std::size_t index) {
    auto* placed = find(entry.subspan(4));
    const auto alignment = load_le<std::uint32_t>(&entry[60]);
    if (placed == nullptr || placed->address || !std::has_single_bit(alignment)) {
      return bad_entry(index, "a file that is unknown or placed already, or a bad alignment");
    }
    const bool low = entry[64] == static_cast<std::uint8_t>(LoaderScript::Zone::kLow);
    auto& zone = low ? zones_.low : zones_.high;
    const auto start = align_up(zone.base, alignment);
    const auto end = start + placed->file.bytes.size();
    if (end > zone.base + zone.length) {
      return bad_entry(index, "no room for '" + placed->file.name + "'");
    }
    placed->address = start;
    zone.length -= end - zone.base;
    zone.base = end;
    return {};
  }

  Result<void> pointer(std::span<const std::uint8_t> entry, std::size_t index) {
    auto* placed = find(entry.subspan(4));
    const auto* target = find(entry.subspan(60));
    const std::uint64_t offset = load_le<std::uint32_t>(&entry[116]);
    const unsigned size = entry[120];
    if (placed == nullptr || target == nullptr || !target->address || !std::has_single_bit(size) ||
        size > 8 || offset + size > placed->file.bytes.size()) {
      return bad_entry(index, "a pointer outside its file or to a file without a place");
    }
    auto* at = &placed->file.bytes[offset];
    std::uint64_t value = 0;
    for (unsigned i = 0; i < size; ++i) {
      value |= std::uint64_t{at[i]} << (8 * i);
    }
    value += *target->address;
    for (unsigned i = 0; i < size; ++i) {
      at[i] = static_cast<std::uint8_t>(value >> (8 * i));
    }
    return {};
  }

  Result<void> checksum(std::span<const std::uint8_t> entry, std::size_t index) {
    auto* placed = find(entry.subspan(4));
    const std::uint64_t offset = load_le<std::uint32_t>(&entry[60]);
    const std::uint64_t start = load_le<std::uint32_t>(&entry[64]);
    const std::uint64_t length = load_le<std::uint32_t>(&entry[68]);
    if (placed == nullptr || offset >= placed->file.bytes.size() ||
        start + length > placed->file.bytes.size()) {
      return bad_entry(index, "a checksum outside its file");
    }
    auto& bytes = placed->file.bytes;
    bytes[offset] =
        static_cast<std::uint8_t>(bytes[offset] + checksum_of(std::span(bytes).subspan(start, length)));
    return {};
  }

  LoaderZones zones_;
  std::vector<Placed> placed_;
};

}  // namespace

void LoaderScript::allocate(std::string_view file, std::uint32_t alignment, Zone zone) {
  ByteBuilder entry;
  entry.add<std::uint32_t>(kAllocate);
  entry.add_text(file, kNameSize);
  entry.add<std::uint32_t>(alignment);
  entry.add8(static_cast<unsigned>(zone));
  entry.align(kEntrySize);
  bytes_.insert(bytes_.end(), entry.bytes.begin(), entry.bytes.end());
}

void LoaderScript::pointer(std::string_view file, std::uint32_t offset, std::string_view target,
                           unsigned size) {
  ByteBuilder entry;
  entry.add<std::uint32_t>(kPointer);
  entry.add_text(file, kNameSize);
  entry.add_text(target, kNameSize);
  entry.add<std::uint32_t>(offset);
  entry.add8(size);
  entry.align(kEntrySize);
  bytes_.insert(bytes_.end(), entry.bytes.begin(), entry.bytes.end());
}

void LoaderScript::checksum(std::string_view file, std::uint32_t offset, std::uint32_t start,
                            std::uint32_t length) {
  ByteBuilder entry;
  entry.add<std::uint32_t>(kChecksum);
  entry.add_text(file, kNameSize);
  entry.add<std::uint32_t>(offset);
  entry.add<std::uint32_t>(start);
  entry.add<std::uint32_t>(length);
  entry.align(kEntrySize);
  bytes_.insert(bytes_.end(), entry.bytes.begin(), entry.bytes.end());
}

Result<void> run_table_loader(const std::vector<std::uint8_t>& script, std::vector<LoaderFile> files,
                              const LoaderZones& zones, RamWriter& ram) {
  if (script.size() % kEntrySize != 0) {
    return fail(ErrorCode::kCorrupt, "table loader script of " + std::to_string(script.size()) +
                                         " bytes is not a whole number of entries");
  }
  Runner runner(std::move(files), zones);
  for (std::size_t at = 0; at < script.size(); at += kEntrySize) {
    if (auto done = runner.run(std::span(script).subspan(at, kEntrySize), at / kEntrySize); !done) {
      return done;
    }
  }
  return runner.write(ram);
}

}  // namespace whistler

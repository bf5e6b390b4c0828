#include "block/crypto/luks_header.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/bytes.hpp"

namespace whistler::crypto {

namespace {

constexpr std::array<std::uint8_t, 6> kMagic = {'L', 'U', 'K', 'S', 0xba, 0xbe};
constexpr std::uint32_t kSlotActive = 0x00ac71f3;
constexpr std::uint32_t kSlotInactive = 0x0000dead;
constexpr std::size_t kNameBytes = 32;

struct DiskSlot {
  Be<std::uint32_t> state;
  Be<std::uint32_t> iterations;
  std::array<std::uint8_t, kLuksSaltBytes> salt;
  Be<std::uint32_t> offset_sectors;
  Be<std::uint32_t> stripes;
};
struct DiskHeader {
  std::array<std::uint8_t, 6> magic;
  Be<std::uint16_t> version;
  std::array<char, kNameBytes> cipher_name;
  std::array<char, kNameBytes> cipher_mode;
  std::array<char, kNameBytes> hash_name;
  Be<std::uint32_t> payload_sectors;
  Be<std::uint32_t> key_bytes;
  std::array<std::uint8_t, kLuksDigestBytes> digest;
  std::array<std::uint8_t, kLuksSaltBytes> salt;
  Be<std::uint32_t> iterations;
  std::array<char, 40> uuid;
  std::array<DiskSlot, kLuksSlots> slots;
};
static_assert(sizeof(DiskSlot) == 48 && sizeof(DiskHeader) == kLuksHeaderBytes);
constexpr std::uint64_t kFirstSlotSector = kLuksSlotAlignment / kSectorBytes;

template <typename... Args>
std::unexpected<Error> corrupt(fmt::format_string<Args...> format, Args&&... args) {
  return fail(ErrorCode::kCorrupt, fmt::format(format, std::forward<Args>(args)...));
}

constexpr std::uint64_t sectors_for(std::uint64_t bytes) { return (bytes + kSectorBytes - 1) / kSectorBytes; }

template <std::size_t size>
bool ends_within(const std::array<char, size>& text) {
  return std::find(text.begin(), text.end(), '\0') != text.end();
}

/// A text from the header as it may be shown: nothing in it may disturb a terminal.
std::string shown(std::string_view text) {
  std::string copy(text);
  std::replace_if(copy.begin(), copy.end(), [](char c) { return c < ' ' || c == 0x7f; }, '?');
  return copy;
}

template <std::size_t size>
std::string text_of(const std::array<char, size>& text) {
  return shown(std::string_view(text.data(), ::strnlen(text.data(), size)));
}

Result<void> check_slots(const DiskHeader& disk) {
  const std::uint64_t length = sectors_for(std::uint64_t{disk.key_bytes} * kLuksStripes);
  for (std::size_t i = 0; i < kLuksSlots; ++i) {
    const auto& slot = disk.slots[i];
    const std::uint64_t start = slot.offset_sectors;
    if (slot.stripes != kLuksStripes) {
      return corrupt("Keyslot {} is corrupted (stripes {} != {})", i, std::uint32_t{slot.stripes},
                     kLuksStripes);
    }
    if (slot.state != kSlotActive && slot.state != kSlotInactive) {
      return corrupt("Keyslot {} state (active/disable) is corrupted", i);
    }
    if (slot.state == kSlotActive && slot.iterations == 0) {
      return corrupt("Keyslot {} iteration count is zero", i);
    }
    if (slot.state == kSlotActive && slot.iterations > kMaxLuksIterations) {
      return corrupt("Keyslot {} iteration count {} is larger than {}", i, std::uint32_t{slot.iterations},
                     kMaxLuksIterations);
    }
    if (start < kFirstSlotSector) {
      return corrupt("Keyslot {} is overlapping with the LUKS header", i);
    }
    if (start + length > disk.payload_sectors) {
      return corrupt("Keyslot {} is overlapping with the encrypted payload", i);
    }
    for (std::size_t j = i + 1; j < kLuksSlots; ++j) {
      const std::uint64_t other = disk.slots[j].offset_sectors;
      if (start < other + length && other < start + length) {
        return corrupt("Keyslots {} and {} are overlapping in the header", i, j);
      }
    }
  }
  return {};
}

Result<void> check_fields(const DiskHeader& disk) {
  if (disk.magic != kMagic) {
    return fail(ErrorCode::kInvalid, "Volume is not in LUKS format");
  }
  if (disk.version != 1) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("LUKS version {} is not supported", std::uint16_t{disk.version}));
  }
  if (!ends_within(disk.cipher_name)) {
    return corrupt("LUKS header cipher name is not NUL terminated");
  }
  if (!ends_within(disk.cipher_mode)) {
    return corrupt("LUKS header cipher mode is not NUL terminated");
  }
  if (!ends_within(disk.hash_name)) {
    return corrupt("LUKS header hash spec is not NUL terminated");
  }
  if (disk.payload_sectors < kFirstSlotSector) {
    return corrupt("LUKS payload is overlapping with the header");
  }
  if (disk.iterations == 0) {
    return corrupt("LUKS key iteration count is zero");
  }
  if (disk.iterations > kMaxLuksIterations) {
    return corrupt("LUKS key iteration count {} is larger than {}", std::uint32_t{disk.iterations},
                   kMaxLuksIterations);
  }
  return check_slots(disk);
}

/// The mode as LUKS writes it: "xts-plain64", "cbc-essiv:sha256"; "ecb" may stand alone.
Result<CipherSpec> parse_mode(const std::string& text) {
  CipherSpec spec;
  const auto dash = text.find('-');
  const auto mode_name = text.substr(0, dash);
  if (dash == std::string::npos && mode_name != "ecb") {
    return corrupt("Unexpected cipher mode string format '{}'", text);
  }
  auto generator_name = dash == std::string::npos ? "plain64" : text.substr(dash + 1);
  if (const auto colon = generator_name.find(':'); colon != std::string::npos) {
    const auto hash_name = generator_name.substr(colon + 1);
    generator_name.resize(colon);
    spec.iv_hash = hash_named(hash_name);
    if (!spec.iv_hash) {
      return corrupt("Hash algorithm '{}' not supported", hash_name);
    }
  }
  const auto mode = cipher_mode_named(mode_name);
  if (!mode) {
    return corrupt("Cipher mode '{}' not supported", mode_name);
  }
  const auto generator = iv_generator_named(generator_name);
  if (!generator) {
    return corrupt("IV generator '{}' not supported", generator_name);
  }
  if (*generator == IvGenerator::kEssiv && !spec.iv_hash) {
    return corrupt("Missing IV generator hash specification");
  }
  spec.mode = *mode;
  spec.iv = *generator;
  return spec;
}

/// A random uuid (version 4) as text.
std::string new_uuid() {
  std::array<std::uint8_t, 16> bytes{};
  fill_random(bytes);
  bytes[6] = static_cast<std::uint8_t>((bytes[6] & 0x0f) | 0x40);
  bytes[8] = static_cast<std::uint8_t>((bytes[8] & 0x3f) | 0x80);
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    text += fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", bytes[i]);
  }
  return text;
}

template <std::size_t size>
void put(std::array<char, size>& to, std::string_view text) {
  std::copy_n(text.begin(), std::min(text.size(), size - 1), to.begin());
}

DiskSlot encode(const LuksSlot& slot) {
  DiskSlot disk{};
  disk.state = slot.active ? kSlotActive : kSlotInactive;
  disk.iterations = slot.iterations;
  disk.salt = slot.salt;
  disk.offset_sectors = static_cast<std::uint32_t>(slot.offset / kSectorBytes);
  disk.stripes = kLuksStripes;
  return disk;
}

}  // namespace

std::size_t LuksHeader::material_bytes() const {
  return static_cast<std::size_t>(sectors_for(std::uint64_t{key_bytes()} * kLuksStripes) * kSectorBytes);
}

std::size_t LuksHeader::active_slots() const {
  return static_cast<std::size_t>(
      std::count_if(slots.begin(), slots.end(), [](const LuksSlot& slot) { return slot.active; }));
}

void LuksHeader::set_slot(std::size_t index, const LuksSlot& slot) {
  slots[index] = slot;
  const auto disk = encode(slot);
  std::memcpy(raw.data() + offsetof(DiskHeader, slots) + index * sizeof disk, &disk, sizeof disk);
}

void LuksHeader::set_digest(const std::array<std::uint8_t, kLuksSaltBytes>& new_salt,
                            std::uint32_t new_iterations,
                            const std::array<std::uint8_t, kLuksDigestBytes>& new_digest) {
  salt = new_salt;
  iterations = new_iterations;
  digest = new_digest;
  DiskHeader disk;
  std::memcpy(&disk, raw.data(), sizeof disk);
  disk.salt = salt;
  disk.iterations = iterations;
  disk.digest = digest;
  std::memcpy(raw.data(), &disk, sizeof disk);
}

bool looks_like_luks(ConstBytes bytes) {
  return bytes.size() >= kMagic.size() && std::equal(kMagic.begin(), kMagic.end(), bytes.begin());
}

Result<LuksHeader> parse_luks_header(ConstBytes bytes) {
  DiskHeader disk{};
  if (bytes.size() < sizeof disk) {
    return fail(ErrorCode::kInvalid, "Volume is not in LUKS format");
  }
  std::memcpy(&disk, bytes.data(), sizeof disk);
  if (auto ok = check_fields(disk); !ok) {
    return std::unexpected(ok.error());
  }
  auto spec = parse_mode(text_of(disk.cipher_mode));
  if (!spec) {
    return std::unexpected(spec.error());
  }
  std::size_t key = disk.key_bytes;
  if (spec->mode == CipherMode::kXts && key % 2 != 0) {
    return corrupt("XTS cipher key length should be a multiple of 2");
  }
  key /= spec->mode == CipherMode::kXts ? 2 : 1;
  const auto family = text_of(disk.cipher_name);
  const auto cipher = cipher_of_family(family, key);
  if (!cipher) {
    return corrupt("Algorithm '{}' with key size {} bytes not supported", family, key);
  }
  spec->cipher = *cipher;
  const auto hash_name = text_of(disk.hash_name);
  const auto hash_algorithm = hash_named(hash_name);
  if (!hash_algorithm) {
    return corrupt("Hash algorithm '{}' not supported", hash_name);
  }
  LuksHeader header;
  header.cipher = *spec;
  header.hash = *hash_algorithm;
  header.payload_offset = std::uint64_t{disk.payload_sectors} * kSectorBytes;
  header.digest = disk.digest;
  header.salt = disk.salt;
  header.iterations = disk.iterations;
  header.uuid = text_of(disk.uuid);
  for (std::size_t i = 0; i < kLuksSlots; ++i) {
    const auto& slot = disk.slots[i];
    header.slots[i] = {.active = slot.state == kSlotActive,
                       .iterations = slot.iterations,
                       .salt = slot.salt,
                       .offset = std::uint64_t{slot.offset_sectors} * kSectorBytes};
  }
  std::memcpy(header.raw.data(), &disk, sizeof disk);
  return header;
}

Result<LuksHeader> plan_luks_header(const LuksOptions& options) {
  LuksHeader header;
  header.cipher = options.cipher;
  header.hash = options.hash;
  if (header.cipher.iv == IvGenerator::kEssiv && !header.cipher.iv_hash) {
    header.cipher.iv_hash = HashAlgorithm::kSha256;
  }
  const auto family = luks_family(header.cipher.cipher);
  if (family.empty()) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("Algorithm '{}' not supported", name_of(header.cipher.cipher)));
  }
  const auto step = align_up(header.material_bytes(), kLuksSlotAlignment);
  header.payload_offset = kLuksSlotAlignment + kLuksSlots * step;
  header.uuid = new_uuid();
  DiskHeader disk{};
  disk.magic = kMagic;
  disk.version = 1;
  put(disk.cipher_name, family);
  put(disk.cipher_mode, fmt::format("{}-{}{}{}", name_of(header.cipher.mode), name_of(header.cipher.iv),
                                    header.cipher.iv_hash ? ":" : "",
                                    header.cipher.iv_hash ? name_of(*header.cipher.iv_hash) : ""));
  put(disk.hash_name, name_of(options.hash));
  disk.payload_sectors = static_cast<std::uint32_t>(header.payload_offset / kSectorBytes);
  disk.key_bytes = static_cast<std::uint32_t>(header.key_bytes());
  put(disk.uuid, header.uuid);
  std::memcpy(header.raw.data(), &disk, sizeof disk);
  for (std::size_t i = 0; i < kLuksSlots; ++i) {
    header.set_slot(i, {.offset = kLuksSlotAlignment + i * step});
  }
  return header;
}

}  // namespace whistler::crypto

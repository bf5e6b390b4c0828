#include "firmware/smbios.hpp"

#include <string>
#include <vector>

#include "firmware/byte_builder.hpp"

namespace whistler {
namespace {

constexpr std::string_view kMaker = "Whistler";

/// The structures one after the other (DSP0134 6.1.2: header, fields, strings).
class Structures {
 public:
  /// Opens a structure; its handle is its number of appearance plus type * 256.
  ByteBuilder& begin(unsigned type, unsigned instance = 0) {
    body_ = {};
    strings_.clear();
    body_.add8(type);
    body_.add8(0);
    body_.add<std::uint16_t>(static_cast<std::uint16_t>(type << 8 | instance));
    return body_;
  }
  /// Adds the number of a string, which follows the fields; an empty one is 0.
  void text(std::string_view value) {
    std::string clean(value.substr(0, 64));
    std::erase(clean, '\0');
    if (clean.empty()) {
      body_.add8(0);
      return;
    }
    strings_.push_back(clean);
    body_.add8(static_cast<unsigned>(strings_.size()));
  }
  void end() {
    body_.bytes[1] = static_cast<std::uint8_t>(body_.size());
    largest_ = std::max<std::size_t>(largest_, body_.size() + 2);
    const auto start = all_.size();
    all_.add_bytes(body_.bytes);
    for (const auto& value : strings_) {
      all_.add_text(value, value.size() + 1);
    }
    all_.add_zeros(strings_.empty() ? 2 : 1);
    largest_ = std::max<std::size_t>(largest_, all_.size() - start);
    ++count_;
  }
  [[nodiscard]] ByteBuilder& all() { return all_; }
  [[nodiscard]] unsigned count() const { return count_; }
  [[nodiscard]] std::size_t largest() const { return largest_; }

 private:
  ByteBuilder body_;
  std::vector<std::string> strings_;
  ByteBuilder all_;
  unsigned count_ = 0;
  std::size_t largest_ = 0;
};

void add_identity(Structures& out, const MachineFacts& facts) {
  auto* body = &out.begin(0);  // BIOS information
  out.text(kMaker);
  out.text("1.0");
  body->add<std::uint16_t>(0xE800);
  out.text("04/01/2014");
  body->add8(0);
  body->add<std::uint64_t>(1 << 3);  // characteristics are not given
  body->add8(0);
  body->add8(0x04);  // enables targeted content distribution
  body->add8(0);
  body->add8(0);
  body->add8(0xFF);
  body->add8(0xFF);
  out.end();

  body = &out.begin(1);  // system information
  out.text(kMaker);
  out.text(facts.name);
  out.text("pc-i440fx");
  out.text("");
  // Version 2.6 fixed the order that Windows always read: the first three fields little-endian.
  for (const unsigned at : {3U, 2U, 1U, 0U, 5U, 4U, 7U, 6U, 8U, 9U, 10U, 11U, 12U, 13U, 14U, 15U}) {
    body->add8(facts.uuid[at]);
  }
  body->add8(6);  // wake-up: power switch
  out.text("");
  out.text("");
  out.end();

  body = &out.begin(3);  // chassis
  out.text(kMaker);
  body->add8(1);  // other
  out.text("pc-i440fx");
  out.text("");
  out.text("");
  body->add8(3);  // boot-up, power supply and thermal state: safe
  body->add8(3);
  body->add8(3);
  body->add8(2);  // security: unknown
  body->add<std::uint32_t>(0);
  body->add_zeros(4);
  out.end();

  body = &out.begin(4);  // processor: one socket, whatever the number of its cores
  out.text("CPU 0");
  body->add8(3);  // central processor
  body->add8(1);  // other family
  out.text(kMaker);
  body->add<std::uint64_t>(0);
  out.text("");
  body->add8(0);
  body->add<std::uint16_t>(0);
  body->add<std::uint16_t>(0);
  body->add<std::uint16_t>(0);
  body->add8(0x41);  // populated, enabled
  body->add8(1);
  body->add<std::uint16_t>(0xFFFF);  // no cache information
  body->add<std::uint16_t>(0xFFFF);
  body->add<std::uint16_t>(0xFFFF);
  out.text("");
  out.text("");
  out.text("");
  body->add8(facts.cpus);
  body->add8(facts.cpus);
  body->add8(facts.cpus);
  body->add<std::uint16_t>(0x0002);  // characteristics: unknown
  out.end();
}

void add_memory(Structures& out, const MachineFacts& facts) {
  constexpr std::uint64_t kKib = 1024;
  constexpr std::uint64_t kMib = 1024 * kKib;
  constexpr std::uint64_t kModule = 16 * 1024 * kMib;  // type 17 counts MiB in 15 bits
  const std::uint64_t total = facts.ram_below_4g + facts.ram_above_4g;
  const auto modules = static_cast<unsigned>(std::min<std::uint64_t>((total + kModule - 1) / kModule, 255));

  auto* body = &out.begin(16);  // physical memory array
  body->add8(1);
  body->add8(3);  // system memory
  body->add8(3);  // no error correction
  body->add<std::uint32_t>(static_cast<std::uint32_t>(std::min<std::uint64_t>(total / kKib, 0x8000'0000)));
  body->add<std::uint16_t>(0xFFFE);
  body->add<std::uint16_t>(static_cast<std::uint16_t>(modules));
  out.end();

  for (unsigned i = 0; i < modules; ++i) {
    const auto size = std::min(kModule, total - i * kModule);
    body = &out.begin(17, i);  // memory device
    body->add<std::uint16_t>(16 << 8);
    body->add<std::uint16_t>(0xFFFE);
    body->add<std::uint16_t>(64);
    body->add<std::uint16_t>(64);
    body->add<std::uint16_t>(static_cast<std::uint16_t>(size / kMib));
    body->add8(9);  // DIMM
    body->add8(0);
    out.text("DIMM " + std::to_string(i));
    out.text("");
    body->add8(7);  // RAM
    body->add<std::uint16_t>(0x0002);
    body->add<std::uint16_t>(0);
    out.text(kMaker);
    out.text("");
    out.text("");
    out.text("");
    out.end();
  }

  const auto add_range = [&](std::uint64_t base, std::uint64_t length, unsigned instance) {
    auto& range = out.begin(19, instance);  // memory array mapped address, in KiB, ends inclusive
    range.add<std::uint32_t>(static_cast<std::uint32_t>(base / kKib));
    range.add<std::uint32_t>(static_cast<std::uint32_t>((base + length) / kKib - 1));
    range.add<std::uint16_t>(16 << 8);
    range.add8(1);
    out.end();
  };
  add_range(0, facts.ram_below_4g, 0);
  if (facts.ram_above_4g > 0) {
    add_range(std::uint64_t{1} << 32, facts.ram_above_4g, 1);
  }
}

}  // namespace

SmbiosFiles make_smbios_files(const MachineFacts& facts) {
  Structures out;
  add_identity(out, facts);
  add_memory(out, facts);
  auto& boot = out.begin(32);  // system boot information: no errors
  boot.add_zeros(7);
  out.end();
  out.begin(127);
  out.end();

  ByteBuilder anchor;  // DSP0134 5.2.1
  anchor.add_text("_SM_", 4);
  anchor.add8(0);
  anchor.add8(0x1F);
  anchor.add8(2);
  anchor.add8(5);
  anchor.add<std::uint16_t>(static_cast<std::uint16_t>(out.largest()));
  anchor.add_zeros(6);
  anchor.add_text("_DMI_", 5);
  anchor.add8(0);
  anchor.add<std::uint16_t>(static_cast<std::uint16_t>(out.all().size()));
  anchor.add<std::uint32_t>(0);
  anchor.add<std::uint16_t>(static_cast<std::uint16_t>(out.count()));
  anchor.add8(0x25);
  return {std::move(anchor.bytes), std::move(out.all().bytes)};
}

void resolve_smbios_anchor(std::vector<std::uint8_t>& anchor, std::uint32_t address) {
  constexpr std::size_t kSize = 0x1F;
  if (anchor.size() < kSize) {
    return;
  }
  store_le<std::uint32_t>(&anchor[24], address);
  anchor[21] = 0;
  anchor[21] = checksum_of(std::span(anchor).subspan(16, 15));
  anchor[4] = 0;
  anchor[4] = checksum_of(std::span(anchor).first(kSize));
}

}  // namespace whistler

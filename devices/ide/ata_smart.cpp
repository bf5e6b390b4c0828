// AtaDisk: SMART (T13/1410D, 8.54), of a disk that never ages.
#include <algorithm>
#include <span>

#include "base/bytes.hpp"
#include "devices/ide/ata_disk.hpp"

namespace whistler {
namespace {

constexpr std::uint8_t kKeyMid = 0x4F;  // LBA_MID and LBA_HIGH of every SMART command
constexpr std::uint8_t kKeyHigh = 0xC2;

struct Attribute {
  std::uint8_t id;
  std::uint16_t flags;
  std::uint8_t value;
  std::uint8_t threshold;
};
constexpr std::array kAttributes{
    Attribute{1, 0x0003, 100, 6},    // raw read errors
    Attribute{3, 0x0003, 100, 0},    // spin-up time
    Attribute{4, 0x0002, 100, 20},   // starts and stops
    Attribute{5, 0x0003, 100, 36},   // reallocated sectors
    Attribute{9, 0x0003, 100, 0},    // hours
    Attribute{12, 0x0003, 100, 0},   // power cycles
    Attribute{190, 0x0003, 69, 50},  // air flow temperature
};
constexpr std::size_t kAttributeBytes = 12;

void close_page(std::array<std::uint8_t, AtaDisk::kSectorBytes>& page) {
  std::uint8_t sum = 0;
  for (std::size_t i = 0; i < 511; ++i) {
    sum = static_cast<std::uint8_t>(sum + page[i]);
  }
  page[511] = static_cast<std::uint8_t>(-sum);
}

}  // namespace

std::array<std::uint8_t, AtaDisk::kSectorBytes> AtaDisk::smart_data(bool thresholds) {
  std::array<std::uint8_t, kSectorBytes> page{};
  page[0] = 1;  // revision
  for (std::size_t i = 0; i < kAttributes.size(); ++i) {
    const Attribute& attribute = kAttributes[i];
    std::uint8_t* const at = &page[2 + i * kAttributeBytes];
    at[0] = attribute.id;
    if (thresholds) {
      at[1] = attribute.threshold;
    } else {
      store_le<std::uint16_t>(at + 1, attribute.flags);
      at[3] = at[4] = attribute.value;  // now and at the worst
    }
  }
  if (!thresholds) {
    page[362] = 0x02;  // off-line collection has completed
    page[366] = 0x01;  // it takes a second
    page[367] = 0x1B;  // off-line and self-test commands are known
    page[368] = 0x03;  // attributes are saved
    page[370] = 0x01;  // error logging
    page[372] = 1;     // minutes of a self-test
    page[373] = 1;
  }
  close_page(page);
  return page;
}

void AtaDisk::execute_smart() {
  const std::uint8_t feature = regs_.FEATURES;
  if (regs_.LBA_MID != kKeyMid || regs_.LBA_HIGH != kKeyHigh || (!s_.smart && feature != 0xD8)) {
    abort_command();
    return;
  }
  switch (feature) {
    case 0xD0: send_page(smart_data(false)); return;
    case 0xD1: send_page(smart_data(true)); return;
    case 0xD2:  // ENABLE/DISABLE ATTRIBUTE AUTOSAVE
      s_.smart_autosave = regs_.COUNT != 0;
      break;
    case 0xD3: break;  // SAVE ATTRIBUTE VALUES
    case 0xD4: break;  // EXECUTE OFF-LINE IMMEDIATE: passed as soon as asked
    case 0xD5: {       // READ LOG
      std::array<std::uint8_t, kSectorBytes> page{};
      page[0] = 1;  // revision; there are no entries
      switch (regs_.LBA_LOW) {
        case 0x00:  // directory: one sector each
          page[2] = page[2 * 6] = 1;
          break;
        case 0x01:  // summary error log
        case 0x06:  // self-test log
          close_page(page);
          break;
        default: abort_command(); return;
      }
      if (regs_.COUNT != 1) {
        abort_command();
        return;
      }
      send_page(page);
      return;
    }
    case 0xD8: s_.smart = true; break;
    case 0xD9: s_.smart = false; break;
    case 0xDA: break;  // RETURN STATUS: the key unchanged says that no threshold is exceeded
    case 0xDB: break;  // ENABLE/DISABLE AUTOMATIC OFF-LINE
    default: abort_command(); return;
  }
  complete_with_interrupt();
}

}  // namespace whistler

// AtaDisk: the IDENTIFY DEVICE page (T13/1410D, table 27).
#include <algorithm>

#include "base/bytes.hpp"
#include "devices/ide/ata_disk.hpp"

namespace whistler {

std::array<std::uint8_t, AtaDisk::kSectorBytes> AtaDisk::identify() const {
  std::array<std::uint8_t, kSectorBytes> page{};
  const auto put = [&page](unsigned word, unsigned value) {
    store_le<std::uint16_t>(&page[std::size_t{word} * 2], static_cast<std::uint16_t>(value));
  };
  const auto put32 = [&put](unsigned word, std::uint64_t value) {
    put(word, static_cast<unsigned>(value & 0xFFFF));
    put(word + 1, static_cast<unsigned>((value >> 16) & 0xFFFF));
  };
  const auto put_text = [&page](unsigned word, unsigned words, const std::string& text) {
    put_ata_string(std::span(page).subspan(std::size_t{word} * 2, std::size_t{words} * 2), text);
  };
  const auto flag = [](bool on, unsigned bit) { return on ? 1U << bit : 0U; };

  put(0, 0x0040);  // fixed drive
  put(1, geometry_.cylinders);
  put(3, geometry_.heads);
  put(4, kSectorBytes * geometry_.sectors);
  put(5, kSectorBytes);
  put(6, geometry_.sectors);
  put_text(10, 10, serial_);
  put(20, 3);    // dual-ported buffer with read cache
  put(21, 512);  // of 256 KiB
  put(22, 4);
  put_text(23, 4, firmware_);
  put_text(27, 20, model_);
  put(47, 0x8010);  // 16 sectors a READ MULTIPLE
  put(48, 1);       // 32-bit data port
  put(49, 0x0B00);  // IORDY, LBA, DMA
  put(50, 0x4000);
  put(51, 0x0200);
  put(52, 0x0200);
  put(53, 7);  // words 54-58, 64-70 and 88 are valid
  put(54, s_.cylinders);
  put(55, s_.heads);
  put(56, s_.sectors);
  put32(57, std::min<std::uint64_t>(std::uint64_t{s_.cylinders} * s_.heads * s_.sectors, 0xFFFFFFFF));
  put(59, s_.multiple != 0 ? 0x0100U | s_.multiple : 0);
  put32(60, std::min<std::uint64_t>(s_.max_sectors, 0x0FFFFFFF));
  const unsigned kind = s_.transfer_mode >> 3;
  const unsigned mode = s_.transfer_mode & 7;
  put(62, 0x07 | (kind == 2 ? 0x100U << mode : 0));  // single word DMA
  put(63, 0x07 | (kind == 4 ? 0x100U << mode : 0));  // multiword DMA
  put(64, 0x03);                                     // PIO 3 and 4
  for (unsigned word = 65; word <= 68; ++word) {
    put(word, 120);  // ns a cycle
  }
  put(69, 0x4000);  // what was trimmed reads the same every time
  put(80, 0x00F0);  // ATA/ATAPI-4 to -7
  put(81, 0x0016);
  put(82, 0x7469);  // NOP, READ and WRITE BUFFER, host protected area, look-ahead, write cache, power
                    // management, SMART
  put(83, 0x7400);  // FLUSH CACHE (EXT), 48-bit addresses
  put(84, 0x4043);  // FUA, SMART self-test and error log
  put(85, 0x7408 | flag(s_.look_ahead, 6) | flag(s_.write_cache, 5) | flag(s_.smart, 0));
  put(86, 0x3400);
  put(87, 0x4043);
  put(88, 0x003F | (kind == 8 ? 0x100U << mode : 0));  // Ultra DMA up to 5
  put(93, 0x600B);  // the drive found an 80-wire cable and passed its diagnostic
  put32(100, s_.max_sectors);
  put32(102, s_.max_sectors >> 32);
  put(105, 8);       // blocks a DATA SET MANAGEMENT
  put(106, 0x4000);  // one logical sector a physical one
  put(169, 0x0001);  // trim
  put_identify_checksum(page);
  return page;
}

}  // namespace whistler

// AtapiCdrom: packets that do something.
#include <algorithm>
#include <utility>

#include "base/bytes.hpp"
#include "devices/ide/atapi_cdrom.hpp"

namespace whistler {
namespace {

using namespace atapi;

constexpr std::size_t kModeHeaderBytes = 8;
constexpr std::uint8_t kRecovery = 0x01;
constexpr std::uint8_t kAudio = 0x0E;
constexpr std::uint8_t kCapabilities = 0x2A;
constexpr std::uint8_t kAllPages = 0x3F;

void put_text(std::span<std::uint8_t> to, std::string_view text) {
  for (std::size_t i = 0; i < to.size(); ++i) {
    const char c = i < text.size() ? text[i] : ' ';
    to[i] = c >= ' ' && c <= '~' ? static_cast<std::uint8_t>(c) : std::uint8_t{'?'};
  }
}

/// Block address of a time, or nothing if that is none.
std::uint32_t block_of_time(const std::uint8_t* msf) {
  const std::uint32_t frame = (msf[0] * 60U + msf[1]) * 75U + msf[2];
  return frame >= 150 ? frame - 150 : 0xFFFFFFFF;
}

}  // namespace

void AtapiCdrom::packet(const Packet& cdb) {
  const std::uint8_t opcode = cdb[0];
  switch (opcode) {  // these answer whatever the disc does, and do not take a unit attention away
    case 0x03: request_sense(cdb); return;
    case 0x12: inquiry(cdb); return;
    case 0x46: configuration(cdb); return;
    case 0x4A: event_status(cdb); return;
    default: break;
  }
  if (s_.disc_changed) {
    s_.disc_changed = false;
    packet_failed({kUnitAttention, kAscMediumChanged, 0});
    return;
  }
  s_.sense_key = s_.asc = s_.ascq = 0;
  switch (opcode) {
    case 0x1B: start_stop(cdb); return;
    case 0x1E:  // PREVENT ALLOW MEDIUM REMOVAL
      s_.locked = (cdb[4] & 1) != 0;
      packet_done();
      return;
    case 0x55: {  // MODE SELECT (10)
      const std::size_t bytes = load_be<std::uint16_t>(&cdb[7]);
      if (bytes == 0) {
        packet_done();
        return;
      }
      s_.operation = Operation::kModeSelect;
      if (s_.dma) {
        transfer_.buffer.assign(bytes, 0);
        transfer_.position = 0;
        wait_for_dma(ata::kReady | ata::kDrq | ata::kBsy);
        return;
      }
      if (s_.byte_limit < bytes) {  // a list in several DRQ blocks is nothing any driver sends
        s_.operation = Operation::kNone;
        packet_failed({kIllegalRequest, kAscInvalidField, 0});
        return;
      }
      regs_.COUNT = 0;
      regs_.LBA_MID = static_cast<std::uint8_t>(bytes);
      regs_.LBA_HIGH = static_cast<std::uint8_t>(bytes >> 8);
      start_pio_out(bytes);
      host_.raise_interrupt();
      return;
    }
    case 0x5A: mode_sense(cdb); return;
    case 0xBB: packet_done(); return;  // SET CD SPEED: always as fast as it goes
    case 0xBD: mechanism_status(cdb); return;
    default: packet_with_disc(cdb); return;
  }
}

void AtapiCdrom::packet_with_disc(const Packet& cdb) {
  switch (cdb[0]) {
    case 0x00:
    case 0x25:
    case 0x28:
    case 0x2B:
    case 0x42:
    case 0x43:
    case 0x51:
    case 0x52:
    case 0xA8:
    case 0xAD:
    case 0xB9:
    case 0xBE: break;
    default: packet_failed({kIllegalRequest, kAscInvalidOpcode, 0}); return;
  }
  if (!has_disc()) {
    packet_failed({kNotReady, kAscNoMedium, static_cast<std::uint8_t>(s_.tray_open ? 2 : 1)});
    return;
  }
  switch (cdb[0]) {
    case 0x00: packet_done(); return;  // TEST UNIT READY
    case 0x25: {                       // READ CAPACITY
      Reply data(8);
      store_be<std::uint32_t>(data.data(), std::max(disc_blocks(), 1U) - 1);
      store_be<std::uint32_t>(data.data() + 4, kBlockBytes);
      reply(std::move(data), 8);
      return;
    }
    case 0x28:
      begin_read(load_be<std::uint32_t>(&cdb[2]), load_be<std::uint16_t>(&cdb[7]), kUserData);
      return;
    case 0xA8:
      begin_read(load_be<std::uint32_t>(&cdb[2]), load_be<std::uint32_t>(&cdb[6]), kUserData);
      return;
    case 0x2B:  // SEEK (10)
      if (load_be<std::uint32_t>(&cdb[2]) >= disc_blocks()) {
        packet_failed({kIllegalRequest, kAscOutOfRange, 0});
      } else {
        packet_done();
      }
      return;
    case 0x42: read_subchannel(cdb); return;
    case 0x43: read_toc(cdb); return;
    case 0x51: disc_information(cdb); return;
    case 0x52: track_information(cdb); return;
    case 0xAD: dvd_structure(cdb); return;
    case 0xB9: read_cd(cdb, true); return;
    default: read_cd(cdb, false); return;
  }
}

void AtapiCdrom::request_sense(const Packet& cdb) {
  if (s_.disc_changed && s_.sense_key == 0) {
    s_.disc_changed = false;
    s_.sense_key = kUnitAttention;
    s_.asc = kAscMediumChanged;
    s_.ascq = 0;
  }
  Reply data(18);
  data[0] = 0x70;  // current error, fixed format
  data[2] = s_.sense_key;
  data[7] = 10;  // bytes that follow
  data[12] = s_.asc;
  data[13] = s_.ascq;
  s_.sense_key = s_.asc = s_.ascq = 0;
  reply(std::move(data), cdb[4]);
}

void AtapiCdrom::inquiry(const Packet& cdb) {
  if ((cdb[1] & 3) != 0 || cdb[2] != 0) {  // no vital product data
    packet_failed({kIllegalRequest, kAscInvalidField, 0});
    return;
  }
  Reply data(36);
  data[0] = 0x05;  // CD-ROM
  data[1] = 0x80;  // removable
  data[2] = 0x00;
  data[3] = 0x21;  // SFF-8020i, response format 1
  data[4] = 31;    // bytes that follow
  // The model is "VENDOR PRODUCT": the first word, if short enough, is the vendor.
  const auto blank = model_.find(' ');
  const bool split = blank != std::string::npos && blank <= 8;
  put_text(std::span(data).subspan(8, 8), split ? model_.substr(0, blank) : model_.substr(0, 8));
  put_text(std::span(data).subspan(16, 16), split ? model_.substr(blank + 1) : model_);
  put_text(std::span(data).subspan(32, 4), firmware_);
  reply(std::move(data), load_be<std::uint16_t>(&cdb[3]));
}

void AtapiCdrom::start_stop(const Packet& cdb) {
  const bool load_or_eject = (cdb[4] & 2) != 0;
  const bool start = (cdb[4] & 1) != 0;
  if ((cdb[4] & 0xF0) == 0 && load_or_eject) {
    if (start) {
      close_tray();
    } else if (s_.locked) {
      packet_failed({kIllegalRequest, kAscRemovalPrevented, 2});
      return;
    } else {
      open_tray();
    }
  }
  packet_done();
}

void AtapiCdrom::read_cd(const Packet& cdb, bool by_time) {
  std::uint32_t lba = load_be<std::uint32_t>(&cdb[2]);
  std::uint32_t blocks = load_be<std::uint32_t>(&cdb[5]) & 0xFFFFFF;  // bytes 6 to 8
  if (by_time) {
    lba = block_of_time(&cdb[3]);
    const std::uint32_t end = block_of_time(&cdb[6]);
    if (lba == 0xFFFFFFFF || end == 0xFFFFFFFF || end < lba) {
      packet_failed({kIllegalRequest, kAscInvalidField, 0});
      return;
    }
    blocks = end - lba;
  }
  const unsigned type = (cdb[1] >> 2) & 7U;
  const std::uint8_t parts = cdb[9] & 0xF8;
  if (type != 0 && type != 2) {  // all there is are data sectors of mode 1
    packet_failed({kIllegalRequest, kAscIllegalMode, 0});
  } else if ((cdb[9] & 0x06) != 0 || (cdb[10] & 7) != 0 || (parts != 0 && (parts & kUserData) == 0)) {
    packet_failed({kIllegalRequest, kAscInvalidField, 0});
  } else {
    begin_read(lba, parts == 0 ? 0 : blocks, parts);
  }
}

void AtapiCdrom::event_status(const Packet& cdb) {
  constexpr std::uint8_t kMediaClass = 4;
  if ((cdb[1] & 1) == 0) {  // only polling is possible without overlap
    packet_failed({kIllegalRequest, kAscInvalidField, 0});
    return;
  }
  Reply data(4);
  data[3] = 1U << kMediaClass;  // classes known
  if ((cdb[4] & (1U << kMediaClass)) == 0) {
    data[2] = 0x80;  // no event of the classes asked for
  } else {
    data.resize(8);
    data[2] = kMediaClass;
    data[4] = std::exchange(s_.media_event, std::uint8_t{0});
    data[5] = static_cast<std::uint8_t>((s_.tray_open ? 1 : 0) | (has_disc() ? 2 : 0));
  }
  store_be<std::uint16_t>(data.data(), static_cast<std::uint16_t>(data.size() - 2));
  reply(std::move(data), load_be<std::uint16_t>(&cdb[7]));
}

// ---- mode pages ----

AtapiCdrom::Reply AtapiCdrom::mode_page(std::uint8_t page, unsigned control) const {
  const bool changeable = control == 1;
  const bool defaults = control == 2;
  switch (page) {
    case kRecovery:
      if (changeable) {
        return {kRecovery, 6, 0xFF, 0xFF, 0, 0, 0, 0};
      }
      return defaults ? Reply{kRecovery, 6, 0, 5, 0, 0, 0, 0}
                      : Reply(s_.recovery_page.begin(), s_.recovery_page.end());
    case kAudio:
      if (changeable) {
        return {kAudio, 14, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0, 0xFF, 0, 0, 0, 0};
      }
      return defaults ? Reply{kAudio, 14, 4, 0, 0, 0, 0, 75, 1, 0xFF, 2, 0xFF, 0, 0, 0, 0}
                      : Reply(s_.audio_page.begin(), s_.audio_page.end());
    case kCapabilities: {
      Reply data(20);
      data[0] = kCapabilities;
      data[1] = 18;
      if (!changeable) {
        data[2] = 0x3B;  // reads CD-R, CD-RW and DVD-ROM
        data[4] = 0x71;  // multi-session, mode 2, audio output
        data[5] = 0x60;  // no audio commands
        data[6] = static_cast<std::uint8_t>(0x29 | (s_.locked ? 2 : 0));  // tray, eject, lock
        store_be<std::uint16_t>(&data[8], 706);                           // KiB/s: fourfold
        store_be<std::uint16_t>(&data[10], 2);                            // volume levels
        store_be<std::uint16_t>(&data[12], 512);                          // KiB of buffer
        store_be<std::uint16_t>(&data[14], 706);
      }
      return data;
    }
    default: return {};
  }
}

void AtapiCdrom::mode_sense(const Packet& cdb) {
  const unsigned control = cdb[2] >> 6;
  const std::uint8_t page = cdb[2] & 0x3F;
  if (control == 3) {
    packet_failed({kIllegalRequest, kAscSavingUnsupported, 0});
    return;
  }
  Reply data(kModeHeaderBytes);
  if (page == kAllPages) {
    for (const auto each : {kRecovery, kAudio, kCapabilities}) {
      const Reply part = mode_page(each, control);
      data.insert(data.end(), part.begin(), part.end());
    }
  } else {
    const Reply part = mode_page(page, control);
    if (part.empty()) {
      packet_failed({kIllegalRequest, kAscInvalidField, 0});
      return;
    }
    data.insert(data.end(), part.begin(), part.end());
  }
  store_be<std::uint16_t>(data.data(), static_cast<std::uint16_t>(data.size() - 2));
  data[2] = s_.tray_open ? 0x71 : has_disc() ? 0x01 : 0x70;  // door open, data disc of 120 mm, no disc
  reply(std::move(data), load_be<std::uint16_t>(&cdb[7]));
}

void AtapiCdrom::mode_select_done() {
  const std::span<const std::uint8_t> list = transfer_.buffer;
  std::size_t at = kModeHeaderBytes;
  while (at + 2 <= list.size()) {
    const std::uint8_t page = list[at] & 0x3F;
    const std::size_t bytes = std::size_t{2} + list[at + 1];
    const Reply now = mode_page(page, 0);
    if (now.size() != bytes || bytes > list.size() - at) {
      packet_failed({kIllegalRequest, kAscInvalidParameter, 0});
      return;
    }
    const Reply mask = mode_page(page, 1);
    const auto merge = [&](auto& stored) {
      for (std::size_t i = 2; i < bytes; ++i) {
        stored[i] = static_cast<std::uint8_t>((stored[i] & ~mask[i]) | (list[at + i] & mask[i]));
      }
    };
    if (page == kRecovery) {
      merge(s_.recovery_page);
    } else if (page == kAudio) {
      merge(s_.audio_page);
    }
    at += bytes;
  }
  packet_done();
}

}  // namespace whistler

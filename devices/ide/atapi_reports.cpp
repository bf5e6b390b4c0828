// AtapiCdrom: packets that describe disc and drive.
#include <algorithm>
#include <utility>

#include "base/bytes.hpp"
#include "devices/ide/atapi_cdrom.hpp"

namespace whistler {
namespace {

using namespace atapi;

constexpr std::uint8_t kDataTrack = 0x14;  // ADR 1, data track, no copying
constexpr std::uint8_t kLeadOut = 0xAA;

/// An address as reports give it: a block number, or minute, second and frame.
void append_address(std::vector<std::uint8_t>& to, std::uint32_t lba, bool as_time) {
  const std::size_t at = to.size();
  to.resize(at + 4);
  if (as_time) {
    const std::uint32_t frame = lba + 150;
    to[at + 1] = static_cast<std::uint8_t>(frame / 75 / 60);
    to[at + 2] = static_cast<std::uint8_t>(frame / 75 % 60);
    to[at + 3] = static_cast<std::uint8_t>(frame % 75);
  } else {
    store_be<std::uint32_t>(&to[at], lba);
  }
}

void set_length(std::vector<std::uint8_t>& reply) {
  store_be<std::uint16_t>(reply.data(), static_cast<std::uint16_t>(reply.size() - 2));
}

void append(std::vector<std::uint8_t>& to, std::initializer_list<std::uint8_t> bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}

}  // namespace

void AtapiCdrom::read_toc(const Packet& cdb) {
  const bool as_time = (cdb[1] & 2) != 0;
  const unsigned in_control = cdb[9] >> 6;  // where SFF-8020i has the format
  const unsigned format = (cdb[2] & 0x0FU) != 0 ? cdb[2] & 0x0FU : in_control;
  const std::uint8_t start = cdb[6];
  Reply data{0, 0, 1, 1};  // first and last track or session
  switch (format) {
    case 0:
      if (start > 1 && start != kLeadOut) {
        packet_failed({kIllegalRequest, kAscInvalidField, 0});
        return;
      }
      if (start <= 1) {
        append(data, {0, kDataTrack, 1, 0});
        append_address(data, 0, as_time);
      }
      append(data, {0, kDataTrack, kLeadOut, 0});
      append_address(data, disc_blocks(), as_time);
      break;
    case 1:  // sessions
      append(data, {0, kDataTrack, 1, 0});
      append_address(data, 0, as_time);
      break;
    case 2: {  // what the lead-in holds: first track, last track, lead-out, track 1
      const auto entry = [&data](std::uint8_t point, std::uint32_t minute, std::uint32_t second,
                                 std::uint32_t frame) {
        append(data, {1, kDataTrack, 0, point, 0, 0, 0, 0, static_cast<std::uint8_t>(minute),
                      static_cast<std::uint8_t>(second), static_cast<std::uint8_t>(frame)});
      };
      const std::uint32_t end = disc_blocks() + 150;
      entry(0xA0, 1, 0, 0);
      entry(0xA1, 1, 0, 0);
      entry(0xA2, end / 75 / 60, end / 75 % 60, end % 75);
      entry(1, 0, 2, 0);
      break;
    }
    default: packet_failed({kIllegalRequest, kAscInvalidField, 0}); return;
  }
  set_length(data);
  reply(std::move(data), load_be<std::uint16_t>(&cdb[7]));
}

void AtapiCdrom::read_subchannel(const Packet& cdb) {
  Reply data{0, 0x15, 0, 0};  // no audio status to tell
  if ((cdb[2] & 0x40) != 0) {
    switch (cdb[3]) {
      case 1:  // position
        append(data, {1, kDataTrack, 1, 1});
        append_address(data, 0, (cdb[1] & 2) != 0);
        append_address(data, 0, (cdb[1] & 2) != 0);
        break;
      case 2:  // catalogue number: none
        data.resize(24);
        data[4] = 2;
        break;
      case 3:  // ISRC: none
        data.resize(24);
        data[4] = 3;
        data[5] = kDataTrack;
        data[6] = cdb[6];
        break;
      default: packet_failed({kIllegalRequest, kAscInvalidField, 0}); return;
    }
  }
  store_be<std::uint16_t>(&data[2], static_cast<std::uint16_t>(data.size() - 4));
  reply(std::move(data), load_be<std::uint16_t>(&cdb[7]));
}

void AtapiCdrom::configuration(const Packet& cdb) {
  const unsigned requested = cdb[1] & 3U;  // all, only current ones, only the starting one
  const unsigned first = load_be<std::uint16_t>(&cdb[2]);
  if (requested == 3) {
    packet_failed({kIllegalRequest, kAscInvalidField, 0});
    return;
  }
  const bool cd = has_disc() && !is_dvd();
  const bool dvd = has_disc() && is_dvd();
  constexpr std::uint16_t kProfileCdRom = 0x0008;
  constexpr std::uint16_t kProfileDvdRom = 0x0010;
  Reply data(8);
  store_be<std::uint16_t>(&data[6], cd ? kProfileCdRom : dvd ? kProfileDvdRom : std::uint16_t{0});
  const auto feature = [&](unsigned code, unsigned version, bool persistent, bool current,
                           std::initializer_list<std::uint8_t> body) {
    if ((requested == 2 && code != first) || code < first || (requested == 1 && !current)) {
      return;
    }
    append(data, {static_cast<std::uint8_t>(code >> 8), static_cast<std::uint8_t>(code),
                  static_cast<std::uint8_t>((version << 2) | (persistent ? 2U : 0) | (current ? 1U : 0)),
                  static_cast<std::uint8_t>(body.size())});
    append(data, body);
  };
  const auto on = [](bool yes) { return static_cast<std::uint8_t>(yes ? 1 : 0); };
  feature(0x0000, 0, true, true, {0x00, 0x10, on(dvd), 0, 0x00, 0x08, on(cd), 0});  // profiles
  feature(0x0001, 0, true, true, {0, 0, 0, 2});                                     // core: ATAPI
  feature(0x0002, 0, true, true, {0, 0, 0, 0});                    // morphing: no asynchronous events
  feature(0x0003, 0, true, true, {0x29, 0, 0, 0});                 // removable: tray, eject, lock
  feature(0x0010, 0, false, cd || dvd, {0, 0, 8, 0, 0, 1, 1, 0});  // random access: blocks of 2048
  feature(0x001D, 0, false, cd, {});                               // multi-read
  feature(0x001E, 0, false, cd, {0, 0, 0, 0});                     // CD read
  feature(0x001F, 0, false, dvd, {});                              // DVD read
  feature(0x0100, 0, true, true, {});                              // power management
  feature(0x0105, 0, true, true, {});                              // timeouts
  store_be<std::uint32_t>(data.data(), static_cast<std::uint32_t>(data.size() - 4));
  reply(std::move(data), load_be<std::uint16_t>(&cdb[7]));
}

void AtapiCdrom::disc_information(const Packet& cdb) {
  Reply data(34);
  data[2] = 0x0E;  // complete disc, last session complete
  data[3] = 1;     // first track; one session; first and last track of the last session
  data[4] = 1;
  data[5] = 1;
  data[6] = 1;
  data[7] = 0x20;                                         // unrestricted use
  std::fill_n(data.begin() + 16, 8, std::uint8_t{0xFF});  // nothing can be appended
  set_length(data);
  reply(std::move(data), load_be<std::uint16_t>(&cdb[7]));
}

void AtapiCdrom::track_information(const Packet& cdb) {
  const std::uint32_t address = load_be<std::uint32_t>(&cdb[2]);
  bool known = false;
  switch (cdb[1] & 3) {
    case 0: known = address < disc_blocks(); break;  // by block, by track, by session
    case 1:
    case 2: known = address == 1; break;
    default: break;
  }
  if (!known) {
    packet_failed({kIllegalRequest, kAscInvalidField, 0});
    return;
  }
  Reply data(36);
  data[2] = 1;     // track
  data[3] = 1;     // session
  data[5] = 0x04;  // data, uninterrupted
  data[6] = 0x01;  // mode 1
  store_be<std::uint32_t>(&data[24], disc_blocks());
  set_length(data);
  reply(std::move(data), load_be<std::uint16_t>(&cdb[7]));
}

void AtapiCdrom::dvd_structure(const Packet& cdb) {
  constexpr std::uint8_t kIncompatibleMedium = 0x30;
  if (!is_dvd()) {
    packet_failed({kIllegalRequest, kIncompatibleMedium, 2});
    return;
  }
  if (cdb[6] != 0) {  // one layer
    packet_failed({kIllegalRequest, kAscInvalidField, 0});
    return;
  }
  Reply data(4);
  switch (cdb[7]) {
    case 0x00: {  // physical format
      constexpr std::uint32_t kFirstSector = 0x030000;
      data.resize(4 + 2048);
      data[4] = 0x01;  // DVD-ROM, version 1
      data[5] = 0x0F;  // 120 mm, no rate given
      data[6] = 0x01;  // one layer, read-only
      store_be<std::uint32_t>(&data[8], kFirstSector);
      store_be<std::uint32_t>(&data[12], kFirstSector + std::max(disc_blocks(), 1U) - 1);
      break;
    }
    case 0x01:  // copyright: none
      data.resize(8);
      break;
    case 0x04:  // manufacturer: nothing said
      data.resize(4 + 2048);
      break;
    default: packet_failed({kIllegalRequest, kAscInvalidField, 0}); return;
  }
  set_length(data);
  reply(std::move(data), load_be<std::uint16_t>(&cdb[8]));
}

void AtapiCdrom::mechanism_status(const Packet& cdb) {
  Reply data(8);
  data[1] = s_.tray_open ? 0x10 : 0x00;
  data[5] = 1;  // one slot, without a table
  reply(std::move(data), load_be<std::uint16_t>(&cdb[8]));
}

}  // namespace whistler

// Intel 82371AB (PIIX4), function 3: the SMBus host controller's registers.
// Models: host status, control, command, address, data and the block data buffer; the controller with nobody
// on its bus: every transaction ends in a device error, as an address that is not acknowledged does. Missing:
// devices on the bus, the slave port, the interrupt (a transaction is polled to its end). Documentation:
// Intel 82371AB datasheet (290562-001), section 7.4.
#pragma once

#include <array>
#include <cstdint>

namespace whistler {

/// Part of Piix4Pm: a register file, one byte each. Under the machine lock.
class Piix4Smbus {
 public:
  static constexpr unsigned kLength = 16;
  static constexpr unsigned kBlockLength = 32;

  struct State {
    std::uint8_t SMBHSTSTS = 0;
    std::uint8_t SMBHSTCNT = 0;
    std::uint8_t SMBHSTCMD = 0;
    std::uint8_t SMBHSTADD = 0;
    std::uint8_t SMBHSTDAT0 = 0;
    std::uint8_t SMBHSTDAT1 = 0;
    std::uint8_t block_index = 0;  ///< which byte of the block buffer SMBBLKDAT is, 0..31
    std::array<std::uint8_t, kBlockLength> block{};
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("SMBHSTSTS", self.SMBHSTSTS);
      visit("SMBHSTCNT", self.SMBHSTCNT);
      visit("SMBHSTCMD", self.SMBHSTCMD);
      visit("SMBHSTADD", self.SMBHSTADD);
      visit("SMBHSTDAT0", self.SMBHSTDAT0);
      visit("SMBHSTDAT1", self.SMBHSTDAT1);
      visit("block_index", self.block_index);
      visit("block", self.block);
    }
  };

  [[nodiscard]] std::uint8_t read(unsigned offset);
  void write(unsigned offset, std::uint8_t value);
  void reset() { state_ = {}; }
  [[nodiscard]] const State& state() const { return state_; }
  /// `state` may come from a hostile file: an index out of range is brought back into it.
  void adopt(const State& state);

 private:
  void advance();  // to the next byte of the block buffer, around at its end

  State state_;
};

}  // namespace whistler

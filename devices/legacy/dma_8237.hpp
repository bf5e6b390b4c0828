// The two ISA DMA controllers and their page registers.
// Models: two Intel 8237A in cascade (channels 0-3 move bytes, 5-7 words), base and current address and
// count, flip-flop, mode, mask, request, status, temporary and command registers, autoinitialise, the page
// registers 0x80-0x8F and the high page registers 0x480-0x48F. A device moves data with transfer().
// Missing: memory-to-memory transfers, rotating priority, software requests (the registers are stored);
// timing.
// Documentation: Intel 8237A datasheet (231466); Intel 82371SB (PIIX3), section 2.5.1 "DMA registers".
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/core/device.hpp"
#include "devices/core/guest_memory.hpp"
#include "devices/core/io_handler.hpp"

namespace whistler {

class Dma8237 final : public Device {
 public:
  /// `memory` must outlive the controllers.
  explicit Dma8237(const GuestMemory& memory);

  /// The register ranges, all one byte wide.
  [[nodiscard]] IoHandler& first() { return first_; }  ///< channels 0-3: 16 ports, 0x00-0x0F of a PC
  [[nodiscard]] IoHandler& second() {
    return second_;
  }  ///< channels 4-7: 32 ports, two to a register, 0xC0-0xDF
  [[nodiscard]] IoHandler& pages() { return pages_; }  ///< 16 ports, 0x80-0x8F
  [[nodiscard]] IoHandler& high_pages() {
    return high_pages_;
  }  ///< 16 ports, 0x480-0x48F: address bits 24-31

  enum class Direction : std::uint8_t { kToMemory, kFromMemory };
  struct Moved {
    std::size_t bytes = 0;        ///< how many of the span were used
    bool terminal_count = false;  ///< the channel's count ran out: the device must stop
  };
  /// Moves up to bytes.size() bytes between a device and guest memory on `channel` (0-3, 5-7), as far as the
  /// channel's count goes. Nothing moves while the channel is masked, disabled or programmed for the other
  /// direction; in verify mode bytes count but are not stored. Word channels move whole words only.
  [[nodiscard]] Moved transfer(unsigned channel, Direction direction, std::span<std::uint8_t> bytes);

  [[nodiscard]] std::string_view id() const override { return "dma"; }
  void reset() override;
  void save(StateWriter& writer) const override { writer.put(state_); }
  [[nodiscard]] Result<void> load(const StateReader& reader) override;

 private:
  struct Channel {
    std::uint16_t base_address = 0;
    std::uint16_t base_count = 0;
    std::uint16_t address = 0;
    std::uint16_t count = 0;
    std::uint8_t mode = 0;  ///< bits 2-7 of the mode register
    bool operator==(const Channel&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("base_address", self.base_address);
      visit("base_count", self.base_count);
      visit("address", self.address);
      visit("count", self.count);
      visit("mode", self.mode);
    }
  };
  struct Controller {
    std::array<Channel, 4> channels{};
    std::uint8_t command = 0;
    std::uint8_t mask = 0x0F;
    std::uint8_t request = 0;
    std::uint8_t terminal_counts = 0;  ///< status bits 0-3
    std::uint8_t temporary = 0;
    bool high_byte_next = false;  ///< the byte pointer flip-flop
    bool operator==(const Controller&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("channels", self.channels);
      visit("command", self.command);
      visit("mask", self.mask);
      visit("request", self.request);
      visit("terminal_counts", self.terminal_counts);
      visit("temporary", self.temporary);
      visit("high_byte_next", self.high_byte_next);
    }
  };
  struct State {
    std::array<Controller, 2> controllers{};
    std::array<std::uint8_t, 16> pages{};
    std::array<std::uint8_t, 16> high_pages{};
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("controllers", self.controllers);
      visit("pages", self.pages);
      visit("high_pages", self.high_pages);
    }
  };

  /// The registers of one controller; neighbours are 1 << shift ports apart.
  class ControllerPorts final : public IoHandler {
   public:
    ControllerPorts(Controller& controller, unsigned shift) : controller_(controller), shift_(shift) {}
    [[nodiscard]] std::uint64_t read(std::uint64_t offset, unsigned width) override;
    void write(std::uint64_t offset, unsigned width, std::uint64_t value) override;

   private:
    void write_address_or_count(unsigned number, std::uint8_t value);
    [[nodiscard]] std::uint8_t read_address_or_count(unsigned number);
    void write_control(unsigned number, std::uint8_t value);

    Controller& controller_;
    unsigned shift_;
  };
  class PagePorts final : public IoHandler {
   public:
    explicit PagePorts(std::array<std::uint8_t, 16>& pages) : pages_(pages) {}
    [[nodiscard]] std::uint64_t read(std::uint64_t offset, unsigned) override { return pages_[offset & 15]; }
    void write(std::uint64_t offset, unsigned, std::uint64_t value) override {
      pages_[offset & 15] = static_cast<std::uint8_t>(value);
    }

   private:
    std::array<std::uint8_t, 16>& pages_;
  };

  [[nodiscard]] std::uint64_t physical_address(unsigned channel) const;

  const GuestMemory& memory_;
  State state_;
  ControllerPorts first_{state_.controllers[0], 0};
  ControllerPorts second_{state_.controllers[1], 1};
  PagePorts pages_{state_.pages};
  PagePorts high_pages_{state_.high_pages};
};

}  // namespace whistler

// A PS/2 mouse.
// Models: IBM PS/2 mouse with Microsoft's IntelliMouse (wheel, id 3) and IntelliMouse Explorer (five
// buttons, id 4) extensions: stream, remote and wrap mode, sample rate, resolution, scaling 1:1 and 2:1,
// status, read data. Motion is accumulated while the host does not read and sent as few packets, clamped
// with the overflow bits set.
// Missing: the rate limit itself: a packet is ready as soon as the last one was read. Resolution is stored,
// counts are the sender's.
// Documentation: IBM PS/2 Hardware Interface Technical Reference, "Mouse"; Microsoft "IntelliMouse
// detection" (1996).
#pragma once

#include <cstdint>
#include <initializer_list>

#include "devices/core/device.hpp"
#include "devices/input/ps2_device.hpp"

namespace whistler {

class Ps2Mouse final : public Device, public Ps2Device {
 public:
  static constexpr unsigned kButton4 = 8;
  static constexpr unsigned kButton5 = 16;

  Ps2Mouse() = default;

  /// Relative motion, y downwards, wheel positive away from the user; buttons as devices/core/input.hpp
  /// numbers them, plus 4 and 5.
  void move(int dx, int dy, int wheel, unsigned buttons);

  void receive(std::uint8_t byte) override;
  [[nodiscard]] bool has_byte() const override { return !state_.replies.empty() || !state_.packet.empty(); }
  [[nodiscard]] std::uint8_t take_byte() override;

  [[nodiscard]] std::string_view id() const override { return "ps2-mouse"; }
  void reset() override;
  void save(StateWriter& writer) const override { writer.put(state_); }
  [[nodiscard]] Result<void> load(const StateReader& reader) override;

 private:
  static constexpr std::size_t kPacketBytes =
      16;  ///< four packets: clicks are not merged into motion that waits
  static constexpr std::size_t kReplyBytes = 16;
  struct State {
    Ps2Queue<kPacketBytes> packet;  ///< movement packets
    Ps2Queue<kReplyBytes> replies;  ///< answers to commands: they go first
    std::uint8_t command = 0;       ///< the command whose argument is awaited, or 0
    bool reporting = false;
    bool remote = false;
    bool wrap = false;
    bool double_scaling = false;
    std::uint8_t resolution = 2;
    std::uint8_t sample_rate = 100;
    std::uint8_t device_id = 0;
    std::uint8_t knock = 0;  ///< how much of a sample rate sequence that changes the id has been seen
    std::uint8_t last_byte = 0;
    std::int32_t dx = 0;  ///< motion not packed yet, y upwards as the mouse counts it
    std::int32_t dy = 0;
    std::int32_t dz = 0;  ///< positive towards the user
    std::uint8_t buttons = 0;
    std::uint8_t sent_buttons = 0;
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) {
      visit("packet", self.packet);
      visit("replies", self.replies);
      visit("command", self.command);
      visit("reporting", self.reporting);
      visit("remote", self.remote);
      visit("wrap", self.wrap);
      visit("double_scaling", self.double_scaling);
      visit("resolution", self.resolution);
      visit("sample_rate", self.sample_rate);
      visit("device_id", self.device_id);
      visit("knock", self.knock);
      visit("last_byte", self.last_byte);
      visit("dx", self.dx);
      visit("dy", self.dy);
      visit("dz", self.dz);
      visit("buttons", self.buttons);
      visit("sent_buttons", self.sent_buttons);
    }
  };

  [[nodiscard]] std::size_t packet_size() const { return state_.device_id == 0 ? 3 : 4; }
  [[nodiscard]] bool has_news() const;
  void reply(std::initializer_list<std::uint8_t> bytes);
  template <std::size_t capacity>
  void append_packet(Ps2Queue<capacity>& queue);
  void fill_stream();
  void start_command(std::uint8_t command);
  void finish_command(std::uint8_t argument);
  void watch_sample_rate(std::uint8_t rate);
  void forget_motion();
  void set_defaults();

  State state_;
};

}  // namespace whistler

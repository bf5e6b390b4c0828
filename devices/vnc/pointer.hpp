// From the positions a VNC client reports to what the guest's pointing device can say.
// No thread, no lock of its own: one object belongs to one client.
#pragma once

#include <cstdint>
#include <optional>

#include "devices/core/input.hpp"

namespace whistler {

/// Turns one client's pointer events into calls of an InputSink; the caller holds the machine lock.
class PointerTranslator {
 public:
  /// An RFB pointer event: position on a screen of `width` x `height`, and the button mask (bits 0 left, 1
  /// middle, 2 right, 3 and 4 wheel up and down). A sink that is not absolute() is given the way from the
  /// last position. Where the pointer reaches an edge of the screen, the guest's is pushed there too: that
  /// brings both together again after the guest's acceleration has driven them apart.
  void place(unsigned x, unsigned y, unsigned mask, unsigned width, unsigned height, InputSink& sink);
  /// Motion from a client in relative mode (QEMU pointer motion change): coordinates are 0x7FFF plus the
  /// distance.
  void move(unsigned x, unsigned y, unsigned mask, InputSink& sink);
  /// Lets go of the buttons: the client has gone.
  void release_all(InputSink& sink);

 private:
  struct Position {
    unsigned x = 0, y = 0;
  };
  int wheel_from(unsigned mask);

  std::optional<Position> last_;
  unsigned mask_ = 0;
};

}  // namespace whistler

// libvncserver, loaded when it is first needed. Only for the files of this folder.
//
// What it keeps for the whole process is not safe with several threads, so it is dealt with here:
// rfbGetScreen() initialises a mutex that clients of other screens may be using, so all screens are made
// before the first client; the list of security types is changed by every handshake, so handshakes take turns
// (handshake_lock()).
#pragma once

#include <rfb/rfb.h>
#include <rfb/rfbregion.h>

#include <cstddef>
#include <mutex>
#include <vector>

namespace whistler {

class LibVnc {
 public:
  static constexpr std::size_t kScreens = 32;

  /// Loads it the first time; null, and logged, if it cannot be had. Any thread.
  static LibVnc* get();

  /// A screen with our settings, no framebuffer and no client; null if all are taken. Any thread.
  rfbScreenInfo* take_screen();
  void give_back(rfbScreenInfo* screen);
  std::mutex& handshake_lock() { return handshake_lock_; }

  decltype(&::rfbNewClient) new_client = nullptr;
  decltype(&::rfbProcessClientMessage) process_client_message = nullptr;
  decltype(&::rfbUpdateClient) update_client = nullptr;
  decltype(&::rfbCloseClient) close_client = nullptr;
  decltype(&::rfbClientConnectionGone) client_connection_gone = nullptr;
  decltype(&::rfbNewFramebuffer) new_framebuffer = nullptr;
  decltype(&::rfbMarkRectAsModified) mark_rect_as_modified = nullptr;
  decltype(&::rfbReadExact) read_exact = nullptr;
  decltype(&::rfbWriteExact) write_exact = nullptr;
  decltype(&::rfbCheckPasswordByList) check_password_by_list = nullptr;
  decltype(&::rfbRegisterProtocolExtension) register_protocol_extension = nullptr;
  decltype(&::sraRgnEmpty) region_empty = nullptr;

 private:
  bool load();
  void make_screens();

  decltype(&::rfbGetScreen) get_screen_ = nullptr;
  std::mutex handshake_lock_;
  std::mutex screens_lock_;
  std::vector<rfbScreenInfo*> screens_;
};

/// The pixel format of our framebuffers, 0x00RRGGBB; libvncserver sets another with every new framebuffer.
void set_pixel_format(rfbScreenInfo& screen);

}  // namespace whistler

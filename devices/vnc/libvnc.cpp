#include "devices/vnc/libvnc.hpp"

#include <dlfcn.h>
#include <fmt/format.h>

#include "base/log.hpp"
#include "devices/vnc/vnc_client.hpp"

namespace whistler {
namespace {

constexpr const char* kLibrary = "libvncserver.so.1";

/// libvncserver tells about every message of every client; a hostile one could fill the log.
void ignore_log(const char*, ...) {}

void ignore_cut_text(char*, int, rfbClientRec*) {}

template <typename Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  return function != nullptr;
}

}  // namespace

LibVnc* LibVnc::get() {
  static LibVnc library;
  static const bool loaded = library.load();
  return loaded ? &library : nullptr;
}

bool LibVnc::load() {
  void* const library = ::dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  rfbLogProc* log_proc = nullptr;
  rfbLogProc* error_proc = nullptr;
  const bool complete =
      library != nullptr && find(library, "rfbNewClient", new_client) &&
      find(library, "rfbProcessClientMessage", process_client_message) &&
      find(library, "rfbUpdateClient", update_client) && find(library, "rfbCloseClient", close_client) &&
      find(library, "rfbClientConnectionGone", client_connection_gone) &&
      find(library, "rfbNewFramebuffer", new_framebuffer) &&
      find(library, "rfbMarkRectAsModified", mark_rect_as_modified) &&
      find(library, "rfbReadExact", read_exact) && find(library, "rfbWriteExact", write_exact) &&
      find(library, "rfbCheckPasswordByList", check_password_by_list) &&
      find(library, "rfbRegisterProtocolExtension", register_protocol_extension) &&
      find(library, "sraRgnEmpty", region_empty) && find(library, "rfbGetScreen", get_screen_) &&
      find(library, "rfbLog", log_proc) && find(library, "rfbErr", error_proc);
  if (!complete) {
    const char* const reason = ::dlerror();
    log(LogLevel::kError, fmt::format("VNC: cannot load {}: {}; install the package libvncserver1", kLibrary,
                                      reason != nullptr ? reason : "a function is missing"));
    return false;
  }
  *log_proc = ignore_log;
  *error_proc = ignore_log;
  make_screens();
  register_protocol_extension(VncClient::protocol_extension());
  return true;
}

void LibVnc::make_screens() {
  while (screens_.size() < kScreens) {
    int argc = 0;
    rfbScreenInfo* const screen = get_screen_(&argc, nullptr, 640, 480, 8, 3, 4);
    if (screen == nullptr) {
      return;
    }
    set_pixel_format(*screen);
    screen->cursor = nullptr;  // by default it draws one of its own into the picture
    screen->deferUpdateTime = 0;
    screen->deferPtrUpdateTime = 0;
    screen->maxRectsPerUpdate =
        1000;  // beyond, all rectangles become the one around them; Surface joins them well
    screen->alwaysShared = TRUE;  // sharing is ours to decide: a screen has one client
    screen->setXCutText = ignore_cut_text;
    screen->setXCutTextUTF8 =
        ignore_cut_text;  // null by default, and called when a client sends an extended clipboard
    screens_.push_back(screen);
  }
}

rfbScreenInfo* LibVnc::take_screen() {
  const std::scoped_lock guard(screens_lock_);
  if (screens_.empty()) {
    return nullptr;
  }
  rfbScreenInfo* const screen = screens_.back();
  screens_.pop_back();
  return screen;
}

void LibVnc::give_back(rfbScreenInfo* screen) {
  screen->frameBuffer = nullptr;
  screen->screenData = nullptr;
  screen->authPasswdData = nullptr;
  const std::scoped_lock guard(screens_lock_);
  screens_.push_back(screen);
}

void set_pixel_format(rfbScreenInfo& screen) {
  rfbPixelFormat& format = screen.serverFormat;
  format.depth = 24;
  format.redShift = 16;
  format.greenShift = 8;
  format.blueShift = 0;
}

}  // namespace whistler

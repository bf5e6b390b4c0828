#include "devices/vnc/vnc_client.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "base/log.hpp"
#include "devices/vnc/vnc_address.hpp"

namespace whistler {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kFrame{33};
/// The least time between two looks at the display for non-incremental requests: no client can keep the
/// machine busy.
constexpr milliseconds kAtOnce{10};
constexpr milliseconds kKeyPause{5};
/// How long a gone client's last keys wait for a guest that does not read.
constexpr milliseconds kKeyPatience{5000};
/// A person has this long to type the password.
constexpr milliseconds kHandshake{60000};

/// Events handed over at once: 14 bytes at the most, so that they fit into the 16 of a PS/2 keyboard.
constexpr std::size_t kKeyBurst = 3;
constexpr std::size_t kKeyQueueMax = 1024;

/// What libvncserver can send a row of in its buffer of 32 KiB; a larger picture is cut off.
constexpr unsigned kSizeMax = 8000;

// Messages from clients (RFC 6143 section 7.5; the community's rfbproto.rst for the last two).
constexpr std::uint8_t kSetPixelFormat = 0;
constexpr std::uint8_t kSetEncodings = 2;
constexpr std::uint8_t kFramebufferUpdateRequest = 3;
constexpr std::uint8_t kKeyEvent = 4;
constexpr std::uint8_t kPointerEvent = 5;
constexpr std::uint8_t kClientCutText = 6;
constexpr std::uint8_t kSetDesktopSize = 251;
constexpr std::uint8_t kQemu = 255;
constexpr std::uint8_t kQemuExtendedKey = 0;

constexpr std::int32_t kEncodingPointerMotionChange = -257;
constexpr std::int32_t kEncodingExtendedKeyEvent = -258;
constexpr std::int32_t kEncodingLedState = -261;

/// The others that libvncserver knows, scaling, chat and file transfer, are of no use here but could do harm.
bool is_welcome(std::uint8_t message) {
  switch (message) {
    case kSetPixelFormat:
    case kSetEncodings:
    case kFramebufferUpdateRequest:
    case kKeyEvent:
    case kPointerEvent:
    case kClientCutText:
    case kSetDesktopSize:
    case kQemu: return true;
    default: return false;
  }
}

/// The size of the message that the client must send next, before normal ones.
std::size_t handshake_bytes(const rfbClientRec& client) {
  switch (client.state) {
    case rfbClientRec::RFB_PROTOCOL_VERSION: return 12;
    case rfbClientRec::RFB_AUTHENTICATION: return 16;
    default: return 1;
  }
}

std::uint32_t big_endian32(const std::uint8_t* bytes) {
  return std::uint32_t{bytes[0]} << 24 | std::uint32_t{bytes[1]} << 16 | std::uint32_t{bytes[2]} << 8 |
         bytes[3];
}

void append_big_endian(std::vector<std::uint8_t>& out, std::uint32_t value, unsigned bytes) {
  while (bytes-- > 0) {
    out.push_back(static_cast<std::uint8_t>(value >> (8 * bytes)));
  }
}

bool readable(int fd, milliseconds wait) {
  pollfd poll_fd{fd, POLLIN, 0};
  return ::poll(&poll_fd, 1, static_cast<int>(wait.count())) > 0;
}

}  // namespace

VncClient::VncClient(int socket, const VncConfig& config, VncMachine machine, int stop_event, Admit admit)
    : socket_(socket),
      control_(::fcntl(socket, F_DUPFD_CLOEXEC, 0)),
      config_(config),
      machine_(machine),
      stop_event_(stop_event),
      admit_(std::move(admit)),
      here_(local_address(socket)),
      there_(peer_address(socket)) {}

VncClient::~VncClient() {
  if (socket_ >= 0) {
    ::close(socket_);
  }
  if (control_ >= 0) {
    ::close(control_);
  }
}

void VncClient::disconnect() { ::shutdown(control_, SHUT_RDWR); }

void VncClient::tell(VncEvent::Kind kind) const {
  if (config_.tell) {
    config_.tell({.kind = kind, .server = here_, .client = there_, .password = !config_.password.empty()});
  }
}

void VncClient::run(LibVnc& library) {
  tell(VncEvent::Kind::kConnected);
  library_ = &library;
  if (open()) {
    while (alive()) {
      serve();
    }
  }
  if (client_ != nullptr) {
    // libvncserver leaves its list of extensions behind.
    while (client_->extensions != nullptr) {
      std::free(std::exchange(client_->extensions, client_->extensions->next));
    }
    library_->client_connection_gone(client_);
    client_ = nullptr;
  }
  if (screen_ != nullptr) {
    library_->give_back(screen_);
    screen_ = nullptr;
  }
  disconnect();
  finish_input();
  tell(VncEvent::Kind::kDisconnected);
}

bool VncClient::open() {
  // Clients wait for the server's greeting; who speaks first is a browser or a stray.
  if (control_ < 0 || socket_ >= FD_SETSIZE || readable(socket_, milliseconds(0))) {
    log(LogLevel::kInfo, "VNC: refused a connection that does not speak RFB");
    return false;
  }
  screen_ = library_->take_screen();
  if (screen_ == nullptr) {
    return false;
  }
  screen_->screenData = this;
  screen_->desktopName = config_.name.c_str();
  screen_->kbdAddEvent = on_key;
  screen_->ptrAddEvent = on_pointer;
  if (!config_.password.empty()) {
    passwords_[0] = const_cast<char*>(config_.password.c_str());  // libvncserver only reads it
    screen_->authPasswdData = passwords_.data();
    screen_->passwordCheck = library_->check_password_by_list;
  }
  refresh();
  const int socket = std::exchange(socket_, -1);
  client_ = library_->new_client(screen_, socket);
  if (client_ == nullptr) {
    return false;
  }
  client_->clientFramebufferUpdateRequestHook = on_update_request;
  handshake_end_ = steady_clock::now() + kHandshake;
  // libvncserver takes up WebSocket by itself, for any web page that the user happens to look at.
  return client_->wsctx == nullptr && client_->sslctx == nullptr;
}

bool VncClient::alive() const { return client_ != nullptr && client_->sock >= 0; }

VncClient::Time VncClient::next_refresh() const { return last_refresh_ + (answer_now_ ? kAtOnce : kFrame); }

int VncClient::wait_ms() const {
  const auto until = [](Time time) {
    const auto left = std::chrono::ceil<milliseconds>(time - steady_clock::now()).count();
    return static_cast<int>(std::max<std::int64_t>(left, 0));
  };
  if (client_->state != rfbClientRec::RFB_NORMAL) {
    return until(handshake_end_);
  }
  const bool asked = !library_->region_empty(client_->requestedRegion);
  const int frame = asked ? until(next_refresh()) : -1;
  if (key_queue_.empty()) {
    return frame;
  }
  const int keys = static_cast<int>(kKeyPause.count());
  return asked ? std::min(frame, keys) : keys;
}

void VncClient::serve() {
  pollfd poll_fd{client_->sock, POLLIN | POLLRDHUP, 0};
  const bool input = ::poll(&poll_fd, 1, wait_ms()) > 0;
  if (client_->state != rfbClientRec::RFB_NORMAL) {
    if (input) {
      read_handshake((poll_fd.revents & (POLLRDHUP | POLLERR)) != 0);
    } else if (steady_clock::now() >= handshake_end_) {
      library_->close_client(client_);
    }
    return;
  }
  if (input) {
    read_message();
  }
  if (alive()) {
    feed_keys();
    answer_requests();
  }
}

/// Goes one step on only when the client's whole message is there: the step holds a lock that all clients
/// need.
void VncClient::read_handshake(bool hung_up) {
  std::array<std::uint8_t, 16> peeked{};
  const std::size_t needed = handshake_bytes(*client_);
  const ssize_t got = ::recv(client_->sock, peeked.data(), needed, MSG_PEEK | MSG_DONTWAIT);
  if (got <= 0) {
    library_->close_client(client_);
    return;
  }
  if (static_cast<std::size_t>(got) < needed) {
    readable(stop_event_, milliseconds(10));
    if (hung_up || steady_clock::now() >= handshake_end_) {
      library_->close_client(client_);
    }
    return;
  }
  const bool last = client_->state == rfbClientRec::RFB_INITIALISATION;
  if (last) {
    refresh();  // the size that the client is told next
  }
  {
    const std::scoped_lock guard(library_->handshake_lock());
    library_->process_client_message(client_);
  }
  if (alive() && client_->state == rfbClientRec::RFB_NORMAL) {
    const bool shared = !last || peeked[0] != 0;
    if (admit_(*this, shared)) {
      tell(VncEvent::Kind::kInitialized);
    } else {
      library_->close_client(client_);
    }
  }
}

void VncClient::read_message() {
  std::uint8_t type = 0;
  if (::recv(client_->sock, &type, 1, MSG_PEEK | MSG_DONTWAIT) == 1 && !is_welcome(type)) {
    log(LogLevel::kInfo, fmt::format("VNC: disconnected a client that sent a message of type {}", type));
    library_->close_client(client_);
    return;
  }
  library_->process_client_message(client_);
  if (alive()) {
    tell_extensions();
  }
}

/// The picture is looked at 30 times a second while the client waits for changes, and at once when it has not
/// been for that long or when the client asks for what there is.
void VncClient::answer_requests() {
  const Time now = steady_clock::now();
  if (library_->region_empty(client_->requestedRegion) || now < next_refresh()) {
    return;
  }
  last_refresh_ = now;
  refresh();
  tell_extensions();
  answer_now_ = false;
  // An update that announces another size has no pixels: they come with the second call.
  for (int i = 0; i < 2 && alive(); ++i) {
    library_->update_client(client_);
  }
}

void VncClient::refresh() {
  std::vector<Rect> changed;
  bool resized = false;
  {
    const std::scoped_lock guard(machine_.lock);
    machine_.display.update();
    resized = copy_changes(changed);
    absolute_ = machine_.input.absolute();
    leds_ = machine_.input.leds();
  }
  if (resized || screen_->frameBuffer == nullptr) {
    library_->new_framebuffer(screen_, reinterpret_cast<char*>(pixels_.data()), static_cast<int>(width_),
                              static_cast<int>(height_), 8, 3, 4);
    set_pixel_format(*screen_);
    if (client_ != nullptr) {
      screen_->setTranslateFunction(client_);
    }
    return;
  }
  for (const Rect& rect : changed) {
    library_->mark_rect_as_modified(screen_, static_cast<int>(rect.x), static_cast<int>(rect.y),
                                    static_cast<int>(rect.x + rect.width),
                                    static_cast<int>(rect.y + rect.height));
  }
}

/// Brings pixels_ up to date; true if the size is another. The machine lock is held.
bool VncClient::copy_changes(std::vector<Rect>& changed) {
  const Surface& surface = machine_.display.surface();
  // A machine without a picture yet is shown as one black pixel rather than none, which RFB does not have.
  const unsigned width = std::clamp(surface.width(), 1U, kSizeMax);
  const unsigned height = std::clamp(surface.height(), 1U, kSizeMax);
  const bool resized = width != width_ || height != height_;
  if (resized) {
    width_ = width;
    height_ = height;
    pixels_.assign(std::size_t{width} * height, 0);
    seen_ = 0;
  }
  changed = surface.changes_since(seen_);
  seen_ = surface.generation();
  for (Rect& rect : changed) {
    rect.width = rect.x < width ? std::min(rect.width, width - rect.x) : 0;
    rect.height = rect.y < height ? std::min(rect.height, height - rect.y) : 0;
    for (unsigned y = rect.y; rect.width > 0 && y < rect.y + rect.height; ++y) {
      const auto source = surface.row(y).subspan(rect.x, rect.width);
      // Something in the pad byte would spoil the palettes that Tight makes.
      std::ranges::transform(source,
                             pixels_.begin() + static_cast<std::ptrdiff_t>(std::size_t{y} * width + rect.x),
                             [](std::uint32_t pixel) { return pixel & 0xFFFFFF; });
    }
  }
  std::erase_if(changed, [](const Rect& rect) { return rect.width == 0 || rect.height == 0; });
  return resized;
}

/// Sends what the client should know by the pseudo encodings it has named: once, and with every change.
void VncClient::tell_extensions() {
  if (client_->state != rfbClientRec::RFB_NORMAL) {
    return;
  }
  if (wants_keys_ && !told_keys_) {
    told_keys_ = true;
    send_pseudo_rectangle(kEncodingExtendedKeyEvent, 0, {});
  }
  if (wants_motion_ && told_absolute_ != absolute_) {
    told_absolute_ = absolute_;
    send_pseudo_rectangle(kEncodingPointerMotionChange, absolute_ ? 1 : 0, {});
  }
  if (wants_leds_ && told_leds_ != leds_) {
    told_leds_ = leds_;
    send_pseudo_rectangle(kEncodingLedState, 0, {&leds_, 1});
  }
}

void VncClient::send_pseudo_rectangle(std::int32_t encoding, std::uint16_t x,
                                      std::span<const std::uint8_t> payload) {
  if (!alive()) {
    return;
  }
  std::vector<std::uint8_t> message;
  append_big_endian(message, 0, 2);  // FramebufferUpdate
  append_big_endian(message, 1, 2);  // one rectangle, of no size
  append_big_endian(message, x, 2);
  append_big_endian(message, 0, 2);
  append_big_endian(message, 0, 4);
  append_big_endian(message, static_cast<std::uint32_t>(encoding), 4);
  message.insert(message.end(), payload.begin(), payload.end());
  if (library_->write_exact(client_, reinterpret_cast<const char*>(message.data()),
                            static_cast<int>(message.size())) <= 0) {
    library_->close_client(client_);
  }
}

bool VncClient::handle_extension_message() {
  // After the type: sub-type, down (16 bits), keysym, key number (32 bits each).
  std::array<std::uint8_t, 11> body{};
  if (library_->read_exact(client_, reinterpret_cast<char*>(body.data()), 1) <= 0 ||
      body[0] != kQemuExtendedKey ||
      library_->read_exact(client_, reinterpret_cast<char*>(body.data() + 1),
                           static_cast<int>(body.size()) - 1) <= 0) {
    return false;
  }
  key_event(big_endian32(&body[3]), big_endian32(&body[7]), (body[1] | body[2]) != 0);
  return true;
}

/// A key by number where the client has it, else by keysym.
void VncClient::key_event(std::uint32_t keysym, std::uint32_t number, bool down) {
  if (down && key_queue_.size() >= kKeyQueueMax) {
    log_once(LogLevel::kWarning, "vnc key queue",
             "VNC: the guest does not read its keyboard; keys are dropped");
    return;
  }
  {
    const std::scoped_lock guard(machine_.lock);
    leds_ = machine_.input.leds();
  }
  std::vector<KeyEvent> events;
  if (number != 0 && number <= 0xFF) {
    keys_.key(static_cast<KeyNumber>(number), down, leds_, events);
  } else {
    keys_.keysym(keysym, down, leds_, events);
  }
  if (key_queue_.empty()) {
    key_progress_ = steady_clock::now();
  }
  key_queue_.insert(key_queue_.end(), events.begin(), events.end());
}

void VncClient::pointer_event(unsigned mask, int x, int y) {
  const std::scoped_lock guard(machine_.lock);
  const auto at_x = static_cast<unsigned>(std::max(x, 0));
  const auto at_y = static_cast<unsigned>(std::max(y, 0));
  if (told_absolute_ == false) {
    pointer_.move(at_x, at_y, mask, machine_.input);
  } else {
    pointer_.place(at_x, at_y, mask, width_, height_, machine_.input);
  }
}

/// Hands over a few keys when the guest has read those before.
void VncClient::feed_keys() {
  if (key_queue_.empty()) {
    return;
  }
  const std::scoped_lock guard(machine_.lock);
  if (machine_.input.keys_pending() != 0) {
    return;
  }
  for (std::size_t i = 0; i < kKeyBurst && !key_queue_.empty(); ++i) {
    machine_.input.key(key_queue_.front().key, key_queue_.front().down);
    key_queue_.pop_front();
  }
  key_progress_ = steady_clock::now();
}

/// The client has gone: what it typed last still counts, and whatever it held is released.
void VncClient::finish_input() {
  std::vector<KeyEvent> released;
  keys_.release_all(released);
  key_queue_.insert(key_queue_.end(), released.begin(), released.end());
  key_progress_ = steady_clock::now();
  while (!key_queue_.empty() && steady_clock::now() - key_progress_ < kKeyPatience &&
         !readable(stop_event_, kKeyPause)) {
    feed_keys();
  }
  const std::scoped_lock guard(machine_.lock);
  for (const KeyEvent& event : key_queue_) {
    if (!event.down) {
      machine_.input.key(event.key, false);
    }
  }
  pointer_.release_all(machine_.input);
}

VncClient& VncClient::from(rfbClientRec* client) {
  return *static_cast<VncClient*>(client->screen->screenData);
}

void VncClient::on_key(rfbBool down, rfbKeySym keysym, rfbClientRec* client) {
  from(client).key_event(keysym, 0, down != 0);
}

void VncClient::on_pointer(int mask, int x, int y, rfbClientRec* client) {
  from(client).pointer_event(static_cast<unsigned>(mask), x, y);
}

void VncClient::on_update_request(rfbClientRec* client, rfbFramebufferUpdateRequestMsg* request) {
  from(client).answer_now_ |= request->incremental == 0;
}

rfbBool VncClient::on_new_client(rfbClientRec*, void**) { return TRUE; }

rfbBool VncClient::on_pseudo_encoding(rfbClientRec* client, void**, int encoding) {
  VncClient& self = from(client);
  switch (encoding) {
    case kEncodingExtendedKeyEvent: self.wants_keys_ = true; return TRUE;
    case kEncodingLedState: self.wants_leds_ = true; return TRUE;
    case kEncodingPointerMotionChange: self.wants_motion_ = true; return TRUE;
    default: return FALSE;
  }
}

rfbBool VncClient::on_message(rfbClientRec* client, void*, const rfbClientToServerMsg* message) {
  return message->type == kQemu && from(client).handle_extension_message() ? TRUE : FALSE;
}

rfbProtocolExtension* VncClient::protocol_extension() {
  static std::array<int, 4> encodings = {kEncodingExtendedKeyEvent, kEncodingLedState,
                                         kEncodingPointerMotionChange, 0};
  static rfbProtocolExtension extension = [] {
    rfbProtocolExtension made{};
    made.newClient = on_new_client;
    made.pseudoEncodings = encodings.data();
    made.enablePseudoEncoding = on_pseudo_encoding;
    made.handleMessage = on_message;
    return made;
  }();
  return &extension;
}

}  // namespace whistler

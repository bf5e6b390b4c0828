// One VNC client: its connection, its copy of the picture, its keys and pointer. Only for the files of this
// folder.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "devices/vnc/keysym.hpp"
#include "devices/vnc/libvnc.hpp"
#include "devices/vnc/pointer.hpp"
#include "devices/vnc/vnc_server.hpp"

namespace whistler {

/// What a client sees of the machine; `lock` guards the others.
struct VncMachine {
  DisplaySource& display;
  InputSink& input;
  std::mutex& lock;
};

class VncClient {
 public:
  /// Asked once a client has authenticated: may it stay? `shared` is what it asks for. Any client's thread.
  /// It calls join() on those that may.
  using Admit = std::function<bool(VncClient& client, bool shared)>;

  /// Takes the connected socket. `stop_event` is an eventfd that becomes readable for good when the server
  /// stops.
  VncClient(int socket, const VncConfig& config, VncMachine machine, int stop_event, Admit admit);
  ~VncClient();
  VncClient(const VncClient&) = delete;
  VncClient& operator=(const VncClient&) = delete;

  /// The whole life of the connection: the body of its thread.
  void run(LibVnc& library);
  /// Ends it soon. Any thread.
  void disconnect();
  /// One of those whose share of the screen counts, from admission on. Any thread.
  void join() { joined_ = true; }
  [[nodiscard]] bool joined() const { return joined_; }

  /// The QEMU extensions, for libvncserver's list.
  static rfbProtocolExtension* protocol_extension();

 private:
  using Time = std::chrono::steady_clock::time_point;

  void tell(VncEvent::Kind kind) const;
  bool open();
  void serve();
  [[nodiscard]] bool alive() const;
  [[nodiscard]] Time next_refresh() const;
  [[nodiscard]] int wait_ms() const;
  void read_handshake(bool hung_up);
  void read_message();
  void answer_requests();
  void refresh();
  bool copy_changes(std::vector<Rect>& changed);
  void tell_extensions();
  void send_pseudo_rectangle(std::int32_t encoding, std::uint16_t x, std::span<const std::uint8_t> payload);
  bool handle_extension_message();
  void key_event(std::uint32_t keysym, std::uint32_t number, bool down);
  void pointer_event(unsigned mask, int x, int y);
  void feed_keys();
  void finish_input();

  static VncClient& from(rfbClientRec* client);
  static rfbBool on_new_client(rfbClientRec* client, void** data);
  static rfbBool on_pseudo_encoding(rfbClientRec* client, void** data, int encoding);
  static rfbBool on_message(rfbClientRec* client, void* data, const rfbClientToServerMsg* message);
  static void on_key(rfbBool down, rfbKeySym keysym, rfbClientRec* client);
  static void on_pointer(int mask, int x, int y, rfbClientRec* client);
  static void on_update_request(rfbClientRec* client, rfbFramebufferUpdateRequestMsg* request);

  int socket_;              ///< handed to libvncserver in open(), -1 afterwards
  int control_;             ///< a duplicate, valid as long as this object: disconnect() uses it
  const VncConfig config_;  // its own: the server's password may change meanwhile
  VncMachine machine_;
  int stop_event_;
  Admit admit_;
  const VncAddress here_, there_;
  std::atomic<bool> joined_ = false;

  // From here on, the client's thread only.
  LibVnc* library_ = nullptr;
  rfbScreenInfo* screen_ = nullptr;
  rfbClientRec* client_ = nullptr;
  std::array<char*, 2> passwords_{};
  Time handshake_end_;

  std::vector<std::uint32_t> pixels_;
  unsigned width_ = 0;
  unsigned height_ = 0;
  std::uint64_t seen_ = 0;  ///< Surface generation
  Time last_refresh_;
  bool answer_now_ = false;  ///< a non-incremental request waits

  KeyTranslator keys_;
  std::deque<KeyEvent> key_queue_;
  Time key_progress_;
  PointerTranslator pointer_;
  bool absolute_ = false;
  std::uint8_t leds_ = 0;

  bool wants_keys_ = false;  ///< pseudo encodings the client knows, and what it was last told
  bool wants_leds_ = false;
  bool wants_motion_ = false;
  bool told_keys_ = false;
  std::optional<std::uint8_t> told_leds_;
  std::optional<bool> told_absolute_;
};

}  // namespace whistler

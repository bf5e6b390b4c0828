#include "devices/vnc/vnc_server.hpp"

#include <dlfcn.h>
#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <thread>

#include "devices/vnc/rfb_test_client.hpp"
#include "devices/vnc/test_machine.hpp"

using namespace whistler;
using Client = RfbTestClient;
using Events = std::vector<std::string>;

namespace {

VncConfig on_any_port() {
  VncConfig config;
  config.port = 0;
  return config;
}

/// A machine with a server on a port of the host's choice.
struct Fixture {
  explicit Fixture(const VncConfig& config = on_any_port()) {
    display.picture.resize(64, 32);
    display.fill(0x112233);
    auto started = VncServer::start(config, display, sink, lock);
    REQUIRE(started.has_value());
    server = std::move(*started);
  }

  Client connect() { return Client(server->port()); }
  Client login() {
    Client client = connect();
    client.login();
    return client;
  }
  template <typename Change>
  void under_lock(Change change) {
    const std::scoped_lock guard(lock);
    change();
  }
  /// Waits until `count` events have come, and returns all.
  Events wait_events(std::size_t count) {
    std::unique_lock guard(lock);
    sink.changed.wait_for(guard, std::chrono::seconds(10), [&] { return sink.events.size() >= count; });
    return sink.events;
  }
  bool wait_clients(std::size_t count) {
    for (int i = 0; i < 1000 && server->clients() != count; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return server->clients() == count;
  }

  std::mutex lock;
  PaintedDisplay display;
  RecordingSink sink;
  std::unique_ptr<VncServer> server;
};

/// VncAuth's answer to a challenge, by libvncserver's own client-side function.
Client::Bytes answer(Client::Bytes challenge, std::string password) {
  void* const library = ::dlopen("libvncserver.so.1", RTLD_NOW | RTLD_LOCAL);
  REQUIRE(library != nullptr);
  const auto encrypt = reinterpret_cast<void (*)(unsigned char*, char*)>(::dlsym(library, "rfbEncryptBytes"));
  REQUIRE(encrypt != nullptr);
  encrypt(challenge.data(), password.data());
  return challenge;
}

}  // namespace

TEST_CASE("vnc_handshake_tells_size_and_name", "[vnc]") {
  VncConfig config = on_any_port();
  config.name = "Test PC";
  Fixture fixture(config);
  const Client client = fixture.login();
  CHECK(client.width == 64);
  CHECK(client.height == 32);
  CHECK(client.name == "Test PC");
}

TEST_CASE("vnc_without_clients_never_looks_at_the_display", "[vnc]") {
  Fixture fixture;
  fixture.connect().close();
  REQUIRE(fixture.wait_clients(0));
  const std::scoped_lock guard(fixture.lock);
  CHECK(fixture.display.updates <= 1);
}

TEST_CASE("vnc_password_right_lets_in_and_wrong_does_not", "[vnc]") {
  VncConfig config = on_any_port();
  config.password = "secret12";
  Fixture fixture(config);
  const auto attempt = [&](const std::string& password) {
    Client client = fixture.connect();
    CHECK(client.greet() == Client::Bytes{2});
    client.send({2});
    client.send(answer(client.receive(16), password));
    const bool accepted = client.receive32() == 0;
    if (accepted) {
      client.initialise();
    }
    return accepted;
  };
  CHECK(attempt("secret12"));
  CHECK_FALSE(attempt("secret13"));
  CHECK_FALSE(attempt(""));
  CHECK(attempt("secret12"));
  REQUIRE(fixture.server->set_password("other"));
  CHECK_FALSE(attempt("secret12"));
  CHECK(attempt("other"));
  CHECK(fixture.server->set_password("123456789").error().code == ErrorCode::kInvalid);
  CHECK(attempt("other"));
}

TEST_CASE("vnc_password_cannot_be_skipped_by_choosing_none", "[vnc]") {
  VncConfig config = on_any_port();
  config.password = "secret12";
  Fixture fixture(config);
  Client client = fixture.connect();
  client.greet();
  client.send({1});
  CHECK(client.hung_up());
}

TEST_CASE("vnc_update_has_the_pixels_and_a_clean_pad_byte", "[vnc]") {
  Fixture fixture;
  fixture.under_lock([&] { fixture.display.fill(0xFF112233); });
  Client client = fixture.login();
  client.request(false);
  const auto rectangle = client.next(0);
  CHECK(rectangle.width == 64);
  CHECK(rectangle.height == 32);
  CHECK(Client::pixel(rectangle, 0, 0) == 0x112233);
  CHECK(Client::pixel(rectangle, 63, 31) == 0x112233);
}

TEST_CASE("vnc_incremental_update_has_only_what_changed", "[vnc]") {
  Fixture fixture;
  fixture.under_lock([&] { fixture.display.picture.resize(256, 64); });
  Client client = fixture.login();
  client.request(false);
  client.next(0);
  client.request(true);
  fixture.under_lock([&] {
    const std::array<std::uint32_t, 1> pixel = {0xABCDEF};
    fixture.display.picture.put(130, 20, pixel);
  });
  const auto rectangle = client.next(0);
  CHECK(rectangle.width <= Surface::kTileWidth);
  CHECK(rectangle.height <= Surface::kTileHeight);
  CHECK(Client::pixel(rectangle, 130 - rectangle.x, 20 - rectangle.y) == 0xABCDEF);
}

TEST_CASE("vnc_non_incremental_request_of_an_idle_guest_is_answered_every_time", "[vnc]") {
  Fixture fixture;
  Client client = fixture.login();
  for (int i = 0; i < 20; ++i) {
    client.request(false, 16, 16);
    CHECK(client.next(0).width == 16);
  }
}

TEST_CASE("vnc_mode_change_is_announced_and_then_shown", "[vnc]") {
  Fixture fixture;
  Client client = fixture.login();
  client.set_encodings({0, -223});
  client.request(false);
  client.next(0);
  const std::pair<unsigned, unsigned> sizes[] = {{720, 400}, {33, 17}, {1024, 768}};
  for (const auto& [width, height] : sizes) {
    client.request(true);
    fixture.under_lock([&] {
      fixture.display.picture.resize(width, height);
      fixture.display.fill(width);
    });
    const auto size = client.next(-223);
    CHECK(size.width == width);
    CHECK(size.height == height);
    client.request(false);
    const auto rectangle = client.next(0);
    CHECK(Client::pixel(rectangle, rectangle.width - 1, 0) == width);
  }
}

TEST_CASE("vnc_mode_change_without_desktop_size_keeps_the_client", "[vnc]") {
  Fixture fixture;
  Client client = fixture.login();
  client.request(false);
  client.next(0);
  fixture.under_lock([&] {
    fixture.display.picture.resize(40, 20);
    fixture.display.fill(7);
  });
  client.request(false);
  const auto rectangle = client.next(0);
  CHECK(rectangle.width <= 64);
  CHECK(Client::pixel(rectangle, 0, 0) == 7);
}

TEST_CASE("vnc_display_without_a_picture_can_be_connected_to", "[vnc]") {
  Fixture fixture;
  fixture.under_lock([&] { fixture.display.picture.resize(0, 0); });
  Client client = fixture.login();
  client.request(false);
  CHECK(client.next(0).width == 1);
}

TEST_CASE("vnc_typed_character_arrives_with_its_shift", "[vnc]") {
  Fixture fixture;
  Client client = fixture.login();
  client.key('@', true);
  client.key('@', false);
  CHECK(fixture.wait_events(4) == Events{"+2a", "+03", "-2a", "-03"});
}

TEST_CASE("vnc_keys_wait_until_the_guest_has_read_the_ones_before", "[vnc]") {
  Fixture fixture;
  fixture.under_lock([&] { fixture.sink.pending = 1; });
  Client client = fixture.login();
  for (int i = 0; i < 100; ++i) {
    client.key('a', true);
    client.key('a', false);
  }
  client.request(false);
  client.next(0);  // so the keys have been received
  fixture.under_lock([&] {
    CHECK(fixture.sink.events.empty());
    fixture.sink.pending = 0;
  });
  CHECK(fixture.wait_events(200).size() == 200);
}

TEST_CASE("vnc_disconnect_releases_held_keys_and_buttons", "[vnc]") {
  Fixture fixture;
  {
    Client client = fixture.login();
    client.key(0xFFE1, true);
    client.pointer(5, 5, 1);
    fixture.wait_events(2);
  }
  const Events events = fixture.wait_events(4);
  REQUIRE(events.size() == 4);
  CHECK(events[2] == "-2a");
  CHECK(events[3] == "move 0 0 0 0");
}

TEST_CASE("vnc_text_sent_just_before_disconnect_is_typed", "[vnc]") {
  Fixture fixture;
  {
    Client client = fixture.login();
    for (const char c : std::string("hello")) {
      client.key(static_cast<std::uint32_t>(c), true);
      client.key(static_cast<std::uint32_t>(c), false);
    }
  }
  CHECK(fixture.wait_events(10).size() == 10);
}

TEST_CASE("vnc_pointer_of_absolute_and_relative_sinks", "[vnc]") {
  Fixture fixture;
  Client client = fixture.login();
  client.pointer(63, 0, 0);
  CHECK(fixture.wait_events(1).back() == "place 32767 0 0 0");
  fixture.under_lock([&] { fixture.sink.absolute_pointer = false; });
  client.pointer(60, 3, 4);
  CHECK(fixture.wait_events(2).back() == "move -3 3 0 2");
}

TEST_CASE("vnc_extended_keys_are_acknowledged_and_passed_by_number", "[vnc]") {
  Fixture fixture;
  Client client = fixture.login();
  client.set_encodings({0, -258});
  CHECK(client.next(-258).width == 0);
  client.extended_key('<', 0x56, true);
  client.extended_key('<', 0x56, false);
  client.extended_key('@', 0, true);  // no number: the keysym counts
  CHECK(fixture.wait_events(5) == Events{"+56", "-56", "+2a", "+03", "-2a"});
}

TEST_CASE("vnc_led_state_is_told_at_first_and_with_changes", "[vnc]") {
  Fixture fixture;
  fixture.under_lock([&] { fixture.sink.lights = 2; });
  Client client = fixture.login();
  client.set_encodings({0, -261});
  CHECK(client.next(-261).data == Client::Bytes{2});
  client.request(false);
  client.next(0);
  client.request(true);
  fixture.under_lock([&] { fixture.sink.lights = 6; });
  CHECK(client.next(-261).data == Client::Bytes{6});
}

TEST_CASE("vnc_pointer_motion_change_switches_to_relative_events", "[vnc]") {
  Fixture fixture;
  fixture.under_lock([&] { fixture.sink.absolute_pointer = false; });
  Client client = fixture.login();
  client.set_encodings({0, -257});
  CHECK(client.next(-257).x == 0);
  client.pointer(0x7FFF - 2, 0x7FFF + 40, 0);
  CHECK(fixture.wait_events(1).back() == "move -2 40 0 0");
}

TEST_CASE("vnc_several_clients_see_the_same_and_all_may_type", "[vnc]") {
  Fixture fixture;
  std::vector<Client> clients;
  for (int i = 0; i < 6; ++i) {
    clients.push_back(fixture.login());
  }
  for (Client& client : clients) {
    client.request(false);
    CHECK(Client::pixel(client.next(0), 1, 1) == 0x112233);
    client.key('a', true);
  }
  CHECK(fixture.wait_events(6).size() == 6);
}

TEST_CASE("vnc_client_that_never_reads_holds_up_neither_others_nor_the_machine", "[vnc]") {
  Fixture fixture;
  fixture.under_lock([&] {
    fixture.display.picture.resize(1600, 1200);
    fixture.display.fill(0x123456);
  });
  Client lazy = fixture.login();
  for (int i = 0; i < 20; ++i) {
    lazy.request(false);
  }
  Client client = fixture.login();
  for (int i = 0; i < 5; ++i) {
    client.request(false);
    CHECK(Client::pixel(client.next(0), 1, 1) == 0x123456);
  }
  client.key('a', true);
  CHECK(fixture.wait_events(1) == Events{"+1e"});
  const auto before = std::chrono::steady_clock::now();
  fixture.server.reset();
  CHECK(std::chrono::steady_clock::now() - before < std::chrono::seconds(3));
}

TEST_CASE("vnc_client_that_stops_inside_a_message_holds_up_no_other", "[vnc]") {
  Fixture fixture;
  Client stuck = fixture.login();
  stuck.send({4, 1, 0});
  Client in_greeting = fixture.connect();
  in_greeting.receive(12);
  in_greeting.send({'R', 'F', 'B'});
  Client client = fixture.login();
  client.request(false);
  CHECK(client.next(0).width == 64);
}

TEST_CASE("vnc_garbage_ends_only_the_client_that_sent_it", "[vnc]") {
  Fixture fixture;
  Client good = fixture.login();
  std::uint32_t random = 99;
  for (int round = 0; round < 12; ++round) {
    Client bad = round % 3 == 0 ? fixture.connect() : fixture.login();
    Client::Bytes garbage(300);
    for (auto& byte : garbage) {
      random = random * 1664525 + 1013904223;
      byte = static_cast<std::uint8_t>(random >> 24);
    }
    bad.try_send(garbage);
    bad.close();
  }
  good.request(false);
  CHECK(good.next(0).width == 64);
}

TEST_CASE("vnc_message_that_has_no_use_here_disconnects", "[vnc]") {
  Fixture fixture;
  const std::uint8_t types[] = {7, 8, 10, 11, 13, 15, 250, 252};
  for (const std::uint8_t type : types) {
    Client client = fixture.login();
    client.send({type, 2, 0, 0});
    CHECK(client.hung_up());
  }
}

TEST_CASE("vnc_pixel_formats_without_sense_do_no_harm", "[vnc]") {
  Fixture fixture;
  const std::uint8_t depths[] = {0, 1, 7, 24, 64, 255};
  for (const std::uint8_t depth : depths) {
    Client client = fixture.login();
    client.send({0, 0, 0, 0, depth, depth, 1, 1, 0xFF, 0xFF, 0, 0, 0, 1, 200, 100, 255, 0, 0, 0});
    client.try_send({3, 0, 0, 0, 0, 0, 0, 64, 0, 32});
    client.close();
  }
  CHECK(fixture.login().width == 64);
}

TEST_CASE("vnc_extended_clipboard_text_is_ignored", "[vnc]") {
  Fixture fixture;
  Client client = fixture.login();
  client.set_encodings({0, static_cast<std::int32_t>(0xC0A1E5CE)});
  client.receive(16);  // the server's clipboard capabilities
  // ClientCutText of length -23: "provide" with text, deflated.
  Client::Bytes message = {6, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xE9, 0x10, 0, 0, 1};
  const Client::Bytes deflated = {0x78, 0x9C, 0x62, 0x60, 0x60, 0x60, 0x4D, 0x4C, 0x4A, 0x4E,
                                  0x61, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF};
  message.insert(message.end(), deflated.begin(), deflated.end());
  client.send(message);
  client.request(false);
  CHECK(client.next(0).width == 64);
}

TEST_CASE("vnc_browser_is_refused", "[vnc]") {
  Fixture fixture;
  Client client = fixture.connect();
  client.try_send(
      Client::text("GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nHost: x\r\n"
                   "Origin: http://x\r\nSec-WebSocket-Key: eA==\r\n"
                   "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: binary\r\n\r\n"));
  CHECK(client.hung_up());
}

TEST_CASE("vnc_client_that_wants_to_be_alone_disconnects_others_if_so_configured", "[vnc]") {
  VncConfig config = on_any_port();
  config.share = VncShare::kOnRequest;
  Fixture fixture(config);
  Client first = fixture.login();
  Client second = fixture.connect();
  second.login(true);
  Client third = fixture.connect();
  third.login(false);
  CHECK(first.hung_up());
  CHECK(second.hung_up());
  third.request(false);
  CHECK(third.next(0).width == 64);
}

TEST_CASE("vnc_second_client_is_refused_if_so_configured", "[vnc]") {
  VncConfig config = on_any_port();
  config.share = VncShare::kNever;
  Fixture fixture(config);
  Client first = fixture.login();
  Client second = fixture.login();
  CHECK(second.hung_up());
  first.request(false);
  CHECK(first.next(0).width == 64);
  first.close();
  REQUIRE(fixture.wait_clients(0));
  Client third = fixture.login();
  third.request(false);
  CHECK(third.next(0).width == 64);
}

TEST_CASE("vnc_more_clients_than_allowed_are_turned_away", "[vnc]") {
  Fixture fixture;
  std::vector<Client> clients;
  for (std::size_t i = 0; i < VncServer::kMaxClients; ++i) {
    clients.push_back(fixture.connect());
  }
  REQUIRE(fixture.wait_clients(VncServer::kMaxClients));
  CHECK(fixture.connect().hung_up());
  clients.clear();
  REQUIRE(fixture.wait_clients(0));
  CHECK(fixture.login().width == 64);
}

TEST_CASE("vnc_busy_port_is_an_error_that_names_it", "[vnc]") {
  Fixture fixture;
  VncConfig config;
  config.port = static_cast<int>(fixture.server->port());
  const auto second = VncServer::start(config, fixture.display, fixture.sink, fixture.lock);
  REQUIRE_FALSE(second.has_value());
  CHECK(second.error().code == ErrorCode::kBusy);
  CHECK_THAT(second.error().message, Catch::Contains("127.0.0.1:" + std::to_string(config.port)));
  CHECK_THAT(second.error().message, Catch::Contains("vnc.port"));
}

TEST_CASE("vnc_port_minus_one_takes_a_free_port_from_5900", "[vnc]") {
  VncConfig config;
  Fixture first(config);
  Fixture second(config);
  CHECK(first.server->port() >= 5900);
  CHECK(second.server->port() > first.server->port());
  CHECK(first.server->address() == "127.0.0.1:" + std::to_string(first.server->port()));
}

TEST_CASE("vnc_tells_of_a_clients_life", "[vnc]") {
  std::mutex lock;
  std::vector<VncEvent> told;
  VncConfig config = on_any_port();
  config.tell = [&](const VncEvent& event) {
    const std::scoped_lock guard(lock);
    told.push_back(event);
  };
  {
    Fixture fixture(config);
    Client client = fixture.login();
    client.request(false);
    client.update();
    CHECK(fixture.server->local().service == std::to_string(fixture.server->port()));
  }
  REQUIRE(told.size() == 3);
  CHECK(told[0].kind == VncEvent::Kind::kConnected);
  CHECK(told[1].kind == VncEvent::Kind::kInitialized);
  CHECK(told[2].kind == VncEvent::Kind::kDisconnected);
  CHECK(told[0].client.host == "127.0.0.1");
  CHECK(told[0].client.family == "ipv4");
  CHECK(told[0].client == told[2].client);
}

TEST_CASE("vnc_bad_configuration_is_an_error", "[vnc]") {
  std::mutex lock;
  PaintedDisplay display;
  RecordingSink sink;
  const auto error_of = [&](const std::function<void(VncConfig&)>& spoil) {
    VncConfig config = on_any_port();
    spoil(config);
    const auto started = VncServer::start(config, display, sink, lock);
    return started ? std::optional<ErrorCode>() : started.error().code;
  };
  CHECK(error_of([](VncConfig& c) { c.listen = "nowhere"; }) == ErrorCode::kInvalid);
  CHECK(error_of([](VncConfig& c) { c.listen = ""; }) == ErrorCode::kInvalid);
  CHECK(error_of([](VncConfig& c) { c.listen = "unix:"; }) == ErrorCode::kInvalid);
  CHECK(error_of([](VncConfig& c) { c.listen = "unix:" + std::string(200, 'x'); }) == ErrorCode::kInvalid);
  CHECK(error_of([](VncConfig& c) { c.listen = "unix:/nonexistent/vnc"; }) == ErrorCode::kNotFound);
  CHECK(error_of([](VncConfig& c) { c.listen = "192.0.2.1"; }).has_value());
  CHECK(error_of([](VncConfig& c) { c.port = 65536; }) == ErrorCode::kInvalid);
  CHECK(error_of([](VncConfig& c) { c.port = -2; }) == ErrorCode::kInvalid);
  CHECK(error_of([](VncConfig& c) { c.password = "123456789"; }) == ErrorCode::kInvalid);
}

TEST_CASE("vnc_unix_socket_serves_is_private_and_goes_with_the_server", "[vnc]") {
  char folder[] = "/tmp/whistler-vnc-XXXXXX";
  REQUIRE(::mkdtemp(folder) != nullptr);
  const std::string path = std::string(folder) + "/s";
  VncConfig config;
  config.listen = "unix:" + path;
  {
    Fixture fixture(config);
    Client client(path);
    client.login();
    CHECK(client.width == 64);
    CHECK(fixture.server->port() == 0);
    struct stat status{};
    REQUIRE(::stat(path.c_str(), &status) == 0);
    CHECK((status.st_mode & 077) == 0);
    const auto second = VncServer::start(config, fixture.display, fixture.sink, fixture.lock);
    REQUIRE_FALSE(second.has_value());
    CHECK(second.error().code == ErrorCode::kBusy);
  }
  CHECK_FALSE(std::filesystem::exists(path));
  std::filesystem::remove_all(folder);
}

TEST_CASE("vnc_unix_socket_left_by_a_dead_server_is_replaced", "[vnc]") {
  char folder[] = "/tmp/whistler-vnc-XXXXXX";
  REQUIRE(::mkdtemp(folder) != nullptr);
  const std::string path = std::string(folder) + "/s";
  const int dead = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, path.data(), path.size());
  REQUIRE(::bind(dead, reinterpret_cast<const sockaddr*>(&name), sizeof(name)) == 0);
  ::close(dead);
  VncConfig config;
  config.listen = "unix:" + path;
  {
    Fixture fixture(config);
    Client client(path);
    client.login();
    CHECK(client.height == 32);
  }
  std::filesystem::remove_all(folder);
}

#include "block/nbd/connection.hpp"

#include <optional>

#include "block/nbd/test_peer.hpp"

using namespace whistler;
using namespace whistler::nbd;
using namespace whistler::test;

namespace {

/// A client's connection, and a server by hand.
struct Fixture {
  std::unique_ptr<Ring> ring = make_ring();
  Peer peer{*ring};
  std::shared_ptr<Connection> connection;
  std::optional<Result<ExportInfo>> started;
  std::optional<Connection::Reply> reply;
  Bytes data = Bytes(4096, 0xee);
  iovec vec{};

  Fixture() {
    connection = std::make_shared<Connection>(*ring, peer.take_other());
    spawn(connection->start(nullptr, "", "disk", "base:allocation"),
          [this](Result<ExportInfo> info) { started = std::move(info); });
  }
  ~Fixture() {
    peer.close();
    connection->shut_down();
    sync_wait(*ring, connection->close());
    turn_until([this] { return started.has_value(); });
  }

  template <typename Condition>
  bool turn_until(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (!condition() && std::chrono::steady_clock::now() < deadline) {
      ring->run_once(false);
      ::usleep(100);
    }
    return condition();
  }
  void greet() {
    Writer greeting;
    greeting.put(kMagic);
    greeting.put(kOptionMagic);
    greeting.put(std::uint16_t{kFixedNewstyle | kNoZeroes});
    peer.send(greeting);
    REQUIRE(peer.receive(4).size() == 4);
  }
  Option option() {
    const auto header = peer.receive_struct<OptionHeader>();
    CHECK(peer.receive(header.length).size() == header.length);
    return static_cast<Option>(+header.option);
  }
  void answer(Option option, std::uint32_t type, std::string_view payload = {}) {
    Writer message;
    message.put(kOptionReplyMagic);
    message.put(static_cast<std::uint32_t>(option));
    message.put(type);
    message.put_string(payload);
    peer.send(message);
  }
  /// Up to the end of a handshake in which everything is agreed.
  void begin() {
    greet();
    REQUIRE(option() == Option::kStructuredReply);
    answer(Option::kStructuredReply, kReplyAck);
    REQUIRE(option() == Option::kSetMetaContext);
    Writer context;
    context.put(std::uint32_t{5});
    context.put("base:allocation");
    answer(Option::kSetMetaContext, kReplyMetaContext, context.bytes());
    answer(Option::kSetMetaContext, kReplyAck);
    REQUIRE(option() == Option::kGo);
    Writer info;
    info.put(kInfoExport);
    info.put(std::uint64_t{1024 * 1024});
    info.put(std::uint16_t{kHasFlags | kSendFlush});
    answer(Option::kGo, kReplyInfo, info.bytes());
    answer(Option::kGo, kReplyAck);
    REQUIRE(turn_until([this] { return started.has_value(); }));
    REQUIRE(started->has_value());
    Connection::read_replies(connection);
  }
  /// Sends a request; its cookie.
  std::uint64_t ask(Command command, std::uint32_t length) {
    vec = {data.data(), data.size()};
    spawn(connection->request({command, 0, 8192, length, {&vec, 1}}),
          [this](Connection::Reply got) { reply = std::move(got); });
    const auto header = peer.receive_struct<RequestHeader>();
    CHECK(header.command == static_cast<std::uint16_t>(command));
    return header.cookie;
  }
  void chunk(std::uint16_t flags, std::uint16_t type, std::uint64_t cookie, const Writer& payload,
             std::optional<std::uint32_t> length = {}) {
    peer.send_struct(ChunkHeader{kStructuredReplyMagic, flags, type, cookie,
                                 length.value_or(static_cast<std::uint32_t>(payload.bytes().size()))});
    peer.send(payload);
  }
  /// The server broke the protocol: the request fails, and the connection is over.
  void expect_lost() {
    REQUIRE(turn_until([this] { return reply.has_value(); }));
    CHECK(reply->lost);
    CHECK_FALSE(connection->alive());
    CHECK(peer.ends());
  }
};

}  // namespace

TEST_CASE("nbd client: a read is put together from data and holes in any order") {
  Fixture fixture;
  fixture.begin();
  const auto cookie = fixture.ask(Command::kRead, 4096);
  Writer hole;
  hole.put(std::uint64_t{8192 + 1024});
  hole.put(std::uint32_t{3072});
  fixture.chunk(0, kChunkOffsetHole, cookie, hole);
  Writer data;
  data.put(std::uint64_t{8192});
  data.put(std::string(1024, 'd'));
  fixture.chunk(kChunkDone, kChunkOffsetData, cookie, data);
  REQUIRE(fixture.turn_until([&] { return fixture.reply.has_value(); }));
  CHECK(fixture.reply->error == 0);
  CHECK(fixture.data[0] == 'd');
  CHECK(fixture.data[1023] == 'd');
  CHECK(fixture.data[1024] == 0);
  CHECK(fixture.data[4095] == 0);
}

TEST_CASE("nbd client: data outside of what was asked ends the connection") {
  Fixture fixture;
  fixture.begin();
  const auto cookie = fixture.ask(Command::kRead, 4096);
  Writer data;
  data.put(std::uint64_t{8192 + 4095});
  data.put(std::string(2, 'd'));
  fixture.chunk(kChunkDone, kChunkOffsetData, cookie, data);
  fixture.expect_lost();
}

TEST_CASE("nbd client: data before what was asked ends the connection") {
  Fixture fixture;
  fixture.begin();
  const auto cookie = fixture.ask(Command::kRead, 4096);
  Writer data;
  data.put(std::uint64_t{8191});
  data.put(std::string(2, 'd'));
  fixture.chunk(kChunkDone, kChunkOffsetData, cookie, data);
  fixture.expect_lost();
}

TEST_CASE("nbd client: a hole longer than what was asked ends the connection") {
  Fixture fixture;
  fixture.begin();
  const auto cookie = fixture.ask(Command::kRead, 4096);
  Writer hole;
  hole.put(std::uint64_t{8192});
  hole.put(std::uint32_t{0xffffffff});
  fixture.chunk(kChunkDone, kChunkOffsetHole, cookie, hole);
  fixture.expect_lost();
}

TEST_CASE("nbd client: a read of which a part is missing is not taken for whole") {
  Fixture fixture;
  fixture.begin();
  const auto cookie = fixture.ask(Command::kRead, 4096);
  Writer data;
  data.put(std::uint64_t{8192});
  data.put(std::string(100, 'd'));
  fixture.chunk(kChunkDone, kChunkOffsetData, cookie, data);
  fixture.expect_lost();
}

TEST_CASE("nbd client: a reply to nothing ends the connection") {
  Fixture fixture;
  fixture.begin();
  const auto cookie = fixture.ask(Command::kFlush, 0);
  fixture.chunk(kChunkDone, kChunkNone, cookie + 1, {});
  fixture.expect_lost();
}

TEST_CASE("nbd client: an answer to another kind of request ends the connection") {
  Fixture fixture;
  fixture.begin();
  const auto cookie = fixture.ask(Command::kFlush, 0);
  Writer data;
  data.put(std::uint64_t{8192});
  data.put(std::string(100, 'd'));
  fixture.chunk(kChunkDone, kChunkOffsetData, cookie, data);
  fixture.expect_lost();
}

TEST_CASE("nbd client: an error of the server is the request's, and the connection goes on") {
  Fixture fixture;
  fixture.begin();
  const auto cookie = fixture.ask(Command::kRead, 4096);
  Writer error;
  error.put(kEnospc);
  error.put(std::uint16_t{4});
  error.put("full");
  fixture.chunk(kChunkDone, kChunkError, cookie, error);
  REQUIRE(fixture.turn_until([&] { return fixture.reply.has_value(); }));
  CHECK(fixture.reply->error == kEnospc);
  CHECK(fixture.reply->message == "full");
  CHECK(fixture.connection->alive());
}

TEST_CASE("nbd client: an error whose message is longer than its chunk ends the connection") {
  Fixture fixture;
  fixture.begin();
  const auto cookie = fixture.ask(Command::kRead, 4096);
  Writer error;
  error.put(kEnospc);
  error.put(std::uint16_t{400});
  error.put("full");
  fixture.chunk(kChunkDone, kChunkError, cookie, error);
  fixture.expect_lost();
}

TEST_CASE("nbd client: a status of length zero or of another context ends the connection") {
  const std::uint32_t context = GENERATE(5U, 6U);
  Fixture fixture;
  fixture.begin();
  const auto cookie = fixture.ask(Command::kBlockStatus, 4096);
  Writer status;
  status.put(context);
  status.put(std::uint32_t{context == 5 ? 0U : 4096U});
  status.put(std::uint32_t{0});
  fixture.chunk(kChunkDone, kChunkBlockStatus, cookie, status);
  fixture.expect_lost();
}

TEST_CASE("nbd client: a chunk that claims gigabytes ends the connection") {
  Fixture fixture;
  fixture.begin();
  const auto cookie = fixture.ask(Command::kRead, 4096);
  Writer data;
  data.put(std::uint64_t{8192});
  fixture.chunk(kChunkDone, kChunkOffsetData, cookie, data, 0xffffffffU);
  fixture.expect_lost();
}

TEST_CASE("nbd client: every request of a server that vanishes fails") {
  Fixture fixture;
  fixture.begin();
  (void)fixture.ask(Command::kRead, 4096);
  fixture.peer.close();
  REQUIRE(fixture.turn_until([&] { return fixture.reply.has_value(); }));
  CHECK(fixture.reply->lost);
}

TEST_CASE("nbd client: handshakes that make no sense are refused with the reason") {
  Fixture fixture;
  const int kind = GENERATE(0, 1, 2, 3, 4);
  if (kind == 0) {
    fixture.peer.send("not a server at all");
  } else {
    fixture.greet();
    REQUIRE(fixture.option() == Option::kStructuredReply);
    if (kind == 1) {  // an answer to another option
      fixture.answer(Option::kList, kReplyAck);
    } else if (kind == 2) {  // more payload than anyone needs
      Writer message;
      message.put(kOptionReplyMagic);
      message.put(std::uint32_t{8});
      message.put(kReplyAck);
      message.put(std::uint32_t{0x7fffffff});
      fixture.peer.send(message);
    } else {
      fixture.answer(Option::kStructuredReply, kErrUnsupported);
      REQUIRE(fixture.option() == Option::kGo);
      if (kind == 3) {  // an end without the export's size
        fixture.answer(Option::kGo, kReplyAck);
      } else {  // a block size that is no power of two
        Writer info;
        info.put(kInfoBlockSize);
        info.put(std::uint32_t{3});
        info.put(std::uint32_t{3});
        info.put(std::uint32_t{3});
        fixture.answer(Option::kGo, kReplyInfo, info.bytes());
      }
    }
  }
  REQUIRE(fixture.turn_until([&] { return fixture.started.has_value(); }));
  CHECK_FALSE(fixture.started->has_value());
  CHECK_FALSE(fixture.started->error().message.empty());
}

TEST_CASE("nbd client: the server's refusal is passed on in its words") {
  Fixture fixture;
  fixture.greet();
  REQUIRE(fixture.option() == Option::kStructuredReply);
  fixture.answer(Option::kStructuredReply, kErrUnsupported);
  REQUIRE(fixture.option() == Option::kGo);
  fixture.answer(Option::kGo, kErrUnknown, "export 'disk' not present");
  REQUIRE(fixture.turn_until([&] { return fixture.started.has_value(); }));
  REQUIRE_FALSE(fixture.started->has_value());
  CHECK(fixture.started->error().message ==
        "Requested export not available\nserver reported: export 'disk' not present");
}

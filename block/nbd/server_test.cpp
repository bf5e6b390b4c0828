#include "block/nbd/server.hpp"

#include <chrono>
#include <thread>

#include "block/memory.hpp"
#include "block/nbd/protocol.hpp"
#include "block/nbd/test_peer.hpp"

using namespace whistler;
using namespace whistler::nbd;
using namespace whistler::test;

namespace {

constexpr std::uint64_t kDisk = 1024 * 1024;

/// A server with one disk in memory, and a client by hand.
struct Fixture {
  std::unique_ptr<Ring> ring = make_ring();
  std::shared_ptr<MemoryBlockDevice> disk = std::make_shared<MemoryBlockDevice>(kDisk);
  std::vector<std::string> log;
  std::unique_ptr<Server> server;
  Peer peer{*ring};

  explicit Fixture(bool read_only = false, std::chrono::seconds time = std::chrono::seconds(10)) {
    Export shown{.name = "disk", .device = disk, .bytes = kDisk, .read_only = read_only};
    ServerOptions options;
    options.handshake_time = time;
    options.log = [this](const std::string& message) { log.push_back(message); };
    server = std::make_unique<Server>(*ring, std::vector{shown}, options);
    server->serve(peer.take_other());
  }
  ~Fixture() {
    peer.close();
    sync_wait(*ring, server->stop());
  }

  /// Lets the server go on until it has logged something, for at most some seconds.
  void turn_until_logged() {
    for (int turn = 0; turn < 500 && log.empty(); ++turn) {
      ring->run_once(false);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
  void greet() {
    REQUIRE(peer.receive(18).size() == 18);
    Writer flags;
    flags.put(std::uint32_t{kFixedNewstyle | kNoZeroes});
    peer.send(flags);
  }
  void option(Option number, std::string_view payload) {
    Writer message;
    message.put(kOptionMagic);
    message.put(static_cast<std::uint32_t>(number));
    message.put_string(payload);
    peer.send(message);
  }
  /// The type of the next answer; its payload goes to `payload`.
  std::uint32_t answer(std::string* payload = nullptr) {
    const auto header = peer.receive_struct<OptionReplyHeader>();
    CHECK(header.magic == kOptionReplyMagic);
    const auto bytes = peer.receive(header.length);
    if (payload != nullptr) {
      *payload = bytes;
    }
    return header.type;
  }
  void begin(bool structured) {
    greet();
    if (structured) {
      option(Option::kStructuredReply, "");
      REQUIRE(answer() == kReplyAck);
    }
    Writer name;
    name.put_string("disk");
    name.put(std::uint16_t{0});
    option(Option::kGo, name.bytes());
    std::uint32_t type = 0;
    do {
      type = answer();
    } while (type == kReplyInfo);
    REQUIRE(type == kReplyAck);
  }
  void request(Command command, std::uint64_t offset, std::uint32_t length, std::uint16_t flags = 0) {
    peer.send_struct(
        RequestHeader{kRequestMagic, flags, static_cast<std::uint16_t>(command), 77, offset, length});
  }
  std::uint32_t simple_error() {
    const auto reply = peer.receive_struct<SimpleReplyHeader>();
    CHECK(reply.magic == kSimpleReplyMagic);
    CHECK(reply.cookie == 77);
    return reply.error;
  }
};

}  // namespace

TEST_CASE("nbd server: what is written is read back, with simple and with structured replies") {
  Fixture fixture;
  fixture.begin(true);
  const std::string data(8192, 'x');
  fixture.request(Command::kWrite, 4096, 8192);
  fixture.peer.send(data);
  CHECK(fixture.simple_error() == 0);
  fixture.request(Command::kRead, 4096, 8192);
  const auto chunk = fixture.peer.receive_struct<ChunkHeader>();
  CHECK(chunk.type == kChunkOffsetData);
  CHECK(chunk.flags == kChunkDone);
  CHECK(chunk.length == 8192 + 8);
  CHECK(fixture.peer.receive(8 + 8192).substr(8) == data);
}

TEST_CASE("nbd server: zeroes are read as a hole unless they must not be fragmented") {
  Fixture fixture;
  fixture.begin(true);
  fixture.request(Command::kRead, 0, 4096);
  auto chunk = fixture.peer.receive_struct<ChunkHeader>();
  CHECK(chunk.type == kChunkOffsetHole);
  CHECK(fixture.peer.receive(chunk.length).size() == 12);
  fixture.request(Command::kRead, 0, 4096, kFlagDf);
  chunk = fixture.peer.receive_struct<ChunkHeader>();
  CHECK(chunk.type == kChunkOffsetData);
  CHECK(fixture.peer.receive(chunk.length).size() == 8 + 4096);
}

TEST_CASE("nbd server: requests beyond the end, too long or unknown get an error and nothing else") {
  Fixture fixture;
  fixture.begin(false);
  fixture.request(Command::kRead, kDisk - 10, 11);
  CHECK(fixture.simple_error() == kEinval);
  fixture.request(Command::kRead, ~std::uint64_t{0}, 4096);
  CHECK(fixture.simple_error() == kEinval);
  fixture.request(Command::kRead, 0, kMaxBytes + 1);
  CHECK(fixture.simple_error() == kEinval);
  fixture.request(Command::kWriteZeroes, kDisk, 1);
  CHECK(fixture.simple_error() == kEnospc);
  fixture.request(static_cast<Command>(99), 0, 0);
  CHECK(fixture.simple_error() == kEinval);
  fixture.request(Command::kTrim, 0, 512, kFlagDf);
  CHECK(fixture.simple_error() == kEinval);
  fixture.request(Command::kBlockStatus, 0, 512);
  CHECK(fixture.simple_error() == kEinval);
  fixture.request(Command::kFlush, 0, 0);
  CHECK(fixture.simple_error() == 0);
}

TEST_CASE("nbd server: a write of four gigabytes ends the connection without taking memory for it") {
  Fixture fixture;
  fixture.begin(false);
  fixture.request(Command::kWrite, 0, 0xffffffffU);
  CHECK(fixture.peer.ends());
  fixture.turn_until_logged();  // the client may see the end before the server has said why
  REQUIRE(fixture.log.size() == 1);
  CHECK(fixture.log[0].find("is larger than max len") != std::string::npos);
}

TEST_CASE("nbd server: a read-only export refuses every kind of write") {
  Fixture fixture(true);
  fixture.begin(false);
  fixture.request(Command::kWrite, 0, 4);
  fixture.peer.send("data");
  CHECK(fixture.simple_error() == kEperm);
  fixture.request(Command::kTrim, 0, 4);
  CHECK(fixture.simple_error() == kEperm);
  fixture.request(Command::kWriteZeroes, 0, 4);
  CHECK(fixture.simple_error() == kEperm);
}

TEST_CASE("nbd server: a wrong magic ends the connection") {
  Fixture fixture;
  fixture.begin(false);
  fixture.peer.send(std::string(28, 'z'));
  CHECK(fixture.peer.ends());
}

TEST_CASE("nbd server: unknown options and wrong lengths are refused, and the client may go on") {
  Fixture fixture;
  fixture.greet();
  fixture.option(static_cast<Option>(4711), "something");
  CHECK(fixture.answer() == kErrUnsupported);
  fixture.option(Option::kList, "x");
  CHECK(fixture.answer() == kErrInvalid);
  fixture.option(Option::kGo, "x");
  CHECK(fixture.answer() == kErrInvalid);
  fixture.option(Option::kStartTls, "");
  CHECK(fixture.answer() == kErrPolicy);
  fixture.option(Option::kSetMetaContext, "");
  CHECK(fixture.answer() == kErrInvalid);
  // A name that claims to be longer than the option, and more queries than it can hold.
  Writer name;
  name.put(std::uint32_t{0xffffffff});
  fixture.option(Option::kInfo, name.bytes());
  CHECK(fixture.answer() == kErrInvalid);
  fixture.option(Option::kStructuredReply, "");
  CHECK(fixture.answer() == kReplyAck);
  Writer queries;
  queries.put_string("disk");
  queries.put(std::uint32_t{0xffffffff});
  fixture.option(Option::kListMetaContext, queries.bytes());
  CHECK(fixture.answer() == kErrInvalid);
  fixture.option(Option::kAbort, "");
  CHECK(fixture.answer() == kReplyAck);
  CHECK(fixture.peer.ends());
}

TEST_CASE("nbd server: an export that is not there is refused by name, a long name cut short") {
  Fixture fixture;
  fixture.greet();
  Writer name;
  name.put_string(std::string(4096, 'a'));
  name.put(std::uint16_t{0});
  fixture.option(Option::kGo, name.bytes());
  std::string message;
  CHECK(fixture.answer(&message) == kErrUnknown);
  CHECK(message.size() < 120);
  CHECK(message.find("...' not present") != std::string::npos);
}

TEST_CASE("nbd server: an option longer than the limit ends the connection") {
  Fixture fixture;
  fixture.greet();
  Writer message;
  message.put(kOptionMagic);
  message.put(std::uint32_t{3});
  message.put(std::uint32_t{0xffffffff});
  fixture.peer.send(message);
  CHECK(fixture.peer.ends());
}

TEST_CASE("nbd server: who says nothing is let go after the handshake's time") {
  Fixture fixture(false, std::chrono::seconds(1));
  REQUIRE(fixture.peer.receive(18).size() == 18);
  CHECK(fixture.peer.ends());
  fixture.turn_until_logged();  // the client may see the end before the server has said why
  REQUIRE(fixture.log.size() == 1);
  CHECK(fixture.log[0].find("took too long") != std::string::npos);
}

TEST_CASE("nbd server: a client that reads no replies is held up, not served into memory") {
  Fixture fixture;
  fixture.begin(false);
  // Far more than the socket and the limits of one client hold: sending must stall.
  std::string requests;
  const RequestHeader header{kRequestMagic, 0, 0, 77, 0, 1024 * 1024};
  for (int i = 0; i < 200; ++i) {
    requests.append(reinterpret_cast<const char*>(&header), sizeof header);
  }
  fixture.peer.send(requests);
  for (int i = 0; i < 200; ++i) {
    REQUIRE(fixture.simple_error() == 0);
    REQUIRE(fixture.peer.receive(1024 * 1024).size() == 1024 * 1024);
  }
}

TEST_CASE("nbd server: a client that only closes its sending side still gets its replies") {
  Fixture fixture;
  fixture.begin(false);
  fixture.request(Command::kRead, 0, 4096);
  fixture.peer.close_sending();
  CHECK(fixture.simple_error() == 0);
  CHECK(fixture.peer.receive(4096).size() == 4096);
  CHECK(fixture.peer.ends());
}

TEST_CASE("nbd server: block status tells data from holes, one extent if one is asked") {
  Fixture fixture;
  const Bytes data(65536, 7);
  REQUIRE(write(*fixture.ring, *fixture.disk, 65536, data));
  fixture.greet();
  fixture.option(Option::kStructuredReply, "");
  REQUIRE(fixture.answer() == kReplyAck);
  Writer query;
  query.put_string("disk");
  query.put(std::uint32_t{1});
  query.put_string("base:allocation");
  fixture.option(Option::kSetMetaContext, query.bytes());
  std::string context;
  REQUIRE(fixture.answer(&context) == kReplyMetaContext);
  CHECK(context.substr(4) == "base:allocation");
  REQUIRE(fixture.answer() == kReplyAck);
  Writer name;
  name.put_string("disk");
  name.put(std::uint16_t{0});
  fixture.option(Option::kGo, name.bytes());
  while (fixture.answer() == kReplyInfo) {
  }
  fixture.request(Command::kBlockStatus, 0, 262144, kFlagReqOne);
  const auto chunk = fixture.peer.receive_struct<ChunkHeader>();
  CHECK(chunk.type == kChunkBlockStatus);
  REQUIRE(chunk.length == 12);
  CHECK(fixture.peer.receive(12).size() == 12);
}

#include "vmm/monitor/metrics.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>

#include "vmm/monitor/control_fake.hpp"
#include "vmm/test_folder.hpp"
#include "vmm/unix_socket.hpp"

using namespace whistler;

namespace {

struct Fixture {
  TestFolder folder;
  std::unique_ptr<ControlFake> machine = ControlFake::make(R"("name": "a \"b\"")", folder / "m.json");
  std::string path = folder / "metrics";
  std::unique_ptr<MetricsServer> server;

  Fixture() {
    const std::scoped_lock lock(machine->pc().lock());
    server = std::make_unique<MetricsServer>(machine->pc().loop());
    REQUIRE(server->open(path).has_value());
  }
  ~Fixture() {
    const std::scoped_lock lock(machine->pc().lock());
    server.reset();
  }
  Fixture(const Fixture&) = delete;
  Fixture& operator=(const Fixture&) = delete;

  void turn() {
    for (int i = 0; i < 4; ++i) {
      machine->pc().loop().run_once(1'000'000);
      server->serve(*machine);
    }
  }
  std::string ask(std::string_view request) {
    const auto client = connect_unix(path);
    REQUIRE(client.has_value());
    REQUIRE(::send(client->get(), request.data(), request.size(), 0) == static_cast<ssize_t>(request.size()));
    turn();
    std::string answer;
    std::array<char, 4096> buffer{};
    for (ssize_t got = 0; (got = ::recv(client->get(), buffer.data(), buffer.size(), MSG_DONTWAIT)) > 0;) {
      answer.append(buffer.data(), static_cast<std::size_t>(got));
    }
    return answer;
  }
};

}  // namespace

TEST_CASE("metrics_are_what_prometheus_reads", "[metrics]") {
  Fixture f;
  const auto answer = f.ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(answer.starts_with("HTTP/1.0 200 OK\r\n"));
  CHECK(answer.find("# TYPE whistler_running gauge\nwhistler_running 1\n") != std::string::npos);
  CHECK(answer.find("whistler_machine{name=\"a \\\"b\\\"\"} 1\n") != std::string::npos);
  CHECK(answer.find("whistler_memory_bytes 16777216\n") != std::string::npos);
  f.machine->stop();
  CHECK(f.ask("GET / HTTP/1.0\r\n\r\n").find("whistler_running 0\n") != std::string::npos);
  CHECK(f.ask("POST / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 405"));
}

TEST_CASE("metrics_clients_that_say_nothing_or_too_much_keep_nobody_out", "[metrics]") {
  Fixture f;
  std::vector<UniqueFd> silent;
  for (int i = 0; i < 40; ++i) {
    auto client = connect_unix(f.path);
    REQUIRE(client.has_value());
    silent.push_back(std::move(*client));
    f.turn();
  }
  CHECK(f.ask(std::string(20000, 'x')).empty());
  CHECK(f.ask("GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 200"));
}

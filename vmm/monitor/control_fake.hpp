// A machine for tests of the monitor: all but processors, with what is asked of it written down.
#pragma once

#include <sys/epoll.h>

#include <catch2/catch.hpp>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "vmm/host_clock.hpp"
#include "vmm/monitor/events.hpp"
#include "vmm/monitor/machine_control.hpp"
#include "vmm/monitor/qmp_commands.hpp"

namespace whistler {

class ControlFake final : public MachineControl {
 public:
  struct Event {
    std::string name;
    nlohmann::json data;
  };
  std::vector<Event> events;
  std::vector<std::string> asked;

  /// `keys` are more keys of the description, `source` its file.
  static std::unique_ptr<ControlFake> make(std::string_view keys, const std::string& source) {
    const std::string text = R"({ "memory": "16M", "display": { "vga": "none" }, )" + std::string(keys) + "}";
    auto description = parse_description(text, source);
    if (!description) {
      FAIL(description.error().message);
    }
    auto fake = std::unique_ptr<ControlFake>(new ControlFake(std::move(*description)));
    const auto opened = fake->pc_.open();
    if (!opened) {
      FAIL(opened.error().message);
    }
    const std::scoped_lock lock(fake->pc_.lock());
    REQUIRE(fake->pc_.build({.gsis = &fake->interrupts_}));
    auto& pc = fake->pc_;
    fake->keys_ = std::make_unique<KeyFeeder>(pc.timers(), pc.board().input(),
                                              KeyFeeder::Guest{.ready = [] { return false; },
                                                               .bios_buffer = [] { return BiosKeyBuffer{}; },
                                                               .all_read = [](std::uint64_t) {}});
    pc.loop().watch(pc.ring().fd(), EPOLLIN, [&pc](std::uint32_t) { pc.ring().run_once(false); });
    qmp::watch_machine(*fake);
    return fake;
  }

  /// What a client gets; the event loop turns until it is there.
  qmp::Answer<qmp::Json> ask(const qmp::Request& request) {
    std::optional<qmp::Answer<qmp::Json>> got;
    qmp::execute(*this, request, [&](qmp::Answer<qmp::Json> answer) { got.emplace(std::move(answer)); });
    while (!got) {
      pc_.loop().run_once(-1);
    }
    return std::move(*got);
  }

  [[nodiscard]] RunState run_state() override { return paused_ ? RunState::kPaused : RunState::kRunning; }
  void stop() override { paused_ = true; }
  void cont() override { paused_ = false; }
  void reset() override { asked.emplace_back("reset"); }
  void power_button() override { asked.emplace_back("power_button"); }
  void quit() override { asked.emplace_back("quit"); }
  [[nodiscard]] Activity activity() override { return {}; }
  [[nodiscard]] bool halted_for_good() override { return false; }
  [[nodiscard]] std::string registers() override { return "EAX=0\n"; }
  void inject_nmi() override { asked.emplace_back("nmi"); }
  [[nodiscard]] std::vector<int> thread_ids() override { return {1}; }
  [[nodiscard]] std::optional<std::uint64_t> translate(unsigned, std::uint64_t address) override {
    return address;
  }
  void tell(std::string_view event, nlohmann::json data) override {
    events.push_back({std::string(event), std::move(data)});
  }
  [[nodiscard]] HostedPc& pc() override { return pc_; }
  [[nodiscard]] KeyFeeder& keys() override { return *keys_; }

 private:
  class NoInterrupts final : public IrqSink {
   public:
    void set_irq(unsigned, bool) override {}
  };

  explicit ControlFake(Description description)
      : pc_(std::move(description), clock_, clock_,
            {.reset = [] {}, .power_off = [] {}, .exit = [](int) {}, .disk_full = [](const Error&) {}}) {}

  HostClock clock_;
  NoInterrupts interrupts_;
  HostedPc pc_;
  std::unique_ptr<KeyFeeder> keys_;
  bool paused_ = false;
};

}  // namespace whistler

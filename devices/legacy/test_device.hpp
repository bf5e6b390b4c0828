// The device test programs for KVM drive the board with.
// Models: QEMU's pc-testdev. Four bytes of storage behind ports 0xE0 (accesses of 1, 2 and 4 bytes) and 0xE8
// (the same bytes, one at a time); a 32-bit write of an address to 0xE4, after which the host maps that page
// anew; interrupt lines 0 to 23 at 0x2000; 64 KiB of storage at 0xFF000000. Missing: nothing.
// Documentation: the x86 tests of kvm-unit-tests, which use it.
#pragma once

#include <array>
#include <functional>

#include "devices/core/device.hpp"
#include "devices/core/io_handler.hpp"
#include "devices/core/irq_line.hpp"

namespace whistler {

class TestDevice final : public Device {
 public:
  static constexpr std::uint32_t kMemoryLength = 0x10000;
  static constexpr unsigned kLines = 24;

  /// `irqs` has inputs 0 to 23 and must outlive the device. `flush_page` is given a guest-physical address.
  TestDevice(IrqSink& irqs, std::function<void(std::uint64_t)> flush_page)
      : lines_(irqs), flush_(std::move(flush_page)) {}

  /// Four ports, for 0xE0 and for 0xE8.
  [[nodiscard]] IoHandler& latch() { return latch_; }
  [[nodiscard]] IoHandler& flush() { return flush_; }
  /// A port a line: zero lowers it, anything else raises it.
  [[nodiscard]] IoHandler& lines() { return lines_; }
  [[nodiscard]] IoHandler& memory() { return memory_; }

  [[nodiscard]] std::string_view id() const override { return "test-device"; }
  void reset() override {}
  void save(StateWriter& writer) const override { writer.put(latch_.state); }
  [[nodiscard]] Result<void> load(const StateReader& reader) override { return reader.get(latch_.state); }

 private:
  struct State {
    std::uint32_t latch = 0;
    bool operator==(const State&) const = default;
    static void fields(auto& self, auto&& visit) { visit("latch", self.latch); }
  };
  struct Latch final : IoHandler {
    State state;
    [[nodiscard]] std::uint64_t read(std::uint64_t offset, unsigned width) override;
    void write(std::uint64_t offset, unsigned width, std::uint64_t value) override;
  };
  struct Flush final : IoHandler {
    std::function<void(std::uint64_t)> page;
    explicit Flush(std::function<void(std::uint64_t)> function) : page(std::move(function)) {}
    [[nodiscard]] std::uint64_t read(std::uint64_t, unsigned) override { return 0; }
    void write(std::uint64_t offset, unsigned width, std::uint64_t value) override;
  };
  struct Lines final : IoHandler {
    IrqSink& irqs;
    explicit Lines(IrqSink& sink) : irqs(sink) {}
    [[nodiscard]] std::uint64_t read(std::uint64_t, unsigned) override { return 0; }
    void write(std::uint64_t offset, unsigned width, std::uint64_t value) override;
  };
  struct Memory final : IoHandler {
    std::array<std::uint8_t, kMemoryLength> bytes{};
    [[nodiscard]] std::uint64_t read(std::uint64_t offset, unsigned width) override;
    void write(std::uint64_t offset, unsigned width, std::uint64_t value) override;
  };

  Latch latch_;
  Lines lines_;
  Flush flush_;
  Memory memory_;
};

}  // namespace whistler

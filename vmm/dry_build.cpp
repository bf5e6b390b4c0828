#include "vmm/dry_build.hpp"

#include "vmm/host_clock.hpp"
#include "vmm/hosted_pc.hpp"

namespace whistler {

namespace {

class NoInterrupts final : public IrqSink {
 public:
  void set_irq(unsigned, bool) override {}
};

}  // namespace

Result<void> dry_build(const Description& description) {
  HostClock clock;
  NoInterrupts interrupts;
  HostedPc pc(description, clock, clock,
              {.reset = [] {}, .power_off = [] {}, .exit = [](int) {}, .disk_full = [](const Error&) {}});
  if (auto opened = pc.open(OpenFor::kChecking); !opened) {
    return opened;
  }
  {
    std::scoped_lock lock(pc.lock());
    if (auto built = pc.build({.gsis = &interrupts}); !built) {
      return built;
    }
    if (auto kernel = pc.load_kernel(); !kernel) {
      return std::unexpected(kernel.error());
    }
  }
  return pc.check_vnc();
}

}  // namespace whistler

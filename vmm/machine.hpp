// A virtual machine: a hosted PC with KVM's vCPUs, their threads, and the main loop.
#pragma once

#include <atomic>
#include <condition_variable>
#include <expected>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/result.hpp"
#include "vmm/config/description.hpp"
#include "vmm/ctl/registry.hpp"
#include "vmm/exit_status.hpp"
#include "vmm/hosted_pc.hpp"
#include "vmm/kvm/vcpu.hpp"
#include "vmm/kvm/vm.hpp"
#include "vmm/monitor/machine_control.hpp"
#include "vmm/monitor/metrics.hpp"
#include "vmm/monitor/qmp_server.hpp"

namespace whistler {

/// How a machine ended, or why it did not start: the exit status of `whistler run` and one line (after a
/// crash, with the registers below it) for a person.
struct Outcome {
  int status = 0;
  std::string reason;
  bool exit_port = false;  ///< the status is the guest's own, and may look like one of the program's
};

/// Locks: pc_.lock() guards every device, the ring, the timers and the requests below; vCPU threads take it
/// for each exit, the main thread around callbacks, VNC threads for moments. park_lock_ guards only the
/// parking of vCPU threads and is taken last.
class Machine final : private MachineControl {
 public:
  /// Opens and checks everything the description names and builds the machine; nothing runs yet. What is
  /// wrong with the description goes before what is wrong with the host. `monitors` are opened besides the
  /// description's own.
  [[nodiscard]] static std::expected<std::unique_ptr<Machine>, Outcome> create(
      Description description, const std::vector<qmp::Address>& monitors = {});
  ~Machine() override;
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  /// Runs until the guest, a signal or `timeout` (seconds; 0: none) ends it; disks are flushed and closed
  /// then. Main thread; SIGTERM and SIGINT must be blocked in every thread: they press the power button, and
  /// stop the machine after a grace time, or at a second one.
  /// `paused`: nothing runs before a monitor's client says `cont`.
  [[nodiscard]] Outcome run(unsigned timeout, bool paused = false);

  [[nodiscard]] HostedPc& pc() override { return pc_; }

 private:
  explicit Machine(Description description);
  [[nodiscard]] Result<void> create_kvm();
  /// Lets people find its monitor.
  void write_down();

  // MachineControl, for the monitor.
  [[nodiscard]] RunState run_state() override;
  void stop() override;
  void cont() override;
  void reset() override;
  void power_button() override;
  void quit() override;
  [[nodiscard]] Activity activity() override;
  [[nodiscard]] bool halted_for_good() override;
  [[nodiscard]] std::string registers() override;
  void inject_nmi() override;
  [[nodiscard]] std::vector<int> thread_ids() override;
  [[nodiscard]] std::optional<std::uint64_t> translate(unsigned index, std::uint64_t address) override;
  void tell(std::string_view event, nlohmann::json data) override { monitor_->event(event, std::move(data)); }
  [[nodiscard]] KeyFeeder& keys() override { return *keys_; }

  // vCPU threads.
  void vcpu_main(unsigned index);
  void handle_event(unsigned index, VcpuEvent event);
  void park_if_asked(unsigned index);

  // Under the machine lock: no vCPU enters the guest again before unpark_all().
  void hold_vcpus();
  void ask_reset();
  void finish(Outcome outcome);
  void pause_for_space(const Error& error);
  void on_signal();

  // The main thread, without the machine lock.
  /// Returns once every vCPU thread is outside the guest and waits.
  void park_all();
  void unpark_all();
  [[nodiscard]] Nanoseconds patience(Nanoseconds time_limit);
  void serve_requests();
  void reset_machine();
  void retry_space();
  void shut_down();
  /// Runs `look` while no vCPU is inside the guest.
  void while_parked(const std::function<void()>& look);
  /// Tells the monitor's clients. Under the machine lock.
  void tell_shutdown();

  class Exits;
  class LockedExits;

  HostClock clock_;
  HostedPc pc_;
  std::optional<Kvm> kvm_;
  std::unique_ptr<Vm> vm_;
  std::vector<std::unique_ptr<Vcpu>> vcpus_;
  std::unique_ptr<Exits> exits_;
  std::unique_ptr<LockedExits> locked_exits_;
  UniqueFd signals_;

  bool reset_asked_ = false;
  std::optional<Outcome> outcome_;
  bool paused_for_space_ = false;
  bool paused_ = false;  // by the monitor
  bool quit_by_monitor_ = false;
  bool ended_by_reset_ = false;            // on.reboot is "exit"
  std::optional<Nanoseconds> grace_ends_;  // host time; set by SIGTERM or SIGINT

  std::mutex park_lock_;
  std::condition_variable park_changed_;
  std::atomic<bool> park_asked_ = false;
  std::atomic<bool> quitting_ = false;
  unsigned parked_ = 0;
  std::vector<std::thread> threads_;
  std::vector<std::atomic<int>> thread_ids_;  // each set by its thread
  std::unique_ptr<qmp::Server> monitor_;
  std::unique_ptr<MetricsServer> metrics_;  // if the description asks for it
  std::unique_ptr<KeyFeeder> keys_;
  std::optional<Registration> registration_;  // if it has a monitor to talk to
};

}  // namespace whistler

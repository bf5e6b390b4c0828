#include "vmm/machine.hpp"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <ctime>

#include "base/bytes.hpp"
#include "base/log.hpp"
#include "vmm/dry_build.hpp"
#include "vmm/monitor/events.hpp"

namespace whistler {
namespace {

constexpr Nanoseconds kGraceTime = 30 * kNanosecondsPerSecond;
constexpr Nanoseconds kSpaceRetry = kNanosecondsPerSecond;

Nanoseconds host_now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kNanosecondsPerSecond + now.tv_nsec;
}

std::uint64_t load_little(std::span<const std::uint8_t> data) {
  std::uint64_t value = 0;
  std::memcpy(&value, data.data(), std::min<std::size_t>(data.size(), sizeof value));
  return swap_to<std::endian::little>(value);
}

void store_little(std::span<std::uint8_t> data, std::uint64_t value) {
  value = swap_to<std::endian::little>(value);
  std::memcpy(data.data(), &value, std::min<std::size_t>(data.size(), sizeof value));
}

}  // namespace

/// Accesses that left the guest, onto the buses. Under the machine lock.
class Machine::Exits final : public ExitHandler {
 public:
  Exits(Bus& ports, Bus& memory) : ports_(ports), memory_(memory) {}

  void port_read(std::uint16_t port, unsigned width, std::span<std::uint8_t> data) override {
    ports_.read_many(port, width, data);
  }
  void port_write(std::uint16_t port, unsigned width, std::span<const std::uint8_t> data) override {
    ports_.write_many(port, width, data);
  }
  void memory_read(std::uint64_t address, std::span<std::uint8_t> data) override {
    store_little(data, memory_.read(address, static_cast<unsigned>(data.size())));
  }
  void memory_write(std::uint64_t address, std::span<const std::uint8_t> data) override {
    memory_.write(address, static_cast<unsigned>(data.size()), load_little(data));
  }

 private:
  Bus& ports_;
  Bus& memory_;
};

/// The same for a vCPU thread: takes the lock, and first delivers writes that were queued before this access.
class Machine::LockedExits final : public ExitHandler {
 public:
  explicit LockedExits(Machine& machine) : machine_(machine) {}

  void port_read(std::uint16_t port, unsigned width, std::span<std::uint8_t> data) override {
    const auto lock = enter();
    machine_.exits_->port_read(port, width, data);
  }
  void port_write(std::uint16_t port, unsigned width, std::span<const std::uint8_t> data) override {
    const auto lock = enter();
    machine_.exits_->port_write(port, width, data);
  }
  void memory_read(std::uint64_t address, std::span<std::uint8_t> data) override {
    const auto lock = enter();
    machine_.exits_->memory_read(address, data);
  }
  void memory_write(std::uint64_t address, std::span<const std::uint8_t> data) override {
    const auto lock = enter();
    machine_.exits_->memory_write(address, data);
  }

 private:
  [[nodiscard]] std::unique_lock<std::mutex> enter() {
    std::unique_lock lock(machine_.pc_.lock());
    machine_.vcpus_[0]->drain_coalesced(*machine_.exits_);
    return lock;
  }
  Machine& machine_;
};

Machine::Machine(Description description)
    : pc_(std::move(description), clock_, clock_,
          {.reset = [this] { ask_reset(); },
           .power_off = [this] { finish({kExitPoweredOff, "the guest powered off"}); },
           .exit =
               [this](int status) {
                 finish({status & 0xFF,
                         fmt::format("the guest left by the exit port with status {}", status & 0xFF), true});
               },
           .disk_full = [this](const Error& error) { pause_for_space(error); }}) {}

std::expected<std::unique_ptr<Machine>, Outcome> Machine::create(Description description,
                                                                 const std::vector<qmp::Address>& monitors) {
  std::unique_ptr<Machine> machine(new Machine(std::move(description)));
  // KVM takes tens of milliseconds to make a VM; meanwhile this thread opens the disks.
  Result<void> kvm;
  std::thread kvm_thread([&] { kvm = machine->create_kvm(); });
  auto opened = machine->pc_.open();
  kvm_thread.join();
  if (!opened) {
    return std::unexpected(Outcome{kExitUsage, opened.error().message});
  }
  if (!kvm) {
    // What is wrong with the description goes first, also where it shows only when the machine is plugged
    // together.
    const auto wanted = machine->pc_.description();
    machine.reset();
    if (auto possible = dry_build(wanted); !possible) {
      return std::unexpected(Outcome{kExitUsage, possible.error().message});
    }
    return std::unexpected(Outcome{kExitHost, kvm.error().message});
  }
  HostedPc& pc = machine->pc_;
  std::unique_lock lock(pc.lock());
  const CpuSide cpus{
      .gsis = machine->vm_.get(),
      .slots = machine->vm_.get(),
      .deliver_queued_writes = [m = machine.get()] { m->vcpus_[0]->drain_coalesced(*m->exits_); },
      .kernel_interrupt_controllers = true};
  if (auto built = pc.build(cpus); !built) {
    return std::unexpected(Outcome{kExitUsage, built.error().message});
  }
  machine->exits_ = std::make_unique<Exits>(pc.ports(), pc.memory_bus());
  machine->locked_exits_ = std::make_unique<LockedExits>(*machine);
  auto entry = pc.load_kernel();
  if (!entry) {
    return std::unexpected(Outcome{kExitUsage, entry.error().message});
  }
  if (*entry) {
    if (auto entered = machine->vcpus_[0]->enter_protected(**entry); !entered) {
      return std::unexpected(Outcome{kExitHost, entered.error().message});
    }
  }
  lock.unlock();
  if (auto started = pc.start(); !started) {
    return std::unexpected(Outcome{kExitUsage, started.error().message});
  }
  lock.lock();
  machine->monitor_ = std::make_unique<qmp::Server>(pc.loop());
  auto addresses = monitors;
  if (const auto& socket = pc.description().monitor_socket; !socket.empty()) {
    addresses.push_back({.path = socket, .listen = true});
  }
  machine->keys_ = std::make_unique<KeyFeeder>(
      pc.timers(), pc.board().input(),
      KeyFeeder::Guest{
          .ready = [&pc] { return pc.board().keyboard_ready(); },
          .bios_buffer = [&pc] { return bios_key_buffer(pc.board().memory()); },
          .all_read =
              [m = machine.get()](std::uint64_t id) { m->monitor_->event("X_KEYS_TYPED", {{"id", id}}); }});
  qmp::watch_machine(*machine);
  for (const auto& address : addresses) {
    if (auto listening = machine->monitor_->open(address); !listening) {
      return std::unexpected(Outcome{kExitUsage, listening.error().within("monitor").message});
    }
  }
  if (const auto& socket = pc.description().metrics_socket; !socket.empty()) {
    machine->metrics_ = std::make_unique<MetricsServer>(pc.loop());
    if (auto listening = machine->metrics_->open(socket); !listening) {
      return std::unexpected(Outcome{kExitUsage, listening.error().within("metrics.socket").message});
    }
  }
  machine->write_down();
  return machine;
}

Result<void> Machine::create_kvm() {
  auto kvm = Kvm::open();
  if (!kvm) {
    return std::unexpected(kvm.error());
  }
  kvm_.emplace(std::move(*kvm));
  auto vm = Vm::create(*kvm_);
  if (!vm) {
    return std::unexpected(vm.error());
  }
  vm_ = std::move(*vm);
  auto cpuid = kvm_->supported_cpuid();
  if (!cpuid) {
    return std::unexpected(cpuid.error());
  }
  const auto& description = pc_.description();
  if (auto applied = apply_cpu_features(*cpuid, description.cpu.features); !applied) {
    return std::unexpected(applied.error().within(description.source.string()));
  }
  const auto bits = physical_address_bits(*cpuid);
  if (description.memory > kMostLowRam && bits < 64 &&
      description.memory - kMostLowRam > (std::uint64_t{1} << bits) - kHighRamBase) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("{}: memory: {} bytes reach beyond the {}-bit addresses of this host's processor",
                            description.source.string(), description.memory, bits));
  }
  for (unsigned i = 0; i < description.cpu.cores; ++i) {
    auto vcpu = Vcpu::create(*kvm_, *vm_, i, cpuid_for(*cpuid, i, description.cpu.cores));
    if (!vcpu) {
      return std::unexpected(vcpu.error());
    }
    vcpus_.push_back(std::move(*vcpu));
  }
  vm_->coalesce_memory(BoardPc::kVgaWindow, BoardPc::kVgaWindowLength);
  vm_->coalesce_port(BoardPc::kRtcIndexPort, 1);
  return {};
}

Machine::~Machine() {
  registration_.reset();
  pc_.stop_vnc();
  {
    const std::scoped_lock lock(pc_.lock());
    keys_.reset();
    monitor_.reset();
    metrics_.reset();
  }
  quitting_ = true;
  unpark_all();
  for (unsigned i = 0; i < threads_.size(); ++i) {
    vcpus_[i]->kick(threads_[i].native_handle());
    threads_[i].join();
  }
}

Outcome Machine::run(unsigned timeout, bool paused) {
  const Nanoseconds time_limit = timeout == 0 ? 0 : host_now() + timeout * kNanosecondsPerSecond;
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGTERM);
  sigaddset(&mask, SIGINT);
  signals_ = UniqueFd(::signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
  install_kick_signal();
  {
    std::scoped_lock lock(pc_.lock());
    pc_.loop().watch(signals_.get(), EPOLLIN, [this](std::uint32_t) { on_signal(); });
    pc_.loop().watch(pc_.ring().fd(), EPOLLIN, [this](std::uint32_t) { pc_.ring().run_once(false); });
    paused_ = paused;
    park_asked_ = paused;
    if (!paused) {
      clock_.start();
    }
    threads_.reserve(vcpus_.size());
    thread_ids_ = std::vector<std::atomic<int>>(vcpus_.size());
    for (unsigned i = 0; i < vcpus_.size(); ++i) {
      threads_.emplace_back([this, i] { vcpu_main(i); });
    }
  }
  while (true) {
    pc_.loop().run_once(patience(time_limit));
    serve_requests();
    std::scoped_lock lock(pc_.lock());
    if (time_limit != 0 && host_now() >= time_limit) {
      finish({kExitTimeout, fmt::format("time limit of {} s reached", timeout)});
    }
    if (grace_ends_ && host_now() >= *grace_ends_) {
      finish({kExitSignalled + SIGTERM, "stopped: the guest did not power off in time"});
    }
    if (outcome_) {
      break;
    }
  }
  shut_down();
  return *outcome_;
}

Nanoseconds Machine::patience(Nanoseconds time_limit) {
  std::scoped_lock lock(pc_.lock());
  if (reset_asked_ || outcome_) {
    return 0;
  }
  Nanoseconds until = -1;
  const auto at_most = [&](Nanoseconds moment) {
    const auto left = std::max<Nanoseconds>(0, moment - host_now());
    until = until < 0 ? left : std::min(until, left);
  };
  if (time_limit != 0) {
    at_most(time_limit);
  }
  if (grace_ends_) {
    at_most(*grace_ends_);
  }
  if (paused_for_space_) {
    at_most(host_now() + kSpaceRetry);
  }
  return until;
}

void Machine::serve_requests() {
  monitor_->serve(*this);
  if (metrics_) {
    metrics_->serve(*this);
  }
  bool reset = false;
  bool retry = false;
  {
    std::scoped_lock lock(pc_.lock());
    reset = std::exchange(reset_asked_, false) && !outcome_;
    retry = paused_for_space_ && !outcome_;
  }
  if (reset) {
    reset_machine();
  }
  if (retry) {
    retry_space();
  }
}

void Machine::reset_machine() {
  park_all();
  {
    std::scoped_lock lock(pc_.lock());
    vcpus_[0]->drain_coalesced(*exits_);
    pc_.drain();
    pc_.board().reset();
    monitor_->event("RESET", {{"guest", true}, {"reason", "guest-reset"}});
    vm_->reset_interrupt_controllers();
    for (auto& vcpu : vcpus_) {
      vcpu->reset();
    }
    const auto entry = pc_.load_kernel();
    const auto entered = !entry   ? Result<void>(std::unexpected(entry.error()))
                         : *entry ? vcpus_[0]->enter_protected(**entry)
                                  : Result<void>();
    if (!entered) {
      finish({kExitHost, entered.error().message});
    }
    if (outcome_ || paused_for_space_ || paused_) {
      return;
    }
  }
  unpark_all();
}

void Machine::retry_space() {
  park_all();
  {
    std::scoped_lock lock(pc_.lock());
    clock_.stop();
    pc_.space().retry();
    while (pc_.space().trying()) {
      pc_.ring().run_once(true);
    }
    if (!pc_.space().empty() || outcome_) {
      return;
    }
    paused_for_space_ = false;
    log(LogLevel::kError, "there is room again; the guest goes on");
    if (paused_) {
      return;
    }
    monitor_->event("RESUME");
    clock_.start();
  }
  unpark_all();
}

void Machine::shut_down() {
  park_all();
  pc_.stop_vnc();
  std::scoped_lock lock(pc_.lock());
  tell_shutdown();
  vcpus_[0]->drain_coalesced(*exits_);
  clock_.stop();
  pc_.space().give_up();
  pc_.drain();
  pc_.close_drives();
  pc_.flush_streams();
}

void Machine::tell_shutdown() {
  const int status = outcome_->status;
  const std::string_view reason = quit_by_monitor_              ? "host-qmp-quit"
                                  : outcome_->exit_port         ? "guest-shutdown"
                                  : status >= kExitSignalled    ? "host-signal"
                                  : status == kExitTimeout      ? "host-error"
                                  : status == kExitHost         ? "host-error"
                                  : status == kExitGuestCrashed ? "guest-panic"
                                  : ended_by_reset_             ? "guest-reset"
                                                                : "guest-shutdown";
  monitor_->event("SHUTDOWN", {{"guest", reason.starts_with("guest")}, {"reason", reason}});
  monitor_->flush();
}

// --- What the monitor asks for: the main thread, without the machine lock ---

RunState Machine::run_state() {
  const std::scoped_lock lock(pc_.lock());
  return paused_ ? RunState::kPaused : paused_for_space_ ? RunState::kIoError : RunState::kRunning;
}

void Machine::stop() {
  {
    const std::scoped_lock lock(pc_.lock());
    if (paused_ || outcome_) {
      return;
    }
    paused_ = true;
  }
  park_all();
  const std::scoped_lock lock(pc_.lock());
  clock_.stop();
  monitor_->event("STOP");
}

void Machine::cont() {
  {
    const std::scoped_lock lock(pc_.lock());
    if (!paused_ || outcome_) {
      return;
    }
    paused_ = false;
    monitor_->event("RESUME");
    if (paused_for_space_ || reset_asked_) {
      return;  // what waits for these lets the vCPUs go on
    }
    clock_.start();
  }
  unpark_all();
}

void Machine::reset() {
  const std::scoped_lock lock(pc_.lock());
  ask_reset();
}

void Machine::power_button() {
  const std::scoped_lock lock(pc_.lock());
  pc_.board().power().power_button();
  monitor_->event("POWERDOWN");
}

void Machine::quit() {
  const std::scoped_lock lock(pc_.lock());
  quit_by_monitor_ = !outcome_;
  finish({kExitPoweredOff, "ended by the monitor"});
}

// --- Requests, under the machine lock ---

void Machine::hold_vcpus() {
  park_asked_ = true;
  for (unsigned i = 0; i < threads_.size(); ++i) {
    vcpus_[i]->kick(threads_[i].native_handle());
  }
  pc_.loop().wake();
}

void Machine::ask_reset() {
  if (pc_.description().on.reboot == OnEvent::kExit) {
    ended_by_reset_ = !outcome_;
    finish({kExitPoweredOff, "the guest asked for a reset, and on.reboot is \"exit\""});
    return;
  }
  reset_asked_ = true;
  hold_vcpus();
}

void Machine::finish(Outcome outcome) {
  if (!outcome_) {
    outcome_ = std::move(outcome);
  }
  hold_vcpus();
}

void Machine::pause_for_space(const Error& error) {
  paused_for_space_ = true;
  if (!paused_) {
    monitor_->event("STOP");
  }
  log(LogLevel::kError, fmt::format("{}; the guest is paused and goes on when there is room", error.message));
  hold_vcpus();
}

void Machine::on_signal() {
  signalfd_siginfo info{};
  if (::read(signals_.get(), &info, sizeof info) != sizeof info) {
    return;
  }
  const int status = kExitSignalled + static_cast<int>(info.ssi_signo);
  if (grace_ends_) {
    finish({status, "stopped by a second signal"});
  } else if (paused_for_space_ || !pc_.board().power().acpi_enabled()) {
    finish({status, "stopped by a signal: nothing in the guest listens to the power button"});
  } else {
    pc_.board().power().power_button();
    monitor_->event("POWERDOWN");
    grace_ends_ = host_now() + kGraceTime;
  }
}

// --- vCPU threads ---

void Machine::vcpu_main(unsigned index) {
  thread_ids_[index] = ::gettid();
  Vcpu& vcpu = *vcpus_[index];
  while (!quitting_) {
    park_if_asked(index);
    if (quitting_) {
      return;
    }
    const VcpuEvent event = vcpu.run(*locked_exits_);
    if (event == VcpuEvent::kInterrupted && !park_asked_) {
      vcpu.clear_kick();  // a kick that comes after this is still seen: it sets park_asked_ first
    } else if (event != VcpuEvent::kAccess && event != VcpuEvent::kInterrupted) {
      handle_event(index, event);
    }
  }
}

void Machine::handle_event(unsigned index, VcpuEvent event) {
  std::scoped_lock lock(pc_.lock());
  if (event == VcpuEvent::kTripleFault && pc_.description().on.triple_fault == OnEvent::kReset) {
    ask_reset();
    return;
  }
  monitor_->event("GUEST_PANICKED", {{"action", "poweroff"}});
  const auto what = event == VcpuEvent::kHalted ? "halted outside KVM's interrupt controller"
                                                : vcpus_[index]->event_detail();
  finish({kExitGuestCrashed,
          fmt::format("the guest crashed: {}\n{}", what, vcpus_[index]->describe(pc_.memory()))});
}

void Machine::park_if_asked(unsigned index) {
  if (!park_asked_) {
    return;
  }
  std::unique_lock lock(park_lock_);
  // Again and again: whoever asks anew kicks without the lock, and clear_kick() may have undone just that.
  while (park_asked_ && !quitting_) {
    vcpus_[index]->complete_access();
    ++parked_;
    park_changed_.notify_all();
    park_changed_.wait(lock, [this] { return !park_asked_ || quitting_; });
    --parked_;
    vcpus_[index]->clear_kick();
  }
}

void Machine::park_all() {
  park_asked_ = true;
  for (unsigned i = 0; i < threads_.size(); ++i) {
    vcpus_[i]->kick(threads_[i].native_handle());
  }
  std::unique_lock lock(park_lock_);
  park_changed_.wait(lock, [this] { return parked_ == threads_.size(); });
}

void Machine::unpark_all() {
  std::unique_lock lock(park_lock_);
  park_asked_ = false;
  park_changed_.notify_all();
}

}  // namespace whistler

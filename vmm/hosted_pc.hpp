// A PC with everything it stands on but its CPUs: memory, disks, firmware, streams, board, VNC. KVM's vCPUs
// or a qtest client drive it.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/timer_queue.hpp"
#include "block/block_device.hpp"
#include "block/uring/ring.hpp"
#include "devices/vnc/vnc_server.hpp"
#include "vmm/address_space.hpp"
#include "vmm/block_jobs.hpp"
#include "vmm/block_nodes.hpp"
#include "vmm/board_pc.hpp"
#include "vmm/char_backends.hpp"
#include "vmm/config/description.hpp"
#include "vmm/drive.hpp"
#include "vmm/event_loop.hpp"
#include "vmm/guest_ram.hpp"
#include "vmm/host_clock.hpp"
#include "vmm/kvm/vcpu.hpp"
#include "vmm/pause_when_full.hpp"
#include "vmm/pending_work.hpp"

namespace whistler {

/// What a guest, or the host's disk, may ask of the machine. Called under the machine lock: note it, act
/// later.
struct PcRequests {
  std::function<void()> reset;
  std::function<void()> power_off;
  std::function<void(int status)> exit;
  std::function<void(const Error&)> disk_full;
};

/// What stands in for the CPUs' side of the board.
struct CpuSide {
  IrqSink* gsis = nullptr;
  SlotBackend* slots = nullptr;                         ///< null: the address space answers alone
  std::function<void()> deliver_queued_writes = [] {};  ///< before somebody looks at what they lead to
  bool kernel_interrupt_controllers = false;
};

/// What HostedPc::open() is for.
enum class OpenFor : std::uint8_t {
  kRunning,
  kChecking,  ///< images are opened read-only and unlocked, so that a running machine may be using them
};

class HostedPc {
 public:
  /// `clock` is guest time; `loop_clock` paces the loop's deadlines (the same object, or one that never
  /// starts).
  HostedPc(Description description, const Clock& clock, HostClock& loop_clock, PcRequests requests);
  ~HostedPc();
  HostedPc(const HostedPc&) = delete;
  HostedPc& operator=(const HostedPc&) = delete;

  /// Opens and checks what the description names and already exists: disks, firmware, kernel, password,
  /// memory; and whether the outputs it names can be created. Creates nothing. One-line errors, about the
  /// description.
  [[nodiscard]] Result<void> open(OpenFor purpose = OpenFor::kRunning);
  /// Builds the board. After open(). Creates nothing.
  [[nodiscard]] Result<void> build(const CpuSide& cpus);
  /// VNC accepts clients from here on, and serial lines, the debug console and their files and sockets exist:
  /// the last thing that can go wrong, so that a machine that does not start leaves nothing behind. After
  /// build(), without the machine lock.
  [[nodiscard]] Result<void> start();
  /// Whether VNC could start, without listening on its port. After build() for kChecking, without the machine
  /// lock.
  [[nodiscard]] Result<void> check_vnc();

  /// Puts the kernel of boot.kernel into memory; nothing if there is none. At start and after each reset.
  [[nodiscard]] Result<std::optional<ProtectedEntry>> load_kernel();

  /// Waits for all I/O of devices; what waits for room on the host's disk fails, and, once the machine
  /// ends, in the end what waits for a server. Under the lock.
  void drain();
  /// Gives up what clients wait for, and jobs, then flushes and closes the disks. Under the lock.
  void close_drives();
  void flush_streams();
  /// What VNC clients must know from now on. kNotFound without a server. The main thread.
  [[nodiscard]] Result<void> set_vnc_password(const std::string& password) {
    return vnc_ ? vnc_->set_password(password) : fail(ErrorCode::kNotFound, "no VNC server");
  }
  void stop_vnc() { vnc_.reset(); }
  /// Null without one. The main thread.
  [[nodiscard]] const VncServer* vnc() const { return vnc_.get(); }
  /// Those that are connected, as far as the main thread has heard. Under the lock.
  [[nodiscard]] const std::vector<VncEvent>& vnc_clients() const { return vnc_clients_; }
  /// `told` is called of VNC clients, on the main thread under the lock.
  void watch_vnc(std::function<void(const VncEvent&)> told) { vnc_told_ = std::move(told); }

  [[nodiscard]] const Description& description() const { return description_; }
  [[nodiscard]] std::mutex& lock() { return lock_; }
  [[nodiscard]] EventLoop& loop() { return *loop_; }
  [[nodiscard]] Ring& ring() { return *ring_; }
  [[nodiscard]] TimerQueue& timers() { return timers_; }
  [[nodiscard]] SpaceWaiters& space() { return space_; }
  [[nodiscard]] Bus& ports() { return ports_; }
  [[nodiscard]] Bus& memory_bus() { return memory_bus_; }
  [[nodiscard]] AddressSpace& memory() { return *memory_; }
  [[nodiscard]] BoardPc& board() { return *board_; }
  /// In the order of the description. Under the lock.
  [[nodiscard]] const std::vector<std::unique_ptr<Drive>>& drives() const { return drives_; }
  [[nodiscard]] BlockJobs& jobs() { return *jobs_; }
  [[nodiscard]] PendingWork& pending() { return *pending_; }
  [[nodiscard]] BlockNodes& nodes() { return nodes_; }
  /// The screen; null without a video card.
  [[nodiscard]] DisplaySource* display() { return display_.get(); }
  /// Lines for the person who starts it: where VNC listens, names of ptys.
  [[nodiscard]] const std::vector<std::string>& notices() const { return notices_; }
  /// Whether standard output carries the guest's bytes.
  [[nodiscard]] bool uses_stdout() const;

 private:
  [[nodiscard]] Result<void> open_drive(const DriveDescription& description);
  [[nodiscard]] Result<void> open_firmware();
  [[nodiscard]] Result<void> make_streams();
  [[nodiscard]] Result<void> check_outputs() const;
  [[nodiscard]] Result<void> open_streams();
  /// Lets go of servers that do not answer, unless it is `over` in time.
  [[nodiscard]] Task<void> hurry_servers(std::shared_ptr<Stop> over);
  [[nodiscard]] VncConfig vnc_config();
  void note_vnc(const VncEvent& event);
  [[nodiscard]] Result<std::unique_ptr<VncServer>> listen_vnc(const VncConfig& config);
  [[nodiscard]] std::int64_t rtc_start() const;

  Description description_;
  PcRequests requests_;
  OpenFor purpose_ = OpenFor::kRunning;
  std::mutex lock_;
  HostClock& loop_clock_;
  TimerQueue timers_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<Ring> ring_;
  SpaceWaiters space_;
  std::vector<std::unique_ptr<Drive>> drives_;
  BlockNodes nodes_;
  std::optional<BlockJobs> jobs_;
  std::optional<PendingWork> pending_;
  PiixIde::Drives ide_drives_;
  std::vector<std::uint8_t> kernel_, initrd_;
  std::string vnc_password_;
  Bus ports_{"I/O ports"};
  Bus memory_bus_{"memory"};
  std::optional<GuestRam> ram_;
  std::optional<HostMemory> bios_, vram_, vga_rom_;
  std::optional<AddressSpace> memory_;
  std::vector<std::unique_ptr<HostStream>> serial_;
  std::unique_ptr<HostStream> debug_console_;
  /// The streams by the key that describes them; no path for a stream without one.
  struct Output {
    std::string key, path;
    HostStream* stream;
    bool empties_file;
  };
  std::vector<Output> outputs_;
  std::unique_ptr<BoardPc> board_;
  std::unique_ptr<DisplaySource> display_;
  std::unique_ptr<VncServer> vnc_;
  std::function<void(const VncEvent&)> vnc_told_;
  std::vector<VncEvent> vnc_clients_;  // the last step of each
  std::vector<std::string> notices_;
};

}  // namespace whistler

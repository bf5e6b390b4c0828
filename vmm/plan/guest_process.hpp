// A machine under test: a `whistler run` in a folder of its own, with all its lines in hand.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "vmm/plan/child_process.hpp"
#include "vmm/plan/plan.hpp"
#include "vmm/plan/qmp_client.hpp"

namespace whistler::plan {

/// Seconds of the host's clock, which never goes back.
[[nodiscard]] double now();

/// An overlay that takes the guest's writes to one disk.
struct Overlay {
  std::string drive;  ///< its id, or "drive N"
  std::string path;
};

/// It is killed when this is destroyed. One thread; the host's files and sockets are below `folder`, which
/// exists and is removed by its owner.
class GuestProcess {
 public:
  /// Makes the overlays and starts the machine; nothing of the guest runs before resume(). `base`: the folder
  /// of a machine that has ended, on whose disks this one goes on; empty: on the plan's, with those made of
  /// folders in `folder`.
  [[nodiscard]] static Result<std::unique_ptr<GuestProcess>> start(const Plan& plan, std::string folder,
                                                                   const std::string& base = {});
  ~GuestProcess();
  GuestProcess(const GuestProcess&) = delete;
  GuestProcess& operator=(const GuestProcess&) = delete;

  /// Takes and gives what the machine's lines have; waits for that at most `seconds`.
  void pump(double seconds);

  /// Whether the monitor is connected and the machine waits for resume().
  [[nodiscard]] bool connected() const { return qmp_.has_value(); }
  /// Whether resume() has been done, and the monitor answers.
  [[nodiscard]] bool running() const { return running_ && qmp_open_; }
  /// Lets the guest begin, with its serial line connected: nothing it says is lost.
  [[nodiscard]] Result<void> resume(double limit);

  /// The status of `whistler run` once it has ended and all it said is here.
  [[nodiscard]] std::optional<int> status() const { return status_; }
  [[nodiscard]] int signal() const { return child_ ? child_->signal() : 0; }
  void kill();

  /// Everything the guest has said so far.
  [[nodiscard]] const std::string& serial() const { return serial_; }
  [[nodiscard]] const std::string& debug() const { return debug_; }
  /// True once it has said more than is kept: it runs wild.
  [[nodiscard]] bool floods() const;
  /// What `whistler run` itself has printed.
  [[nodiscard]] std::string log() const;

  /// Sends to the serial line, as fast as the guest takes it.
  void send_serial(std::string_view text) { serial_output_ += text; }
  [[nodiscard]] bool serial_sent() const { return serial_output_.empty(); }

  /// Asks the monitor. kBusy if it does not answer within `limit` seconds, kCancelled if the machine ends
  /// first, kInvalid with its words if it refuses.
  [[nodiscard]] Result<nlohmann::json> ask(std::string_view command,
                                           nlohmann::json arguments = nlohmann::json::object(),
                                           double limit = kAnswerLimit);
  [[nodiscard]] std::optional<QmpEvent> take_event();

  [[nodiscard]] const std::string& folder() const { return folder_; }
  [[nodiscard]] const std::vector<Overlay>& overlays() const { return overlays_; }

  static constexpr double kAnswerLimit = 60;

 private:
  explicit GuestProcess(std::string folder) : folder_(std::move(folder)) {}
  [[nodiscard]] Result<void> prepare(const Plan& plan, const std::string& base);
  [[nodiscard]] Result<void> make_overlays(nlohmann::json& machine, const std::string& base);
  void take_connection();
  void serve_serial();
  void read_debug();

  std::string folder_;
  std::vector<Overlay> overlays_;
  std::optional<ChildProcess> child_;
  std::optional<int> status_;
  UniqueFd listener_;
  std::optional<QmpClient> qmp_;
  bool qmp_open_ = false;
  bool running_ = false;
  UniqueFd serial_fd_;
  UniqueFd debug_fd_;
  std::string serial_, serial_output_, debug_;
};

}  // namespace whistler::plan

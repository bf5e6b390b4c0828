// Faults by rule: QEMU's blkdebug. A rule becomes active when the layer above announces its event, and then
// makes requests fail.
//
// Where a rule names no event, or "none", it is active from the start. A rule may depend on a state, which
// other rules ("set-state") change.
#pragma once

#include <coroutine>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "base/async.hpp"
#include "block/faulty.hpp"
#include "block/node_options.hpp"

namespace whistler {

struct InjectRule {
  DebugEvent event = DebugEvent::kNone;
  int state = 0;  ///< 0: any
  int errnum = 5;
  std::int64_t sector = -1;  ///< -1: any
  bool once = false;
  bool immediately = false;
  std::optional<std::string> request = {};  ///< "read", "write", ...; nothing: all but block status
};

struct StateRule {
  DebugEvent event = DebugEvent::kNone;
  int state = 0;  ///< 0: any
  int new_state = 0;
};

struct BlkdebugRules {
  std::vector<InjectRule> inject;
  std::vector<StateRule> states;
  std::uint32_t alignment = 1;  ///< bytes; a power of two: writes go down in blocks of this
  std::uint64_t zero_unit = 0;  ///< opt-write-zero: less than such a piece is zeroed by writing; 0: any
};

/// The rules of a config file's text: "[inject-error]" and "[set-state]" sections of `key = "value"` lines.
[[nodiscard]] Result<void> parse_blkdebug_config(const std::string& text, BlkdebugRules& rules);
/// The rules among a node's options.
[[nodiscard]] Result<void> parse_blkdebug_options(const Options& options, BlkdebugRules& rules);

class BlkdebugDevice final : public BlockDevice {
 public:
  BlkdebugDevice(std::unique_ptr<BlockDevice> below, BlkdebugRules rules);

  void debug_event(DebugEvent event) override;
  [[nodiscard]] std::uint64_t size() const override { return faulty_.size(); }
  [[nodiscard]] bool read_only() const override { return faulty_.read_only(); }
  [[nodiscard]] std::string name() const override { return faulty_.name(); }
  [[nodiscard]] std::uint32_t request_alignment() const override { return faulty_.request_alignment(); }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override;
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags = {}) override;
  /// Asks for no fault, and flushes nothing, where nothing was changed since the last flush.
  [[nodiscard]] Task<Result<void>> flush() override;
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags = {}) override;
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t offset, std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t bytes) override;
  [[nodiscard]] Task<Result<void>> close() override { return faulty_.close(); }

  /// The first read or write that comes after `event` waits until resume(tag). kNotFound: no such event.
  [[nodiscard]] Result<void> add_breakpoint(std::string_view event, std::string tag);
  /// Forgets the breakpoint, and lets go on what waits by it. kNotFound: neither was there.
  [[nodiscard]] Result<void> remove_breakpoint(const std::string& tag);
  [[nodiscard]] Result<void> resume(const std::string& tag);
  [[nodiscard]] bool is_suspended(const std::string& tag) const;

 private:
  struct Breakpoint {
    DebugEvent event;
    std::string tag;
  };
  struct Suspended {
    std::string tag;
    std::coroutine_handle<> request;
  };
  /// Suspends the request that awaits it.
  struct Pause;

  /// Blocks that a write works on, for as long as this exists.
  class Claim;
  /// Waits until no other claim stands in the way. Requests that wait claim nothing yet, so that one that is
  /// held at a breakpoint holds up none but those that touch its own blocks.
  [[nodiscard]] Task<void> take(Claim& claim);
  /// Waits by what breakpoints' events have come.
  [[nodiscard]] Task<void> pause();
  [[nodiscard]] Task<void> pass(DebugEvent event);
  [[nodiscard]] Fault decide(std::string_view request, std::uint64_t offset, std::uint64_t bytes);

  BlkdebugRules rules_;
  std::vector<InjectRule> active_;
  int state_ = 1;
  std::vector<Breakpoint> breakpoints_;
  std::vector<std::string> hit_;  ///< tags whose event has come, and which wait for its request
  std::vector<Suspended> suspended_;
  std::uint64_t changes_ = 0;  ///< that have ended, well or not
  std::uint64_t flushed_ = 0;  ///< of them
  std::list<const Claim*> claims_;
  WaitQueue claims_end_;
  FaultyDevice faulty_;
};

}  // namespace whistler

#include "block/blkdebug.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <sstream>

#include "base/bytes.hpp"
#include "block/aligned_buffer.hpp"
#include "block/iovec.hpp"
#include "block/plain_zeroes.hpp"

namespace whistler {

namespace {

constexpr std::uint64_t kSector = 512;

std::unexpected<Error> bad_value(const std::string& value) {
  return fail(ErrorCode::kInvalid, fmt::format("invalid parameter value: {}", value));
}

Result<DebugEvent> parse_event(const std::string& name) {
  const auto* const found = std::find(kDebugEventNames.begin(), kDebugEventNames.end(), name);
  if (found == kDebugEventNames.end()) {
    return bad_value(name);
  }
  return static_cast<DebugEvent>(found - kDebugEventNames.begin());
}

template <typename Number>
Result<void> read_number(const Options& options, std::string_view key, Number& to) {
  const auto text = option_text(options, key);
  if (!text) {
    return {};
  }
  const auto* const end = text->data() + text->size();
  const auto [after, bad] = std::from_chars(text->data(), end, to);
  if (bad != std::errc{} || after != end) {
    return fail(ErrorCode::kInvalid, fmt::format("Parameter '{}' expects a number", key));
  }
  return {};
}

Result<DebugEvent> read_event(const Options& options) {
  const auto name = option_text(options, "event");
  if (!name) {
    return fail(ErrorCode::kInvalid, "Missing event name for rule");
  }
  return parse_event(*name);
}

Result<void> add_inject(const Options& options, BlkdebugRules& rules) {
  InjectRule rule;
  const auto event = read_event(options);
  if (!event) {
    return std::unexpected(event.error());
  }
  rule.event = *event;
  for (auto done : {read_number(options, "state", rule.state), read_number(options, "errno", rule.errnum),
                    read_number(options, "sector", rule.sector)}) {
    if (!done) {
      return done;
    }
  }
  const auto once = option_flag(options, "once", false);
  const auto immediately = option_flag(options, "immediately", false);
  if (!once || !immediately) {
    return std::unexpected((once ? immediately : once).error());
  }
  rule.once = *once;
  rule.immediately = *immediately;
  rule.request = option_text(options, "iotype");
  rules.inject.push_back(std::move(rule));
  return {};
}

Result<void> add_state(const Options& options, BlkdebugRules& rules) {
  StateRule rule;
  const auto event = read_event(options);
  if (!event) {
    return std::unexpected(event.error());
  }
  rule.event = *event;
  for (auto done :
       {read_number(options, "state", rule.state), read_number(options, "new_state", rule.new_state)}) {
    if (!done) {
      return done;
    }
  }
  rules.states.push_back(rule);
  return {};
}

Result<void> add_section(const std::string& section, const Options& options, BlkdebugRules& rules) {
  if (section == "inject-error") {
    return add_inject(options, rules);
  }
  return section == "set-state" ? add_state(options, rules) : Result<void>{};
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const auto first = text.find_first_not_of(kSpace);
  return first == std::string_view::npos ? std::string_view{}
                                         : text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::string_view request_name(FaultOperation operation) {
  switch (operation) {
    case FaultOperation::kRead: return "read";
    case FaultOperation::kWrite: return "write";
    case FaultOperation::kFlush: return "flush";
    case FaultOperation::kDiscard: return "discard";
    case FaultOperation::kWriteZeroes: return "write-zeroes";
    default: return "";
  }
}

}  // namespace

Result<void> parse_blkdebug_config(const std::string& text, BlkdebugRules& rules) {
  std::istringstream lines(text);
  std::string section;
  Options options = Options::object();
  unsigned number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    const auto content = trimmed(line);
    if (content.empty() || content.front() == '#') {
      continue;
    }
    if (content.front() == '[' && content.back() == ']') {
      if (auto added = add_section(section, options, rules); !added) {
        return added;
      }
      section = content.substr(1, content.size() - 2);
      section = section.substr(0, section.find(' '));
      if (section != "inject-error" && section != "set-state") {
        return fail(ErrorCode::kInvalid, fmt::format("There is no option group '{}'", section));
      }
      options = Options::object();
      continue;
    }
    const auto equals = content.find('=');
    if (equals == std::string_view::npos || section.empty()) {
      return fail(ErrorCode::kInvalid, fmt::format("Could not parse blkdebug config file: line {}", number));
    }
    auto value = trimmed(content.substr(equals + 1));
    if (value.size() >= 2 && value.front() == '"' && value.back() == '"') {
      value = value.substr(1, value.size() - 2);
    }
    options[std::string(trimmed(content.substr(0, equals)))] = std::string(value);
  }
  return add_section(section, options, rules);
}

Result<void> parse_blkdebug_options(const Options& options, BlkdebugRules& rules) {
  for (const std::string section : {"inject-error", "set-state"}) {
    const auto found = options.find(section);
    if (found == options.end()) {
      continue;
    }
    for (const auto& rule : *found) {  // an array, or an object with the keys "0", "1", ...
      if (!rule.is_object()) {
        return fail(ErrorCode::kInvalid, fmt::format("Parameter '{}' expects rules", section));
      }
      if (auto added = add_section(section, rule, rules); !added) {
        return added;
      }
    }
  }
  const auto alignment = option_size(options, "align");
  if (!alignment) {
    return std::unexpected(alignment.error());
  }
  const auto zero_unit = option_size(options, "opt-write-zero");
  if (!zero_unit) {
    return std::unexpected(zero_unit.error());
  }
  if (const auto asked = alignment->value_or(0); asked >= INT32_MAX || (asked & (asked - 1)) != 0) {
    return fail(ErrorCode::kInvalid, fmt::format("Cannot meet constraints with align {}", asked));
  }
  rules.alignment = static_cast<std::uint32_t>(std::max<std::uint64_t>(alignment->value_or(1), 1));
  rules.zero_unit = zero_unit->value_or(0);
  if (rules.zero_unit >= INT32_MAX || rules.zero_unit % rules.alignment != 0) {
    return fail(ErrorCode::kInvalid,
                fmt::format("Cannot meet constraints with opt-write-zero {}", rules.zero_unit));
  }
  return {};
}

BlkdebugDevice::BlkdebugDevice(std::unique_ptr<BlockDevice> below, BlkdebugRules rules)
    : rules_(std::move(rules)),
      faulty_(std::move(below), [this](FaultOperation operation, std::uint64_t offset, std::uint64_t bytes) {
        return decide(request_name(operation), offset, bytes);
      }) {
  for (const auto& rule : rules_.inject) {
    if (rule.event == DebugEvent::kNone) {
      active_.push_back(rule);
    }
  }
}

void BlkdebugDevice::debug_event(DebugEvent event) {
  int new_state = state_;
  bool injected = false;
  for (const auto& rule : rules_.inject) {
    if (rule.event == event && (rule.state == 0 || rule.state == state_)) {
      if (!injected) {
        active_.clear();
        injected = true;
      }
      active_.insert(active_.begin(), rule);
    }
  }
  for (const auto& rule : rules_.states) {
    if (rule.event == event && (rule.state == 0 || rule.state == state_)) {
      new_state = rule.new_state;
    }
  }
  state_ = new_state;
  for (auto at = breakpoints_.begin(); at != breakpoints_.end();) {
    if (at->event == event) {
      hit_.push_back(std::move(at->tag));
      at = breakpoints_.erase(at);
    } else {
      ++at;
    }
  }
}

struct BlkdebugDevice::Pause {
  BlkdebugDevice& device;
  std::string tag;
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> request) {
    fmt::print("blkdebug: Suspended request '{}'\n", tag);
    device.suspended_.push_back({tag, request});
  }
  void await_resume() const { fmt::print("blkdebug: Resuming request '{}'\n", tag); }
};

class BlkdebugDevice::Claim {
 public:
  /// Bytes; whole blocks. `alone`: with no other claim that touches them.
  Claim(BlkdebugDevice& device, std::uint64_t begin, std::uint64_t end, bool alone)
      : device_(device), begin_(begin), end_(end), alone_(alone) {}
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;
  ~Claim() {
    device_.claims_.remove(this);
    device_.claims_end_.wake_all();
  }

  [[nodiscard]] bool conflicts_with(const Claim& other) const {
    return begin_ < other.end_ && other.begin_ < end_ && (alone_ || other.alone_);
  }

 private:
  BlkdebugDevice& device_;
  std::uint64_t begin_;
  std::uint64_t end_;
  bool alone_;
};

Task<void> BlkdebugDevice::take(Claim& claim) {
  while (std::any_of(claims_.begin(), claims_.end(),
                     [&](const Claim* other) { return claim.conflicts_with(*other); })) {
    co_await claims_end_.wait();
  }
  claims_.push_back(&claim);
}

Task<void> BlkdebugDevice::pause() {
  while (!hit_.empty()) {
    Pause pause{*this, std::move(hit_.front())};
    hit_.erase(hit_.begin());
    co_await pause;
  }
}

Task<void> BlkdebugDevice::pass(DebugEvent event) {
  debug_event(event);
  co_await pause();
}

Task<Result<void>> BlkdebugDevice::readv(std::uint64_t offset, IoVec to) {
  co_await pause();
  auto done = co_await faulty_.readv(offset, to);
  co_return done;
}

/// A write in whole blocks of the alignment, whose ends are read before where the request leaves them open.
Task<Result<void>> BlkdebugDevice::writev(std::uint64_t offset, IoVec from, WriteFlags flags) {
  co_await pause();
  const std::uint64_t block = rules_.alignment;
  const auto end = offset + iovec_bytes(from);
  const auto begin = align_down(offset, block);
  const auto limit = std::min(align_up(end, block), std::max(end, faulty_.size()));
  const bool head = begin != offset;
  const bool tail = limit != end;
  Claim claim(*this, begin, align_up(end, block), head || tail);
  co_await take(claim);
  const auto tail_begin = align_down(end, block);
  const bool one_block = head && tail && tail_begin <= begin + block;  // or two, read at once
  AlignedBuffer first(static_cast<std::size_t>(!head ? 0 : one_block ? limit - begin : block));
  AlignedBuffer last(static_cast<std::size_t>(tail && !one_block ? limit - tail_begin : 0));
  Result<void> done;
  if (head) {
    co_await pass(DebugEvent::kPwritevRmwHead);
    if (one_block) {
      co_await pass(DebugEvent::kPwritevRmwTail);
    }
    const auto vec = first.vec();
    done = co_await faulty_.readv(begin, {&vec, 1});
    if (done) {
      co_await pass(DebugEvent::kPwritevRmwAfterHead);
    }
    if (done && one_block) {
      co_await pass(DebugEvent::kPwritevRmwAfterTail);
    }
  }
  if (done && tail && !one_block) {
    co_await pass(DebugEvent::kPwritevRmwTail);
    const auto vec = last.vec();
    done = co_await faulty_.readv(tail_begin, {&vec, 1});
    if (done) {
      co_await pass(DebugEvent::kPwritevRmwAfterTail);
    }
  }
  if (done) {
    co_await pass(DebugEvent::kPwritev);
    IoSlice whole;
    if (head) {
      whole.append(first.data(), static_cast<std::size_t>(offset - begin));
    }
    whole.append(from, 0, end - offset);
    if (tail) {
      auto* const behind = one_block ? first.data() + (end - begin) : last.data() + (end - tail_begin);
      whole.append(behind, static_cast<std::size_t>(limit - end));
    }
    done = co_await faulty_.writev(begin, whole, flags);
    ++changes_;
    co_await pass(DebugEvent::kPwritevDone);
  }
  co_return done;
}

Task<Result<void>> BlkdebugDevice::flush() {
  const auto changes = changes_;
  if (flushed_ == changes) {
    co_return Result<void>{};
  }
  auto done = co_await faulty_.flush();
  if (done) {
    flushed_ = std::max(flushed_, changes);
  }
  co_return done;
}

Task<Result<void>> BlkdebugDevice::discard(std::uint64_t offset, std::uint64_t bytes) {
  auto done = co_await faulty_.discard(offset, bytes);
  ++changes_;
  co_return done;
}

Task<Result<void>> BlkdebugDevice::resize(std::uint64_t bytes) {
  auto done = co_await faulty_.resize(bytes);
  ++changes_;
  co_return done;
}

Task<Result<void>> BlkdebugDevice::write_zeroes(std::uint64_t offset, std::uint64_t bytes, ZeroFlags flags) {
  const auto unit = std::max<std::uint64_t>(rules_.zero_unit, 1);
  const auto end = offset + bytes;
  const auto begin = std::min((offset + unit - 1) / unit * unit, end);  // it need not be a power of 2
  const auto limit = std::max(end / unit * unit, begin);
  Claim claim(*this, align_down(offset, rules_.alignment), align_up(end, rules_.alignment), true);
  co_await take(claim);
  co_await pass(DebugEvent::kPwritevZero);
  auto done = co_await write_plain_zeroes(faulty_, offset, begin - offset);
  if (done && begin < limit) {
    done = co_await faulty_.write_zeroes(begin, limit - begin, flags);
  }
  if (done) {
    done = co_await write_plain_zeroes(faulty_, limit, end - limit);
  }
  ++changes_;
  co_await pass(DebugEvent::kPwritevDone);
  co_return done;
}

namespace {

std::unexpected<Error> no_such(std::string_view what, std::string_view name) {
  return fail(ErrorCode::kNotFound, fmt::format("blkdebug: there is no {} '{}'", what, name));
}

}  // namespace

Result<void> BlkdebugDevice::add_breakpoint(std::string_view event, std::string tag) {
  const auto* const found = std::find(kDebugEventNames.begin(), kDebugEventNames.end(), event);
  if (found == kDebugEventNames.end()) {
    return no_such("event", event);
  }
  breakpoints_.push_back({static_cast<DebugEvent>(found - kDebugEventNames.begin()), std::move(tag)});
  return {};
}

Result<void> BlkdebugDevice::remove_breakpoint(const std::string& tag) {
  const auto forgotten =
      std::erase_if(breakpoints_, [&](const Breakpoint& each) { return each.tag == tag; }) +
      std::erase(hit_, tag);
  bool resumed = false;
  while (resume(tag)) {
    resumed = true;
  }
  return forgotten != 0 || resumed ? Result<void>() : no_such("breakpoint", tag);
}

Result<void> BlkdebugDevice::resume(const std::string& tag) {
  const auto found = std::find_if(suspended_.begin(), suspended_.end(),
                                  [&](const Suspended& each) { return each.tag == tag; });
  if (found == suspended_.end()) {
    return no_such("suspended request", tag);
  }
  const auto request = found->request;
  suspended_.erase(found);
  request.resume();
  return {};
}

bool BlkdebugDevice::is_suspended(const std::string& tag) const {
  return std::any_of(suspended_.begin(), suspended_.end(),
                     [&](const Suspended& each) { return each.tag == tag; });
}

Fault BlkdebugDevice::decide(std::string_view request, std::uint64_t offset, std::uint64_t bytes) {
  if (request.empty()) {
    return {};
  }
  const auto hit = std::find_if(active_.begin(), active_.end(), [&](const InjectRule& rule) {
    if (rule.request ? *rule.request != request : request == "block-status") {
      return false;
    }
    if (rule.sector < 0) {
      return true;
    }
    const auto at = static_cast<std::uint64_t>(rule.sector) * kSector;
    return bytes != 0 && at >= offset && at - offset < bytes;
  });
  if (hit == active_.end() || hit->errnum == 0) {
    return {};
  }
  const Fault fault{.errnum = hit->errnum};
  if (hit->once) {
    const auto used = *hit;
    active_.erase(hit);
    const auto same = [&](const InjectRule& rule) {
      return rule.event == used.event && rule.state == used.state && rule.errnum == used.errnum &&
             rule.sector == used.sector && rule.once && rule.request == used.request;
    };
    rules_.inject.erase(std::find_if(rules_.inject.begin(), rules_.inject.end(), same));
  }
  return fault;
}

Task<Result<BlockStatus>> BlkdebugDevice::block_status(std::uint64_t offset, std::uint64_t bytes) {
  if (const auto fault = decide("block-status", offset, bytes); fault.errnum != 0) {
    co_return fail_errno(fault.errnum, fmt::format("{}: injected fault", name()));
  }
  auto status = co_await faulty_.block_status(offset, bytes);
  co_return status;
}

}  // namespace whistler

// img compare: whether two images show the same disk.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "block/chain_status.hpp"
#include "block/iovec.hpp"
#include "tools/img/commands.hpp"
#include "tools/img/map_entry.hpp"
#include "tools/img/messages.hpp"
#include "tools/img/opening.hpp"
#include "tools/img/options.hpp"
#include "tools/img/progress.hpp"

namespace whistler::tools {

namespace {

constexpr std::uint64_t kChunk = 2 * 1024 * 1024;
constexpr std::size_t kSector = 512;
constexpr int kSame = 0;
constexpr int kDifferent = 1;
constexpr int kCannotOpen = 2;
constexpr int kCannotMap = 3;
constexpr int kCannotRead = 4;

constexpr option kOptions[] = {{"help", no_argument, nullptr, 'h'},
                               {"object", required_argument, nullptr, kObject},
                               {"image-opts", no_argument, nullptr, kImageOpts},
                               {"force-share", no_argument, nullptr, 'U'},
                               {nullptr, 0, nullptr, 0}};

struct Side {
  std::string name;
  BlockDevice* device = nullptr;
  const Node* node = nullptr;
  std::uint64_t size = 0;
  std::vector<std::uint8_t> buffer = std::vector<std::uint8_t>(kChunk);
};

class Comparison {
 public:
  Comparison(const Call& call, Ring& ring, Side left, Side right, bool strict, bool quiet, Progress& progress)
      : call_(call),
        ring_(ring),
        left_(std::move(left)),
        right_(std::move(right)),
        strict_(strict),
        quiet_(quiet),
        progress_(progress),
        whole_(std::max(left_.size, right_.size)) {}

  int run() {
    progress_.show(0);
    if (strict_ && left_.size != right_.size) {
      say("Strict mode: Image size mismatch!");
      return kDifferent;
    }
    const auto common = std::min(left_.size, right_.size);
    std::uint64_t offset = 0;
    while (offset < common) {
      std::uint64_t bytes = 0;
      if (const int status = compare_at(offset, bytes); status != kSame) {
        return status;
      }
      offset += bytes;
      show(offset);
    }
    if (left_.size != right_.size) {
      say("Warning: Image size mismatch!");
      auto& longer = left_.size > right_.size ? left_ : right_;
      while (offset < whole_) {
        std::uint64_t bytes = 0;
        if (const int status = check_tail(longer, offset, bytes); status != kSame) {
          return status;
        }
        offset += bytes;
        show(offset);
      }
    }
    say("Images are identical.");
    return kSame;
  }

 private:
  void say(const std::string& text) const {
    if (!quiet_) {
      fmt::print("{}\n", text);
    }
  }
  void show(std::uint64_t offset) {
    progress_.show(100.0 * static_cast<double>(offset) / static_cast<double>(whole_));
  }

  int map(Side& side, std::uint64_t offset, ChainStatus& status) {
    auto found = sync_wait(ring_, chain_status(*side.device, nullptr, offset, side.size - offset));
    if (!found) {
      complain(call_, fmt::format("Sector allocation test failed for {}", side.name));
      return kCannotMap;
    }
    status = *found;
    return kSame;
  }

  /// Compares what `map` tells of the two, which also knows whether the content lies in a file as it is.
  /// `bytes`: how far the answer holds.
  int compare_places(std::uint64_t offset, std::uint64_t& bytes) {
    const auto left = map_entry_at(ring_, *left_.node, offset, bytes);
    const auto right = map_entry_at(ring_, *right_.node, offset, bytes);
    if (!left || !right) {
      complain(call_, fmt::format("Sector allocation test failed for {}", left ? right_.name : left_.name));
      return kCannotMap;
    }
    bytes = std::min(left->length, right->length);
    if (left->present == right->present && left->zero == right->zero && left->data == right->data &&
        left->offset.has_value() == right->offset.has_value()) {
      return kSame;
    }
    say(fmt::format("Strict mode: Offset {} block status mismatch!", offset));
    return kDifferent;
  }

  int read(Side& side, std::uint64_t offset, std::uint64_t bytes) {
    const iovec vec{side.buffer.data(), static_cast<std::size_t>(bytes)};
    const auto done = sync_wait(ring_, side.device->readv(offset, {&vec, 1}));
    if (!done) {
      complain(call_, fmt::format("Error while reading offset {} of {}: {}", offset, side.name,
                                  reason_of(done.error())));
      return kCannotRead;
    }
    return kSame;
  }

  int differ_at(std::uint64_t offset) {
    say(fmt::format("Content mismatch at offset {}!", offset));
    return kDifferent;
  }

  int compare_at(std::uint64_t offset, std::uint64_t& bytes) {
    ChainStatus left;
    ChainStatus right;
    if (const int status = map(left_, offset, left); status != kSame) {
      return status;
    }
    if (const int status = map(right_, offset, right); status != kSame) {
      return status;
    }
    bytes = std::min(left.bytes, right.bytes);
    if (const int status = strict_ ? compare_places(offset, bytes) : kSame; status != kSame) {
      return status;
    }
    if (left.zero && right.zero) {
      return kSame;
    }
    if (left.allocated == right.allocated) {
      return left.allocated ? compare_content(offset, bytes) : kSame;
    }
    return check_empty(left.allocated ? left_ : right_, offset, bytes);
  }

  int compare_content(std::uint64_t offset, std::uint64_t& bytes) {
    bytes = std::min(bytes, kChunk);
    for (Side* side : {&left_, &right_}) {
      if (const int status = read(*side, offset, bytes); status != kSame) {
        return status;
      }
    }
    if (std::memcmp(left_.buffer.data(), right_.buffer.data(), static_cast<std::size_t>(bytes)) == 0) {
      return kSame;
    }
    std::size_t at = 0;
    while (std::memcmp(&left_.buffer[at], &right_.buffer[at],
                       std::min(kSector, static_cast<std::size_t>(bytes) - at)) == 0) {
      at += kSector;
    }
    return differ_at(offset + at);
  }

  /// One side has nothing there, so the other must be zeroes.
  int check_empty(Side& side, std::uint64_t offset, std::uint64_t& bytes) {
    bytes = std::min(bytes, kChunk);
    if (const int status = read(side, offset, bytes); status != kSame) {
      return status;
    }
    const auto content = std::span(side.buffer).first(static_cast<std::size_t>(bytes));
    if (is_zero(content)) {
      return kSame;
    }
    std::size_t at = 0;
    while (is_zero(content.subspan(at, std::min(kSector, content.size() - at)))) {
      at += kSector;
    }
    return differ_at(offset + at);
  }

  int check_tail(Side& side, std::uint64_t offset, std::uint64_t& bytes) {
    ChainStatus status;
    if (const int result = map(side, offset, status); result != kSame) {
      return result;
    }
    bytes = status.bytes;
    return status.allocated && !status.zero ? check_empty(side, offset, bytes) : kSame;
  }

  const Call& call_;
  Ring& ring_;
  Side left_;
  Side right_;
  bool strict_;
  bool quiet_;
  Progress& progress_;
  std::uint64_t whole_;
};

}  // namespace

int img_compare(const Call& call) {
  ImageArgument first;
  ImageArgument second;
  NodeFlags flags;
  std::string cache = "writeback";
  bool progress_wanted = false;
  bool quiet = false;
  bool strict = false;
  OptionReader reader(call, "hf:F:T:pqsU", kOptions);
  for (int code = reader.next(); code != -1; code = reader.next()) {
    switch (code) {
      case 'h': return img_main({call.program, {"--help"}});
      case 'f': first.format = reader.argument(); break;
      case 'F': second.format = reader.argument(); break;
      case 'T': cache = reader.argument(); break;
      case 'p': progress_wanted = true; break;
      case 'q': quiet = true; break;
      case 's': strict = true; break;
      case 'U': flags.force_share = true; break;
      case kObject:
        if (!add_object(call, reader.argument(), flags)) {
          return kCannotOpen;
        }
        break;
      case kImageOpts: first.image_opts = second.image_opts = true; break;
      default: break;
    }
  }
  if (reader.failed()) {
    return 1;
  }
  const auto operands = reader.operands();
  if (operands.size() != 2) {
    return complain_with_help(call, "Expecting two image file names");
  }
  first.name = operands[0];
  second.name = operands[1];
  const auto mode = parse_cache(cache);
  if (!mode) {
    complain(call, fmt::format("Invalid source cache option: {}", cache));
    return kCannotOpen;
  }
  flags.cache = *mode;
  const auto ring = make_ring(call);
  if (!ring) {
    return kCannotOpen;
  }
  Progress progress(progress_wanted && !quiet);
  auto left = open_argument(call, *ring, first, flags);
  if (!left) {
    return kCannotOpen;
  }
  auto right = open_argument(call, *ring, second, flags);
  if (!right) {
    return kCannotOpen;
  }
  Comparison comparison(call, *ring, {first.name, left->device.get(), left->node.get(), left->device->size()},
                        {second.name, right->device.get(), right->node.get(), right->device->size()}, strict,
                        quiet, progress);
  return comparison.run();
}

}  // namespace whistler::tools

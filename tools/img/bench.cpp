// img bench: how many requests a second an image takes.
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "base/bytes.hpp"
#include "tools/img/commands.hpp"
#include "tools/img/messages.hpp"
#include "tools/img/opening.hpp"
#include "tools/img/options.hpp"

namespace whistler::tools {

namespace {

constexpr option kOptions[] = {{"help", no_argument, nullptr, 'h'},
                               {"flush-interval", required_argument, nullptr, kFlushInterval},
                               {"pattern", required_argument, nullptr, kPattern},
                               {"no-drain", no_argument, nullptr, kNoDrain},
                               {"image-opts", no_argument, nullptr, kImageOpts},
                               {"force-share", no_argument, nullptr, 'U'},
                               {nullptr, 0, nullptr, 0}};

struct Settings {
  ImageArgument image;
  NodeFlags flags;
  int count = 75000;
  int depth = 64;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 4096;
  std::uint64_t step = 0;
  int pattern = 0;
  int flush_interval = 0;
  bool write = false;
  bool drain = true;
  bool native = false;
};

struct FreeDeleter {
  void operator()(void* memory) const { std::free(memory); }
};

/// The requests of one run: as many at once as the depth allows, one starting from the end of another.
class Run {
 public:
  Run(BlockDevice& device, const Settings& settings, std::uint8_t* memory)
      : device_(device),
        settings_(settings),
        memory_(memory),
        size_(device.size()),
        left_(settings.count),
        offset_(settings.offset) {
    for (int i = 0; i < settings.depth; ++i) {
      buffers_.push_back({memory_ + static_cast<std::size_t>(i) * settings_.bytes, settings_.bytes});
    }
  }

  void start() {
    for (auto& buffer : buffers_) {
      next(buffer);
    }
  }
  [[nodiscard]] bool running() const { return in_flight_ != 0; }
  [[nodiscard]] const std::optional<Error>& error() const { return error_; }

 private:
  void next(iovec& buffer) {
    if (left_ == 0 || error_ || flushing_) {
      return;
    }
    const auto done = [this, &buffer](const Result<void>& result) {
      --in_flight_;
      if (!result && !error_) {
        error_ = result.error();
      }
      finished(buffer);
    };
    ++in_flight_;
    --left_;
    const auto at = offset_;
    offset_ += settings_.step;
    if (size_ != 0) {
      offset_ %= size_;
    }
    if (settings_.write) {
      spawn(device_.writev(at, {&buffer, 1}), done);
    } else {
      spawn(device_.readv(at, {&buffer, 1}), done);
    }
  }

  void finished(iovec& buffer) {
    const auto flush_now = settings_.flush_interval != 0 && left_ % settings_.flush_interval == 0;
    if (flush_now && left_ != flushed_at_ && !error_) {
      flushed_at_ = left_;
      if (settings_.drain) {
        flushing_ = true;
      } else {
        flush();
      }
    }
    if (flushing_) {
      if (in_flight_ == 0) {
        flush();
      }
      return;
    }
    next(buffer);
  }

  void flush() {
    ++in_flight_;
    spawn(device_.flush(), [this](const Result<void>& result) {
      --in_flight_;
      if (!result && !error_) {
        error_ = result.error();
      }
      if (flushing_) {
        flushing_ = false;
        start();
      }
    });
  }

  BlockDevice& device_;
  const Settings& settings_;
  std::uint8_t* memory_;
  std::uint64_t size_;
  std::vector<iovec> buffers_;
  int left_;
  std::uint64_t offset_;
  int in_flight_ = 0;
  int flushed_at_ = -1;
  bool flushing_ = false;
  std::optional<Error> error_;
};

/// Nothing after a complaint.
std::optional<Settings> read_settings(const Call& call) {
  Settings settings;
  OptionReader reader(call, "hc:d:f:ni:o:qs:S:t:wU", kOptions);
  const auto refuse = [&](const std::string& text) {
    complain(call, text);
    return std::nullopt;
  };
  for (int code = reader.next(); code != -1; code = reader.next()) {
    const auto argument = reader.argument();
    std::optional<std::uint64_t> number;
    std::optional<int> plain;
    switch (code) {
      case 'h': std::exit(img_main({call.program, {"--help"}}));
      case 'c':
        plain = parse_plain_number(argument, 0, INT32_MAX);
        if (!plain) {
          return refuse("Invalid request count specified");
        }
        settings.count = *plain;
        break;
      case 'd':
        plain = parse_plain_number(argument, 0, INT32_MAX);
        if (!plain) {
          return refuse("Invalid queue depth specified");
        }
        settings.depth = *plain;
        break;
      case 'f': settings.image.format = argument; break;
      case 'n': settings.native = true; break;
      case 'i':
        if (argument != "threads" && argument != "native" && argument != "io_uring") {
          return refuse(fmt::format("Invalid aio option: {}", argument));
        }
        settings.native = argument == "native";
        break;
      case 'o':
        number = parse_number(call, "offset", argument);
        if (!number) {
          return std::nullopt;
        }
        settings.offset = *number;
        break;
      case 'q': break;
      case 's':
        number = parse_number(call, "buffer size", argument, 0, INT32_MAX);
        if (!number) {
          return std::nullopt;
        }
        settings.bytes = *number;
        break;
      case 'S':
        number = parse_number(call, "step_size", argument, 0, INT32_MAX);
        if (!number) {
          return std::nullopt;
        }
        settings.step = *number;
        break;
      case 't': {
        const auto cache = parse_cache(argument);
        if (!cache) {
          return refuse("Invalid cache mode");
        }
        settings.flags.cache = *cache;
        break;
      }
      case 'w': settings.write = true; break;
      case 'U': settings.flags.force_share = true; break;
      case kPattern:
        plain = parse_plain_number(argument, 0, 0xff);
        if (!plain) {
          return refuse("Invalid pattern byte specified");
        }
        settings.pattern = *plain;
        break;
      case kFlushInterval:
        plain = parse_plain_number(argument, 0, INT32_MAX);
        if (!plain) {
          return refuse("Invalid flush interval specified");
        }
        settings.flush_interval = *plain;
        break;
      case kNoDrain: settings.drain = false; break;
      case kImageOpts: settings.image.image_opts = true; break;
      default: break;
    }
  }
  if (reader.failed()) {
    return std::nullopt;
  }
  const auto operands = reader.operands();
  if (operands.size() != 1) {
    complain_with_help(call, "Expecting one image file name");
    return std::nullopt;
  }
  settings.image.name = operands[0];
  if (!settings.write && settings.flush_interval != 0) {
    return refuse("--flush-interval is only available in write tests");
  }
  if (settings.flush_interval != 0 && settings.flush_interval < settings.depth) {
    return refuse("Flush interval can't be smaller than depth");
  }
  if (settings.native && !is_direct(settings.flags.cache)) {
    return refuse(
        fmt::format("Could not open '{}': aio=native was specified, but it requires "
                    "cache.direct=on, which was not specified.",
                    settings.image.name));
  }
  settings.flags.read_only = !settings.write;
  if (settings.step == 0) {
    settings.step = settings.bytes;
  }
  return settings;
}

}  // namespace

int img_bench(const Call& call) {
  const auto settings = read_settings(call);
  if (!settings) {
    return 1;
  }
  const auto ring = make_ring(call);
  if (!ring) {
    return 1;
  }
  auto image = open_argument(call, *ring, settings->image, settings->flags);
  if (!image) {
    return 1;
  }
  fmt::print("Sending {} {} requests, {} bytes each, {} in parallel (starting at offset {}, step size {})\n",
             settings->count, settings->write ? "write" : "read", settings->bytes, settings->depth,
             settings->offset, settings->step);
  if (settings->flush_interval != 0) {
    fmt::print("Sending flush every {} requests\n", settings->flush_interval);
  }
  const auto bytes = align_up(settings->bytes * static_cast<std::uint64_t>(settings->depth) + 1, 4096);
  const std::unique_ptr<std::uint8_t, FreeDeleter> memory(
      static_cast<std::uint8_t*>(std::aligned_alloc(4096, bytes)));
  if (!memory) {
    complain(call, fmt::format("{} bytes of memory cannot be had", bytes));
    return 1;
  }
  std::memset(memory.get(), settings->pattern, bytes);
  Run run(*image->device, *settings, memory.get());
  const auto begin = std::chrono::steady_clock::now();
  run.start();
  while (run.running()) {
    ring->run_once(true);
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  if (run.error()) {
    complain(call, fmt::format("Failed request: {}", reason_of(*run.error())));
    return 1;
  }
  fmt::print("Run completed in {:3.3f} seconds.\n", seconds.count());
  return close_image(call, *ring, *image) ? 0 : 1;
}

}  // namespace whistler::tools

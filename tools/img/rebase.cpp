// img rebase: an overlay gets another backing file, and shows what it showed before.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "block/chain_status.hpp"
#include "block/qcow2/image.hpp"
#include "tools/img/commands.hpp"
#include "tools/img/messages.hpp"
#include "tools/img/opening.hpp"
#include "tools/img/options.hpp"
#include "tools/img/progress.hpp"

namespace whistler::tools {

namespace {

constexpr std::uint64_t kChunk = 2 * 1024 * 1024;
constexpr std::uint64_t kProgressStep = kChunk;
constexpr std::size_t kSector = 512;

constexpr option kOptions[] = {{"help", no_argument, nullptr, 'h'},
                               {"object", required_argument, nullptr, kObject},
                               {"image-opts", no_argument, nullptr, kImageOpts},
                               {"force-share", no_argument, nullptr, 'U'},
                               {nullptr, 0, nullptr, 0}};

struct Settings {
  ImageArgument image;
  NodeFlags flags;
  NodeFlags source_flags;
  std::optional<std::string> base;
  std::string base_format;
  bool unsafe = false;
  bool progress = false;
  bool quiet = false;
};

class Rebase {
 public:
  Rebase(const Call& call, Ring& ring, const Settings& settings)
      : call_(call), ring_(ring), settings_(settings) {}

  int run() {
    Progress progress(settings_.progress && !settings_.quiet);
    progress.show(0);
    auto flags = settings_.flags;
    flags.read_only = false;
    flags.ignore_backing = settings_.unsafe;
    auto image = open_argument(call_, ring_, settings_.image, flags);
    if (!image) {
      return 1;
    }
    if (!settings_.base_format.empty() && !is_format(settings_.base_format)) {
      complain(call_, fmt::format("Invalid format name: '{}'", settings_.base_format));
      return 1;
    }
    if (!settings_.unsafe) {
      if (const int status = keep_content(*image, progress); status != 0) {
        return status;
      }
    }
    if (const int status = change_name(*image); status != 0) {
      return status;
    }
    progress.show(100);
    return close_image(call_, ring_, *image) ? 0 : 1;
  }

 private:
  int change_name(OpenNode& image) {
    const bool none = !settings_.base || settings_.base->empty();
    const auto name = none ? std::string() : *settings_.base;
    if (image.node->qcow2 == nullptr) {
      complain(call_,
               fmt::format("Could not change the backing file to '{}': Operation not supported", name));
      return 1;
    }
    if (!none && settings_.base_format.empty()) {
      complain(
          call_,
          fmt::format("Could not change the backing file to '{}': backing format must be specified", name));
      return 1;
    }
    const auto done = sync_wait(ring_, image.node->qcow2->change_backing_file(
                                           none ? std::nullopt : std::optional(name),
                                           none ? std::nullopt : std::optional(settings_.base_format)));
    if (!done) {
      complain(call_, fmt::format("Could not change the backing file to '{}': {}", name,
                                  done.error().code == ErrorCode::kNoSpace
                                      ? std::string("No space left in the file header")
                                      : reason_of(done.error())));
      return 1;
    }
    return 0;
  }

  /// Copies into the image whatever the old backing file shows and the new one does not.
  int keep_content(OpenNode& image, Progress& progress) {
    OpenImage fresh;
    if (settings_.base && !settings_.base->empty()) {
      auto name = *settings_.base;
      if (const auto resolved = resolve_stored_name(*image.node, name)) {
        name = *resolved;
      }
      auto flags = settings_.source_flags;
      flags.read_only = true;
      auto opened = open_node(
          ring_,
          NodeName::of_file(
              name, settings_.base_format.empty() ? std::nullopt : std::optional(settings_.base_format)),
          flags);
      if (!opened) {
        complain(call_,
                 fmt::format("Could not open new backing file '{}': {}", name, tool_text(opened.error())));
        return 1;
      }
      fresh = OpenImage(std::move(*opened), ring_);
    }
    BlockDevice& device = *image.device;
    BlockDevice* old = device.backing();
    const auto size = device.size();
    const double step = size == 0 ? 0 : 100.0 / static_cast<double>(size / std::min(size, kProgressStep));
    double shown = 0;
    std::vector<std::uint8_t> was(kChunk);
    std::vector<std::uint8_t> becomes(kChunk);
    for (std::uint64_t offset = 0, bytes = 0; offset < size; offset += bytes) {
      bytes = std::min(kChunk, size - offset);
      auto status = sync_wait(ring_, chain_status(device, old, offset, bytes));
      if (!status) {
        complain(call_, fmt::format("error while reading image metadata: {}", reason_of(status.error())));
        return 1;
      }
      bytes = status->bytes;
      if (status->allocated) {
        continue;
      }
      if (old != nullptr && offset < old->size()) {
        bytes = std::min(bytes, old->size() - offset);  // what lies behind it is zero, and is written as that
      }
      for (auto [source, buffer, what] :
           {std::tuple(old, &was, "old"), std::tuple(fresh.device.get(), &becomes, "new")}) {
        if (const auto read =
                read_padded(source, offset, std::span(*buffer).first(static_cast<std::size_t>(bytes)));
            !read) {
          complain(call_, fmt::format("error while reading from {} backing file", what));
          return 1;
        }
      }
      const bool behind = old == nullptr || offset >= old->size();
      if (!write_differences(device, offset, bytes, was, becomes, behind)) {
        return 1;
      }
      shown = std::min(100.0, shown + step);
      progress.show(shown);
    }
    return 0;
  }

  /// Behind the end of a disk, or without one, there are zeroes.
  Result<void> read_padded(BlockDevice* source, std::uint64_t offset, std::span<std::uint8_t> to) {
    const auto there =
        source == nullptr || offset >= source->size()
            ? 0
            : static_cast<std::size_t>(std::min<std::uint64_t>(to.size(), source->size() - offset));
    std::memset(to.data() + there, 0, to.size() - there);
    if (there == 0) {
      return {};
    }
    const iovec vec{to.data(), there};
    return sync_wait(ring_, source->readv(offset, {&vec, 1}));
  }

  /// `all_zero`: what was there is nothing but zeroes.
  bool write_differences(BlockDevice& device, std::uint64_t offset, std::uint64_t bytes,
                         std::vector<std::uint8_t>& was, const std::vector<std::uint8_t>& becomes,
                         bool all_zero) {
    const auto end = static_cast<std::size_t>(bytes);
    const auto differs = [&](std::size_t at) {
      return std::memcmp(&was[at], &becomes[at], std::min(kSector, end - at)) != 0;
    };
    if (std::memcmp(was.data(), becomes.data(), end) == 0) {
      return true;
    }
    for (std::size_t at = 0; at < end;) {
      if (!differs(at)) {
        at += kSector;
        continue;
      }
      auto stop = at;
      while (stop < end && differs(stop)) {
        stop += kSector;
      }
      stop = std::min(stop, end);
      const iovec vec{&was[at], stop - at};
      const auto done = all_zero ? sync_wait(ring_, device.write_zeroes(offset + at, stop - at))
                                 : sync_wait(ring_, device.writev(offset + at, {&vec, 1}));
      if (!done) {
        complain(call_, fmt::format("Error while writing to COW image: {}", reason_of(done.error())));
        return false;
      }
      at = stop;
    }
    return true;
  }

  const Call& call_;
  Ring& ring_;
  const Settings& settings_;
};

}  // namespace

int img_rebase(const Call& call) {
  Settings settings;
  std::string cache = "writeback";
  std::string source_cache = "writeback";
  OptionReader reader(call, "hf:F:b:upt:T:qU", kOptions);
  for (int code = reader.next(); code != -1; code = reader.next()) {
    switch (code) {
      case 'h': return img_main({call.program, {"--help"}});
      case 'f': settings.image.format = reader.argument(); break;
      case 'F': settings.base_format = reader.argument(); break;
      case 'b': settings.base = reader.argument(); break;
      case 'u': settings.unsafe = true; break;
      case 'p': settings.progress = true; break;
      case 't': cache = reader.argument(); break;
      case 'T': source_cache = reader.argument(); break;
      case 'q': settings.quiet = true; break;
      case 'U': settings.source_flags.force_share = true; break;
      case kObject:
        if (!add_object(call, reader.argument(), settings.flags)) {
          return 1;
        }
        break;
      case kImageOpts: settings.image.image_opts = true; break;
      default: break;
    }
  }
  if (reader.failed()) {
    return 1;
  }
  const auto operands = reader.operands();
  if (operands.size() != 1) {
    return complain_with_help(call, "Expecting one image file name");
  }
  if (!settings.unsafe && !settings.base) {
    return complain_with_help(call, "Must specify backing file (-b) or use unsafe mode (-u)");
  }
  settings.image.name = operands[0];
  const auto mode = parse_cache(cache);
  if (!mode) {
    complain(call, fmt::format("Invalid cache option: {}", cache));
    return 1;
  }
  const auto source_mode = parse_cache(source_cache);
  if (!source_mode) {
    complain(call, fmt::format("Invalid source cache option: {}", source_cache));
    return 1;
  }
  settings.flags.cache = *mode;
  settings.source_flags.cache = *source_mode;
  settings.source_flags.secrets = settings.flags.secrets;
  const auto ring = make_ring(call);
  return ring ? Rebase(call, *ring, settings).run() : 1;
}

}  // namespace whistler::tools

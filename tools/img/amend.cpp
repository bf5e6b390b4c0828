// img amend: changes options of an existing image.
#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "block/qcow2/amend.hpp"
#include "tools/img/commands.hpp"
#include "tools/img/encryption.hpp"
#include "tools/img/messages.hpp"
#include "tools/img/new_qcow2.hpp"
#include "tools/img/opening.hpp"
#include "tools/img/options.hpp"
#include "tools/img/progress.hpp"

namespace whistler::tools {

namespace {

std::unexpected<Error> refuse(std::string text) { return fail(ErrorCode::kInvalid, std::move(text)); }

struct AmendSettings {
  ImageArgument image;
  NodeFlags flags = {.read_only = false};
  std::vector<std::string> options;
  bool progress = false;
  bool force = false;
  bool quiet = false;
};

/// The progress of operations that each tell theirs in a unit of their own. What the later ones will need is
/// taken from what those so far needed.
class AmendProgress {
 public:
  AmendProgress(Progress& progress, unsigned operations) : progress_(progress), operations_(operations) {}

  void report(std::uint64_t done, std::uint64_t work) {
    current_ = work;
    const auto known = static_cast<double>(before_ + work);
    const auto whole = known * operations_ / (finished_ + 1);
    progress_.show(100 * static_cast<double>(before_ + done) / whole);
  }
  void next() {
    before_ += current_;
    current_ = 0;
    ++finished_;
  }

 private:
  Progress& progress_;
  unsigned operations_;
  unsigned finished_ = 0;
  std::uint64_t before_ = 0;  ///< the work of the finished ones
  std::uint64_t current_ = 0;
};

Result<void> amend_backing(const qcow2::Image& image, const Options& values) {
  const auto file = option_text(values, "backing_file");
  const auto format = option_text(values, "backing_fmt");
  // Of the two, one that is not given is another one, as QEMU has it.
  if ((file || format) &&
      (file != image.header().backing_file || format != image.header().backing_format())) {
    return refuse("Cannot amend the backing file\nYou can use 'qemu-img rebase' instead.");
  }
  return {};
}

Result<void> check_data_file(const qcow2::Image& image, const Options& values) {
  if (values.contains("data_file") && !image.header().geometry().external_data) {
    return refuse("data-file can only be set for images that use an external data file");
  }
  const bool raw = (image.header().autoclear & qcow2::kRawExternalData) != 0;
  if (option_flag(values, "data_file_raw", false).value_or(false) && !raw) {
    return refuse("data-file-raw cannot be set on existing images");
  }
  return {};
}

Result<void> amend_data_file(Ring& ring, qcow2::Image& image, const Options& values) {
  qcow2::Amender amender(image);
  const bool raw = (image.header().autoclear & qcow2::kRawExternalData) != 0;
  if (raw && !option_flag(values, "data_file_raw", true).value_or(true)) {
    if (auto done = sync_wait(ring, amender.drop_raw_data_file()); !done) {
      return done;
    }
  }
  if (const auto name = option_text(values, "data_file")) {
    return sync_wait(ring, amender.set_data_file(*name));
  }
  return {};
}

Result<void> amend_qcow2(Ring& ring, qcow2::Image& image, const Options& values, Progress& shown) {
  unsigned version = image.header().version;
  if (const auto level = option_text(values, "compat")) {
    const auto wanted = parse_qcow2_version(*level);
    if (!wanted && !level->empty()) {
      return refuse(fmt::format("Unknown compatibility level {}", *level));
    }
    version = wanted.value_or(version);
  }
  if (auto ok = check_data_file(image, values); !ok) {
    return ok;
  }
  const auto bits = option_size(values, "refcount_bits").value_or(std::nullopt);
  if (bits && (!std::has_single_bit(*bits) || *bits > 64)) {
    return refuse("Refcount width must be a power of two and may not exceed 64 bits");
  }
  if (auto ok = amend_backing(image, values); !ok) {
    return ok;
  }
  const bool new_width = bits && *bits != 1U << image.header().refcount_order;
  AmendProgress progress(shown, (version != image.header().version ? 1U : 0U) + (new_width ? 1U : 0U));
  qcow2::Amender amender(
      image, [&progress](std::uint64_t done, std::uint64_t work) { progress.report(done, work); });
  if (version > image.header().version) {
    if (auto done = sync_wait(ring, amender.upgrade()); !done) {
      return done;
    }
    progress.next();
  }
  if (new_width) {
    if (version < 3 && *bits != 16) {
      return refuse(
          "Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or "
          "greater)");
    }
    if (auto done = sync_wait(ring, amender.set_refcount_bits(static_cast<unsigned>(*bits))); !done) {
      return done;
    }
    progress.next();
  }
  if (auto done = amend_data_file(ring, image, values); !done) {
    return done;
  }
  if (const auto lazy = values.find("lazy_refcounts"); lazy != values.end()) {
    const bool now = (image.header().compatible & qcow2::kLazyRefcounts) != 0;
    if (lazy->get<bool>() && version < 3) {
      return refuse(
          "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)");
    }
    if (lazy->get<bool>() != now) {
      if (auto done = sync_wait(ring, amender.set_lazy_refcounts(lazy->get<bool>())); !done) {
        return done;
      }
    }
  }
  if (const auto size = option_size(values, "size").value_or(std::nullopt)) {
    if (auto done = sync_wait(ring, image.resize(*size)); !done) {
      return done;
    }
  }
  if (version < image.header().version) {
    return sync_wait(ring, amender.downgrade());
  }
  return {};
}

int print_help(const Call& call, const std::string& name) {
  const auto* const format = find_image_format(name);
  if (format == nullptr) {
    complain(call, is_format(name) ? fmt::format("Format driver '{}' does not support option amendment", name)
                                   : fmt::format("Unknown file format '{}'", name));
    return 1;
  }
  if (format->amend_options.empty()) {
    complain(call, fmt::format("Format driver '{}' does not support option amendment", name));
    return 1;
  }
  fmt::print("Amend options for '{}':\n", name);
  print_option_help({format->amend_options.begin(), format->amend_options.end()});
  return 0;
}

int amend(const Call& call, Ring& ring, const AmendSettings& settings, OpenNode& image, Progress& progress) {
  const auto& driver = image.node->driver;
  const auto* const format = find_image_format(driver);
  if (format == nullptr || format->amend_options.empty()) {
    complain(call, fmt::format("Format driver '{}' does not support option amendment", driver));
    return 1;
  }
  std::vector<OptionSpec> specs(format->amend_options.begin(), format->amend_options.end());
  std::vector<GivenOption> given;
  for (const auto& text : settings.options) {
    const auto part = split_option_list(text);
    given.insert(given.end(), part.begin(), part.end());
  }
  const auto values = read_values(specs, given);
  if (!values) {
    complain(call, tool_text(values.error()));
    specs.insert(specs.end(), format->options.begin(), format->options.end());
    if (read_values(specs, given)) {
      fmt::print(stderr, "This option is only supported for image creation\n");
    }
    return 1;
  }
  auto done = amend_encryption(ring, *image.node, *values, settings.force);
  if (done && image.node->qcow2 != nullptr) {
    done = amend_qcow2(ring, *image.node->qcow2, *values, progress);
  }
  if (!done) {
    complain(call, tool_text(done.error()));
  }
  return done ? 0 : 1;
}

}  // namespace

int img_amend(const Call& call) {
  static const option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                  {"object", required_argument, nullptr, kObject},
                                  {"image-opts", no_argument, nullptr, kImageOpts},
                                  {"force", no_argument, nullptr, kForce},
                                  {nullptr, 0, nullptr, 0}};
  AmendSettings settings;
  std::string cache = "writeback";
  OptionReader reader(call, "ho:f:t:pq", kLongs);
  for (int code = reader.next(); code != -1; code = reader.next()) {
    switch (code) {
      case 'h': return img_help(call);
      case 'o':
        if (!is_option_list(reader.argument())) {
          complain(call, fmt::format("Invalid option list: {}", reader.argument()));
          return 1;
        }
        settings.options.push_back(reader.argument());
        break;
      case 'f': settings.image.format = reader.argument(); break;
      case 't': cache = reader.argument(); break;
      case 'p': settings.progress = true; break;
      case 'q': settings.quiet = true; break;
      case kImageOpts: settings.image.image_opts = true; break;
      case kForce: settings.force = true; break;
      default:
        if (!add_object(call, reader.argument(), settings.flags)) {
          return 1;
        }
    }
  }
  if (reader.failed()) {
    return 1;
  }
  if (settings.options.empty()) {
    return complain_with_help(call, "Must specify options (-o)");
  }
  const auto operands = reader.operands();
  const bool help = std::any_of(settings.options.begin(), settings.options.end(), asks_for_help);
  if (help && !settings.image.format.empty()) {
    return print_help(call, settings.image.format);
  }
  if (operands.size() != 1) {
    complain(call, "Expecting one image file name");
    return 1;
  }
  settings.image.name = operands[0];
  const auto mode = parse_cache(cache);
  if (!mode) {
    complain(call, fmt::format("Invalid cache option: {}", cache));
    return 1;
  }
  settings.flags.cache = *mode;
  const auto ring = make_ring(call);
  auto image = ring ? open_argument(call, *ring, settings.image, settings.flags) : std::nullopt;
  if (!image) {
    return 1;
  }
  if (help) {
    return print_help(call, image->node->driver);
  }
  Progress progress(settings.progress && !settings.quiet);
  progress.show(0);
  const int status = amend(call, *ring, settings, *image, progress);
  if (status == 0) {
    progress.show(100);
  }
  return close_image(call, *ring, *image) ? status : 1;
}

}  // namespace whistler::tools

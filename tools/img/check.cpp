// img check: looks for damage in an image's metadata, and repairs it.
#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "block/qcow2/check.hpp"
#include "tools/img/check_formats.hpp"
#include "tools/img/commands.hpp"
#include "tools/img/opening.hpp"
#include "tools/img/options.hpp"

namespace whistler::tools {

namespace {

constexpr int kNotSupported = 63;

struct CheckSettings {
  ImageArgument image;
  NodeFlags flags = {.for_repair = true};
  qcow2::Repair repair = qcow2::Repair::kNone;
  bool quiet = false;
  bool json = false;
};

Options describe(const OpenNode& image, const std::string& filename, const qcow2::CheckReport& report) {
  Options info = {{"filename", filename}, {"format", image.node->driver}, {"check-errors", 0}};
  const auto add = [&](const char* key, std::uint64_t value) {
    if (value != 0) {
      info[key] = value;
    }
  };
  add("corruptions", report.corruptions);
  add("leaks", report.leaks);
  add("corruptions-fixed", report.corruptions_fixed);
  add("leaks-fixed", report.leaks_fixed);
  add("image-end-offset", report.image_end_offset);
  add("total-clusters", report.total_clusters);
  add("allocated-clusters", report.allocated_clusters);
  add("fragmented-clusters", report.fragmented_clusters);
  add("compressed-clusters", report.compressed_clusters);
  return info;
}

void show(const qcow2::CheckReport& report) {
  if (report.corruptions == 0 && report.leaks == 0) {
    fmt::print("No errors were found on the image.\n");
  }
  if (report.corruptions != 0) {
    fmt::print(
        "\n{} errors were found on the image.\nData may be corrupted, or further writes to the image may "
        "corrupt it.\n",
        report.corruptions);
  }
  if (report.leaks != 0) {
    fmt::print(
        "\n{} leaked clusters were found on the image.\nThis means waste of disk space, but no harm to "
        "data.\n",
        report.leaks);
  }
  if (report.total_clusters != 0 && report.allocated_clusters != 0) {
    const auto allocated = static_cast<double>(report.allocated_clusters);
    fmt::print("{}/{} = {:.2f}% allocated, {:.2f}% fragmented, {:.2f}% compressed clusters\n",
               report.allocated_clusters, report.total_clusters,
               allocated * 100 / static_cast<double>(report.total_clusters),
               static_cast<double>(report.fragmented_clusters) * 100 / allocated,
               static_cast<double>(report.compressed_clusters) * 100 / allocated);
  }
  if (report.image_end_offset != 0) {
    fmt::print("Image end offset: {}\n", report.image_end_offset);
  }
}

Result<qcow2::CheckReport> check_node(Ring& ring, const OpenNode& image, qcow2::Repair repair) {
  if (image.node->qcow2 != nullptr) {
    auto report = sync_wait(ring, qcow2::check_image(*image.node->qcow2, repair));
    if (report) {
      for (const auto& message : report->messages) {
        fmt::print(stderr, "{}\n", message);
      }
    }
    return report;
  }
  return check_other_format(ring, image, repair);
}

void complain_of_failure(const Call& call, const Error& error) {
  if (error.brief.starts_with("ERROR ")) {  // says itself what is wrong
    complain(call, error.brief);
    complain(call,
             fmt::format("Check failed: {}", std::strerror(error.sys_errno != 0 ? error.sys_errno : EIO)));
    return;
  }
  complain(call, fmt::format("Check failed: {}", tool_text(error)));
}

int check(const Call& call, Ring& ring, const CheckSettings& settings, OpenNode& image) {
  auto report = check_node(ring, image, settings.repair);
  if (!report && report.error().code == ErrorCode::kUnsupported) {
    complain(call, "This image format does not support checks");
    return kNotSupported;
  }
  if (!report) {
    complain_of_failure(call, report.error());
    return 1;
  }
  if (report->corruptions_fixed != 0 || report->leaks_fixed != 0) {
    const auto corruptions_fixed = report->corruptions_fixed;
    const auto leaks_fixed = report->leaks_fixed;
    if (!settings.quiet && !settings.json) {
      fmt::print(
          "The following inconsistencies were found and repaired:\n\n    {} leaked clusters\n    {} "
          "corruptions\n\nDouble checking the fixed image now...\n",
          leaks_fixed, corruptions_fixed);
      std::fflush(stdout);
    }
    report = check_node(ring, image, qcow2::Repair::kNone);
    if (!report) {
      complain_of_failure(call, report.error());
      return 1;
    }
    report->corruptions_fixed = corruptions_fixed;
    report->leaks_fixed = leaks_fixed;
  }
  if (settings.json && !settings.quiet) {
    fmt::print("{}\n", print_json(describe(image, settings.image.name, *report), true));
  } else if (!settings.quiet) {
    show(*report);
  }
  return report->corruptions != 0 ? 2 : report->leaks != 0 ? 3 : 0;
}

}  // namespace

int img_check(const Call& call) {
  static const option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                  {"format", required_argument, nullptr, 'f'},
                                  {"repair", required_argument, nullptr, 'r'},
                                  {"output", required_argument, nullptr, kOutput},
                                  {"force-share", no_argument, nullptr, 'U'},
                                  {"object", required_argument, nullptr, kObject},
                                  {"image-opts", no_argument, nullptr, kImageOpts},
                                  {nullptr, 0, nullptr, 0}};
  CheckSettings settings;
  std::string output = "human";
  std::string cache = "writeback";
  OptionReader reader(call, "hf:r:T:qU", kLongs);
  for (int code = reader.next(); code != -1; code = reader.next()) {
    switch (code) {
      case 'h': return img_help(call);
      case 'f': settings.image.format = reader.argument(); break;
      case 'r':
        if (reader.argument() != "leaks" && reader.argument() != "all") {
          return complain_with_help(
              call,
              fmt::format("Unknown option value for -r (expecting 'leaks' or 'all'): {}", reader.argument()));
        }
        settings.repair = reader.argument() == "all" ? qcow2::Repair::kAll : qcow2::Repair::kLeaks;
        settings.flags.read_only = false;
        break;
      case 'T': cache = reader.argument(); break;
      case 'q': settings.quiet = true; break;
      case 'U': settings.flags.force_share = true; break;
      case kOutput: output = reader.argument(); break;
      case kImageOpts: settings.image.image_opts = true; break;
      default:
        if (!add_object(call, reader.argument(), settings.flags)) {
          return 1;
        }
    }
  }
  if (reader.failed()) {
    return 1;
  }
  const auto operands = reader.operands();
  if (operands.size() != 1) {
    return complain_with_help(call, "Expecting one image file name");
  }
  if (output != "human" && output != "json") {
    complain(call, "--output must be used with human or json as argument.");
    return 1;
  }
  settings.json = output == "json";
  settings.image.name = operands[0];
  const auto mode = parse_cache(cache);
  if (!mode) {
    complain(call, fmt::format("Invalid source cache option: {}", cache));
    return 1;
  }
  settings.flags.cache = *mode;
  const auto ring = make_ring(call);
  auto image = ring ? open_argument(call, *ring, settings.image, settings.flags) : std::nullopt;
  if (!image) {
    return 1;
  }
  const int status = check(call, *ring, settings, *image);
  std::fflush(stdout);
  return close_image(call, *ring, *image) ? status : 1;
}

}  // namespace whistler::tools

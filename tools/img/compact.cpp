// img compact: the file of an image becomes as small as what it holds.
#include <fmt/format.h>

#include "block/qcow2/compact.hpp"
#include "tools/img/commands.hpp"
#include "tools/img/messages.hpp"
#include "tools/img/opening.hpp"
#include "tools/img/options.hpp"
#include "tools/img/progress.hpp"

namespace whistler::tools {

namespace {

constexpr option kOptions[] = {{"help", no_argument, nullptr, 'h'},
                               {"object", required_argument, nullptr, kObject},
                               {"image-opts", no_argument, nullptr, kImageOpts},
                               {"dry-run", no_argument, nullptr, kDryRun},
                               {nullptr, 0, nullptr, 0}};

void report(const qcow2::CompactReport& report, std::uint64_t host_before, std::uint64_t host_after,
            bool dry_run) {
  const auto won = report.bytes_before - std::min(report.bytes_before, report.bytes_after);
  fmt::print("{}: file {} -> {} bytes ({} won)", dry_run ? "Would be compacted" : "Image compacted",
             report.bytes_before, report.bytes_after, won);
  if (!dry_run) {
    fmt::print(", on the host {} -> {} bytes", host_before, host_after);
  }
  fmt::print("; {} leaked and {} zero clusters freed", report.leaks, report.zero_clusters);
  if (!dry_run) {
    fmt::print(", {} clusters moved", report.moved);
  }
  fmt::print("\n");
}

}  // namespace

int img_compact(const Call& call) {
  ImageArgument image;
  NodeFlags flags;
  bool progress_wanted = false;
  bool quiet = false;
  bool dry_run = false;
  OptionReader reader(call, "hf:pq", kOptions);
  for (int code = reader.next(); code != -1; code = reader.next()) {
    switch (code) {
      case 'h': return img_main({call.program, {"--help"}});
      case 'f': image.format = reader.argument(); break;
      case 'p': progress_wanted = true; break;
      case 'q': quiet = true; break;
      case kDryRun: dry_run = true; break;
      case kObject:
        if (!add_object(call, reader.argument(), flags)) {
          return 1;
        }
        break;
      case kImageOpts: image.image_opts = true; break;
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
  image.name = operands[0];
  flags.read_only = dry_run;
  const auto ring = make_ring(call);
  if (!ring) {
    return 1;
  }
  auto opened = open_argument(call, *ring, image, flags);
  if (!opened) {
    return 1;
  }
  if (opened->node->qcow2 == nullptr) {
    complain(call,
             fmt::format("'{}' is a {} image: only qcow2 images can be compacted; convert makes a sparse "
                         "copy of others",
                         image.name, opened->node->driver));
    return 1;
  }
  const auto* file = opened->node->lowest_file();
  const auto host_before = file != nullptr ? file->allocated_bytes() : 0;
  Result<qcow2::CompactReport> done;
  {
    Progress progress(progress_wanted && !quiet);
    progress.show(0);
    done = sync_wait(*ring, qcow2::compact_image(
                                *opened->node->qcow2,
                                {.dry_run = dry_run, .progress = [&](double part) { progress.show(part); }}));
  }
  if (!done) {
    complain(call, done.error().message);
    return 1;
  }
  const auto host_after = file != nullptr ? file->allocated_bytes() : 0;
  if (!close_image(call, *ring, *opened)) {
    return 1;
  }
  if (!quiet) {
    report(*done, host_before, host_after, dry_run);
  }
  return 0;
}

}  // namespace whistler::tools

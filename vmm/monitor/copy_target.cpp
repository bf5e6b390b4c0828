#include "vmm/monitor/copy_target.hpp"

#include <fmt/format.h>

#include <array>

#include "vmm/monitor/job_arguments.hpp"
#include "vmm/monitor/qmp_media.hpp"

namespace whistler::qmp {

CopyTarget CopyTarget::take(Arguments& arguments, CopySync sync) {
  static constexpr std::array<std::string_view, 2> kModes = {"absolute-paths", "existing"};
  CopyTarget target;
  target.file = arguments.text("target");
  target.format = arguments.text_or("format", {});
  target.sync = sync;
  target.make = arguments.word_or("mode", kModes, 0) == 0;
  return target;
}

void CopyTarget::settle(Drive& drive) {
  if (format.empty()) {
    format = drive.description().format;
  }
  if (sync == CopySync::kTop && layers_of(drive).size() == 1) {
    sync = CopySync::kFull;
  }
}

Task<Answer<Target>> CopyTarget::open(Ring& ring, Drive& drive, Stop& stop) const {
  const auto path = absolute_name(file);
  const auto size = drive.image()->size();
  if (make) {
    NewFile made;
    made.path = path;
    made.format = format;
    made.size = size;
    made.stop = &stop;
    if (sync != CopySync::kFull) {
      const auto below = layers_of(drive)[sync == CopySync::kTop ? 1 : 0];
      made.backing_file = below.file;
      made.backing_format = below.format;
      if (format != "qcow2") {
        co_return refuse(fmt::format("Backing file not supported for file format '{}'", format));
      }
    }
    auto done = co_await make_image(ring, std::move(made));
    if (!done) {
      co_return could_not_create(done.error(), stop);
    }
  }
  auto options = drive.open_options(path, format);
  options.read_only = false;
  options.stop = &stop;
  auto opened = co_await open_target(ring, std::move(options));
  if (!opened) {
    co_return could_not_open(file, opened.error(), stop);
  }
  if (opened->image->size() != size) {
    static_cast<void>(co_await opened->image->close());
    co_return refuse("Source and target image have different sizes");
  }
  co_return std::move(*opened);
}

}  // namespace whistler::qmp

#include "tools/img/check_formats.hpp"

#include <fmt/format.h>

#include "block/formats/vdi.hpp"
#include "block/formats/vhdx.hpp"

namespace whistler::tools {

namespace {

Result<qcow2::CheckReport> check_vdi(Ring& ring, formats::VdiImage& image, qcow2::Repair repair) {
  if (repair != qcow2::Repair::kNone) {
    return fail(ErrorCode::kUnsupported, "vdi: cannot be repaired");
  }
  const auto found = sync_wait(ring, image.check());
  if (!found) {
    return std::unexpected(found.error());
  }
  for (const auto& message : found->messages) {
    fmt::print(stderr, "{}\n", message);
  }
  qcow2::CheckReport report;
  report.corruptions = found->errors;
  return report;
}

}  // namespace

Result<qcow2::CheckReport> check_other_format(Ring& ring, const OpenNode& image, qcow2::Repair repair) {
  if (auto* const vdi = dynamic_cast<formats::VdiImage*>(image.node->device)) {
    return check_vdi(ring, *vdi, repair);
  }
  if (auto* const vhdx = dynamic_cast<formats::VhdxImage*>(image.node->device)) {
    // Opening it for repair has carried out the log; there is nothing else to find.
    qcow2::CheckReport report;
    report.corruptions_fixed = vhdx->log_replayed() && repair != qcow2::Repair::kNone ? 1 : 0;
    return report;
  }
  return fail(ErrorCode::kUnsupported, image.node->driver + ": has no checks");
}

}  // namespace whistler::tools

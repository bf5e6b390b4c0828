#include "tools/img/check_formats.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "base/bytes.hpp"
#include "block/formats/vdi.hpp"
#include "block/formats/vhdx.hpp"
#include "block/formats/vmdk.hpp"

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

std::unexpected<Error> damaged(const std::string& text) {
  fmt::print(stderr, "ERROR: {}\n", text);
  return fail(ErrorCode::kCorrupt, text, std::strerror(EINVAL));
}

/// Whether every grain of a sparse extent lies within its file.
Result<qcow2::CheckReport> check_vmdk(Ring& ring, formats::VmdkImage& image) {
  for (std::uint64_t at = 0; at < image.size();) {
    const auto place = sync_wait(ring, image.locate(at, image.size() - at));
    if (!place) {
      return damaged(fmt::format("could not get cluster_offset for sector {}", at / 512));
    }
    if (place->file != nullptr && !place->plain) {
      const auto end = place->file->size();
      const auto inside =
          place->host_offset < end ? align_up(end - place->host_offset, image.cluster_size()) : 0;
      if (inside < place->bytes) {
        return damaged(fmt::format("cluster offset for sector {} points after EOF", (at + inside) / 512));
      }
    }
    at += place->bytes;
  }
  return qcow2::CheckReport{};
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
  if (auto* const vmdk = dynamic_cast<formats::VmdkImage*>(image.node->device);
      vmdk != nullptr && repair == qcow2::Repair::kNone) {
    return check_vmdk(ring, *vmdk);
  }
  return fail(ErrorCode::kUnsupported, image.node->driver + ": has no checks");
}

}  // namespace whistler::tools

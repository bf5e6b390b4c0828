#include "tools/img/check_formats.hpp"

namespace whistler::tools {

Result<qcow2::CheckReport> check_other_format(Ring& ring, const OpenNode& image, qcow2::Repair repair) {
  static_cast<void>(ring);
  static_cast<void>(repair);
  return fail(ErrorCode::kUnsupported, image.node->driver + ": has no checks");
}

}  // namespace whistler::tools

// What the formats and protocols of other parts add to the information about an image.
#include "tools/img/encryption.hpp"
#include "tools/img/image_info.hpp"

namespace whistler::tools {

Options format_specific_info(Ring& ring, const Node& node) {
  static_cast<void>(ring);
  return encryption_info(node);
}

}  // namespace whistler::tools

// What the formats and protocols of other parts add to the information about an image.
#include "tools/img/image_info.hpp"

namespace whistler::tools {

Options format_specific_info(Ring& ring, const Node& node) {
  static_cast<void>(ring);
  static_cast<void>(node);
  return nullptr;
}

}  // namespace whistler::tools

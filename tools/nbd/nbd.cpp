// whistler nbd: its commands by name.
#include "tools/tool.hpp"

namespace whistler::tools {

int nbd_main(const Call& call) {
  complain(call, "no command");
  return 1;
}

}  // namespace whistler::tools

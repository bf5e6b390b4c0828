// whistler img: its commands by name.
#include "tools/img/bitmap.hpp"
#include "tools/tool.hpp"

namespace whistler::tools {

int img_main(const Call& call) {
  if (!call.arguments.empty() && call.arguments.front() == "bitmap") {
    return bitmap_command({call.program, {call.arguments.begin() + 1, call.arguments.end()}});
  }
  complain(call, "no command");
  return 1;
}

}  // namespace whistler::tools

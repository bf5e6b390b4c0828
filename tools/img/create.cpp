// img create: makes an image.
#include <fmt/format.h>

#include "tools/img/commands.hpp"
#include "tools/img/opening.hpp"
#include "tools/img/options.hpp"
#include "tools/img/target.hpp"

namespace whistler::tools {

int img_create(const Call& call) {
  static const option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                  {"object", required_argument, nullptr, kObject},
                                  {nullptr, 0, nullptr, 0}};
  NewTarget target{.path = {}, .format = "raw", .announce = true};
  OptionReader reader(call, "F:b:f:ho:qu", kLongs);
  for (int code = reader.next(); code != -1; code = reader.next()) {
    switch (code) {
      case 'h': return img_help(call);
      case 'F': target.backing_format = reader.argument(); break;
      case 'b': target.backing_file = reader.argument(); break;
      case 'f': target.format = reader.argument(); break;
      case 'o':
        if (!is_option_list(reader.argument())) {
          complain(call, fmt::format("Invalid option list: {}", reader.argument()));
          return 1;
        }
        target.options.push_back(reader.argument());
        break;
      case 'q': target.announce = false; break;
      case 'u': target.unsafe_backing = true; break;
      default:
        if (!add_object(call, reader.argument(), target.backing_flags)) {
          return 1;
        }
    }
  }
  if (reader.failed()) {
    return 1;
  }
  const auto operands = reader.operands();
  for (const auto& options : target.options) {
    if (asks_for_help(options)) {
      return print_creation_help(call, target.format, operands.empty() ? "" : operands[0]);
    }
  }
  if (operands.empty()) {
    return complain_with_help(call, "Expecting image file name");
  }
  target.path = operands[0];
  if (operands.size() > 1) {
    target.size = parse_number(call, "image size", operands[1]);
    if (!target.size) {
      return 1;
    }
  }
  if (operands.size() > 2) {
    return complain_with_help(call, fmt::format("Unexpected argument: {}", operands[2]));
  }
  const auto ring = make_ring(call);
  if (!ring) {
    return 1;
  }
  if (const auto done = create_target(*ring, target); !done) {
    const auto text =
        fmt::format("{}: {}", call.program, fmt::format("{}: {}", target.path, tool_text(done.error())));
    // QEMU ends this one hint without a new line.
    fmt::print(stderr, "{}{}", text, text.find("\nDetected format of ") == std::string::npos ? "\n" : "");
    return 1;
  }
  return 0;
}

}  // namespace whistler::tools

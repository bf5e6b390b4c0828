// What the block tools share: how they are called, and how they complain.
//
// `whistler img`, `whistler io` and `whistler nbd` take the arguments of qemu-img, qemu-io and qemu-nbd,
// print what those print and end with the same status. Run through a link of one of those names, the program
// is that tool.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace whistler::tools {

struct Call {
  /// What the tool calls itself in messages: "qemu-img" through such a link, else "whistler img".
  std::string program;
  std::vector<std::string> arguments;
};

/// Each returns the exit status of the program.
[[nodiscard]] int img_main(const Call& call);
[[nodiscard]] int io_main(const Call& call);
[[nodiscard]] int nbd_main(const Call& call);

/// The tool that the command line asks for: by the name of the program (qemu-img, qemu-io, qemu-nbd) or by
/// the first argument (img, io, nbd). Its exit status; nothing if it is neither.
[[nodiscard]] std::optional<int> run_tool(int argc, char** argv);

/// "PROGRAM: MESSAGE" to standard error.
void complain(const Call& call, std::string_view message);

}  // namespace whistler::tools

// The img commands that copy, compare and measure; each gives the exit status. The arguments begin behind
// the command's name.
#pragma once

#include "tools/tool.hpp"

namespace whistler::tools {

[[nodiscard]] int img_bench(const Call& call);
[[nodiscard]] int img_commit(const Call& call);
[[nodiscard]] int img_compact(const Call& call);
[[nodiscard]] int img_compare(const Call& call);
[[nodiscard]] int img_convert(const Call& call);
[[nodiscard]] int img_dd(const Call& call);
[[nodiscard]] int img_rebase(const Call& call);

}  // namespace whistler::tools

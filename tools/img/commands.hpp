// The img commands; each gives the exit status. The arguments begin behind
// the command's name.
#pragma once

#include "tools/tool.hpp"

namespace whistler::tools {

/// Prints the help text.
int img_help(const Call& call);

[[nodiscard]] int img_amend(const Call& call);
[[nodiscard]] int img_bench(const Call& call);
[[nodiscard]] int img_check(const Call& call);
[[nodiscard]] int img_commit(const Call& call);
[[nodiscard]] int img_compact(const Call& call);
[[nodiscard]] int img_compare(const Call& call);
[[nodiscard]] int img_convert(const Call& call);
[[nodiscard]] int img_create(const Call& call);
[[nodiscard]] int img_dd(const Call& call);
[[nodiscard]] int img_info(const Call& call);
[[nodiscard]] int img_map(const Call& call);
[[nodiscard]] int img_measure(const Call& call);
[[nodiscard]] int img_rebase(const Call& call);
[[nodiscard]] int img_resize(const Call& call);
[[nodiscard]] int img_snapshot(const Call& call);

}  // namespace whistler::tools

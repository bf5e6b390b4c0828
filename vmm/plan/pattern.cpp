#include "vmm/plan/pattern.hpp"

#include <fmt/format.h>
#include <re2/re2.h>

#include <utility>

namespace whistler::plan {
namespace {

constexpr std::int64_t kMostMemory = 8 << 20;  // bytes of one compiled expression

RE2::Options options() {
  RE2::Options options;
  options.set_log_errors(false);
  options.set_dot_nl(true);
  options.set_max_mem(kMostMemory);
  options.set_never_capture(true);
  return options;
}

}  // namespace

Pattern::Pattern(std::string text, std::shared_ptr<const re2::RE2> compiled)
    : text_(std::move(text)), compiled_(std::move(compiled)) {}

Result<Pattern> Pattern::compile(const std::string& text) {
  // (?m): ^ and $ at every line.
  auto compiled = std::make_shared<const RE2>("(?m)" + text, options());
  if (!compiled->ok()) {
    return fail(ErrorCode::kInvalid,
                fmt::format("is no regular expression of RE2's syntax: {}", compiled->error()));
  }
  if (RE2::PartialMatch("", *compiled)) {
    return fail(ErrorCode::kInvalid, "matches the empty text, so it would be found at once and always");
  }
  return Pattern(text, std::move(compiled));
}

Pattern Pattern::literal(const std::string& text) {
  return Pattern(text, std::make_shared<const RE2>(RE2::QuoteMeta(text), options()));
}

std::optional<Found> Pattern::search(std::string_view text, std::size_t from) const {
  re2::StringPiece found;
  const re2::StringPiece in(text.data(), text.size());
  if (from > text.size() || !compiled_->Match(in, from, text.size(), RE2::UNANCHORED, &found, 1)) {
    return std::nullopt;
  }
  const auto start = static_cast<std::size_t>(found.data() - text.data());
  return Found{start, start + found.size()};
}

}  // namespace whistler::plan

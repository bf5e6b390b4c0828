#include "vmm/plan/trouble.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace whistler::plan {
namespace {

constexpr std::size_t kOverlap = 4096;  // a sign may come in two pieces
constexpr std::size_t kLongestLine = 300;

}  // namespace

TroubleFinder::TroubleFinder(const FailOn& fail_on) {
  const auto add = [&](const char* text, const char* what) {
    signs_.push_back({Pattern::literal(text), what});
  };
  if (fail_on.panic) {
    add("Kernel panic - not syncing", "Linux has panicked");
  }
  if (fail_on.blue_screen) {
    add("A problem has been detected and Windows", "Windows has stopped with a blue screen");
    add("*** STOP: 0x", "Windows has stopped with a blue screen");
  }
  if (fail_on.no_boot_device) {
    add("No bootable device", "the BIOS finds nothing to boot");
  }
  for (const auto& pattern : fail_on.text) {
    signs_.push_back(
        {pattern, fmt::format("the guest says what fail_on.text names, \"{}\"", pattern.text())});
  }
}

std::string line_around(std::string_view text, std::size_t at) {
  const auto before = at == 0 ? std::string_view::npos : text.rfind('\n', at - 1);
  const auto start = before == std::string_view::npos ? 0 : before + 1;
  const auto end = std::min(text.find('\n', at), text.size());
  std::string line;
  for (const char c : text.substr(start, std::max(end, start) - start)) {
    line += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? ' ' : c;
  }
  const auto first = line.find_first_not_of(' ');
  const auto last = line.find_last_not_of(' ');
  line = first == std::string::npos ? "" : line.substr(first, last - first + 1);
  return line.size() <= kLongestLine ? line : line.substr(0, kLongestLine) + "...";
}

std::string quoted_end(std::string_view text) {
  constexpr std::size_t kShown = 200;
  const auto end = text.substr(text.size() - std::min(text.size(), kShown));
  return nlohmann::json(end).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string Trouble::with_line(std::string_view text) const {
  return fmt::format("{}: {}", what, line_around(text, at));
}

bool Trouble::line_is_whole(std::string_view text) const { return text.find('\n', at) != text.npos; }

std::optional<Trouble> TroubleFinder::in_stream(std::string_view text, std::size_t& seen) const {
  const auto from = seen > kOverlap ? seen - kOverlap : 0;
  if (seen == text.size()) {
    return std::nullopt;
  }
  seen = text.size();
  for (const auto& sign : signs_) {
    if (const auto found = sign.pattern.search(text, from)) {
      return Trouble{sign.what, found->start};
    }
  }
  return std::nullopt;
}

std::optional<std::string> TroubleFinder::in_screen(std::string_view text) const {
  std::size_t nothing_seen = 0;
  const auto found = in_stream(text, nothing_seen);
  return found ? std::optional(found->with_line(text)) : std::nullopt;
}

}  // namespace whistler::plan

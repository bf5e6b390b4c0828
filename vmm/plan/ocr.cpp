#include "vmm/plan/ocr.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <optional>

#include "vmm/plan/file_text.hpp"
#include "vmm/plan/tool.hpp"

namespace whistler::plan {
namespace {

using Attempt = std::expected<bool, Failure>;

/// Letters of eight to sixteen lines are too small for it; it reads best those of about 30.
unsigned enlargement_of(const Picture& picture) {
  constexpr unsigned kSmall = 1024, kMiddle = 1600;
  return picture.width <= kSmall ? 3 : picture.width <= kMiddle ? 2 : 1;
}

unsigned grey(const Picture::Pixel& pixel) {
  constexpr unsigned kRed = 299, kGreen = 587, kBlue = 114;  // thousandths
  return (pixel[0] * kRed + pixel[1] * kGreen + pixel[2] * kBlue) / 1000;
}

/// Where a line of the larger picture lies between two of the smaller one.
struct Between {
  unsigned first = 0, second = 0;
  unsigned share = 0;  // of the second, in parts of 2 * times
};
Between between(unsigned position, unsigned times, unsigned size) {
  // The middle of a small line is the middle of the large ones made of it.
  const auto centre = std::max(2 * position + 1, times) - times;
  const auto first = centre / (2 * times);
  return {.first = first, .second = std::min(first + 1, size - 1), .share = centre % (2 * times)};
}

}  // namespace

std::string picture_to_read(const Picture& picture) {
  const auto times = enlargement_of(picture);
  const auto width = picture.width * times;
  const auto height = picture.height * times;
  const auto whole = 2 * times;
  auto result = fmt::format("P5\n{} {}\n255\n", width, height);
  result.reserve(result.size() + std::size_t{width} * height);
  std::vector<unsigned> row(picture.width);
  for (unsigned y = 0; y < height; ++y) {
    const auto rows = between(y, times, picture.height);
    for (unsigned x = 0; x < picture.width; ++x) {
      row[x] = grey(picture.at(x, rows.first)) * (whole - rows.share) +
               grey(picture.at(x, rows.second)) * rows.share;
    }
    for (unsigned x = 0; x < width; ++x) {
      const auto columns = between(x, times, picture.width);
      const auto value = row[columns.first] * (whole - columns.share) + row[columns.second] * columns.share;
      result += static_cast<char>(value / (whole * whole));
    }
  }
  return result;
}

Done wait_ocr(Session& session, const WaitOcr& wait, const std::string& what, double seconds) {
  const auto& folder = session.guest().folder();
  std::optional<std::uint64_t> generation;
  std::optional<ToolRun> run;
  std::string text;
  const auto start = [&]() -> Attempt {
    const auto screen = session.screen();
    if (!screen) {
      return std::unexpected(screen.error());
    }
    if (generation == (*screen)->generation) {
      return false;  // it would read the same
    }
    generation = (*screen)->generation;
    const auto picture = session.look();
    if (!picture) {
      return std::unexpected(picture.error());
    }
    std::ofstream(folder + "/ocr.pgm", std::ios::binary) << picture_to_read(*picture);
    // 11: text wherever there is some, as windows have it. Without a resolution it guesses one, and says so.
    auto started = ToolRun::start(
        kTesseract, {"ocr.pgm", "ocr", "-l", wait.language, "--psm", "11", "--dpi", "300"}, folder);
    if (!started) {
      return std::unexpected(Failure{Verdict::kHostCannot, started.error().message});
    }
    run.emplace(std::move(*started));
    return false;
  };
  auto done = session.until(what, seconds, [&]() -> Attempt {
    if (!run) {
      return start();
    }
    const auto ended = run->done();
    if (!ended) {
      return std::unexpected(Failure{Verdict::kHostCannot, ended.error().message});
    }
    if (!*ended) {
      return false;
    }
    run.reset();
    text = file_text(folder + "/ocr.txt");
    return wait.pattern.search(text).has_value();
  });
  if (!done && done.error().verdict == Verdict::kTimeLimit) {
    done.error().reason += fmt::format("; what was read off the screen ends with {}", quoted_end(text));
  }
  return done;
}

}  // namespace whistler::plan

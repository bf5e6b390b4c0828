// The picture a video chip makes, for whoever wants to look: VNC, screenshots, tests.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace whistler {

struct Rect {
  unsigned x = 0, y = 0, width = 0, height = 0;
  bool operator==(const Rect&) const = default;
};

/// Pixels 0x00RRGGBB, and which of them changed when. Any number of viewers each remember the generation they
/// have seen and ask for the changes since; nobody registers. Under the machine lock.
class Surface {
 public:
  static constexpr unsigned kTileWidth = 64;
  static constexpr unsigned kTileHeight = 16;

  [[nodiscard]] unsigned width() const { return width_; }
  [[nodiscard]] unsigned height() const { return height_; }
  [[nodiscard]] std::span<const std::uint32_t> row(unsigned y) const {
    return std::span(pixels_).subspan(std::size_t{y} * width_, width_);
  }
  /// Rises with every change; starts at 1, so that a viewer at 0 has seen nothing.
  [[nodiscard]] std::uint64_t generation() const { return generation_; }

  /// A black picture of another size; everything counts as changed. Does nothing if the size is the same.
  void resize(unsigned width, unsigned height);
  /// Replaces pixels of row `y` from `x` on. Only tiles whose pixels really differ count as changed.
  void put(unsigned x, unsigned y, std::span<const std::uint32_t> pixels);
  /// What changed after `generation`, as few rectangles that do not overlap. Empty if nothing.
  [[nodiscard]] std::vector<Rect> changes_since(std::uint64_t generation) const;

 private:
  unsigned width_ = 0;
  unsigned height_ = 0;
  unsigned tiles_across_ = 0;
  std::uint64_t generation_ = 1;
  std::vector<std::uint32_t> pixels_;
  std::vector<std::uint64_t> tile_changed_;  // generation of the last change, row by row
};

/// A text-mode screen as characters: `columns` code-page-437 bytes a row with their attributes.
struct TextScreen {
  unsigned columns = 0;
  unsigned rows = 0;
  std::vector<std::uint8_t> characters;
  std::vector<std::uint8_t> attributes;
  std::optional<unsigned> cursor;  ///< cell index, if the cursor is shown
  /// Line `row` as UTF-8 with trailing blanks removed.
  [[nodiscard]] std::string line(unsigned row) const;
};

/// A video chip, seen from the viewers' side. Under the machine lock.
class DisplaySource {
 public:
  virtual ~DisplaySource() = default;
  /// Draws what changed in the guest's video memory or mode since the last call into surface().
  virtual void update() = 0;
  [[nodiscard]] virtual const Surface& surface() const = 0;
  /// The characters, while a text mode is shown.
  [[nodiscard]] virtual std::optional<TextScreen> text() const = 0;
};

}  // namespace whistler

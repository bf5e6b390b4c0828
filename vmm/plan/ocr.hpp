// Reads text off pictures of the screen with tesseract, which is a program of its own.
#pragma once

#include <string>

#include "vmm/plan/picture.hpp"
#include "vmm/plan/session.hpp"

namespace whistler::plan {

/// Waits until the text read off the screen has the pattern in it: at most `seconds`, before they are scaled.
/// What was read last is in "ocr.txt" in the guest's folder.
[[nodiscard]] Done wait_ocr(Session& session, const WaitOcr& wait, const std::string& what, double seconds);

/// A picture as tesseract likes it, in the format PGM: grey, and with the letters of a small screen made
/// larger, smoothly.
[[nodiscard]] std::string picture_to_read(const Picture& picture);

}  // namespace whistler::plan

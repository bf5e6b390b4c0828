// Reads the command line of an img command as qemu-img does.
#pragma once

#include <getopt.h>

#include <optional>
#include <string>
#include <vector>

#include "block/cache_mode.hpp"
#include "tools/tool.hpp"

namespace whistler::tools {

/// Codes of long options that have no letter.
enum LongOption : int {
  kImageOpts = 256,
  kTargetImageOpts,
  kObject,
  kPattern,
  kFlushInterval,
  kNoDrain,
  kSalvage,
  kTargetIsZero,
  kBitmaps,
  kSkipBrokenBitmaps,
  kDryRun,
  kOutput,
  kBackingChain,
  kStartOffset,
  kMaxLength,
  kSize,
  kPreallocation,
  kShrink,
  kForce,
};

class OptionReader {
 public:
  /// `letters` as getopt takes them; `longs` ends with an empty one.
  OptionReader(const Call& call, const char* letters, const option* longs);

  /// The next option's code; -1 at their end, and after a complaint: then failed() is true.
  [[nodiscard]] int next();
  [[nodiscard]] bool failed() const { return failed_; }
  [[nodiscard]] std::string argument() const { return argument_; }
  /// What is left when the options have ended.
  [[nodiscard]] std::vector<std::string> operands() const;

 private:
  const Call& call_;
  std::string letters_;
  const option* longs_;
  std::vector<std::string> words_;
  std::vector<char*> argv_;
  std::string argument_;
  bool failed_ = false;
};

/// "TEXT", and where help is to be had. Gives the status 1.
int complain_with_help(const Call& call, const std::string& text);

/// A number of bytes, or any number, with a suffix; complains, calling it `what`, and gives nothing.
[[nodiscard]] std::optional<std::uint64_t> parse_number(const Call& call, const std::string& what,
                                                        const std::string& text, std::uint64_t least = 0,
                                                        std::uint64_t most = INT64_MAX);
/// A decimal number within the range, without suffix.
[[nodiscard]] std::optional<int> parse_plain_number(const std::string& text, int least, int most);
/// The names of -t and -T.
[[nodiscard]] std::optional<CacheMode> parse_cache(const std::string& text);

}  // namespace whistler::tools

// Numbers and messages of the NBD protocol, as its document (proto.md of the NBD project) lays them down. All
// integers are big-endian.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.hpp"

namespace whistler::nbd {

constexpr std::uint64_t kMagic = 0x4e42444d41474943;        ///< "NBDMAGIC"
constexpr std::uint64_t kOptionMagic = 0x49484156454f5054;  ///< "IHAVEOPT"
constexpr std::uint64_t kOldstyleMagic = 0x0000420281861253;
constexpr std::uint64_t kOptionReplyMagic = 0x0003e889045565a9;
constexpr std::uint32_t kRequestMagic = 0x25609513;
constexpr std::uint32_t kSimpleReplyMagic = 0x67446698;
constexpr std::uint32_t kStructuredReplyMagic = 0x668e33ef;

/// The longest request or option either side takes.
constexpr std::uint32_t kMaxBytes = 32 * 1024 * 1024;
/// The longest name or message.
constexpr std::uint32_t kMaxString = 4096;
constexpr std::uint16_t kDefaultPort = 10809;
/// Bytes of zeroes after an oldstyle greeting, and after NBD_OPT_EXPORT_NAME unless both sides leave them
/// out.
constexpr std::size_t kReservedBytes = 124;

// Flags of the greeting; the client answers with the same bits.
constexpr std::uint16_t kFixedNewstyle = 1U << 0U;
constexpr std::uint16_t kNoZeroes = 1U << 1U;

// Flags of an export.
constexpr std::uint16_t kHasFlags = 1U << 0U;
constexpr std::uint16_t kReadOnly = 1U << 1U;
constexpr std::uint16_t kSendFlush = 1U << 2U;
constexpr std::uint16_t kSendFua = 1U << 3U;
constexpr std::uint16_t kRotational = 1U << 4U;
constexpr std::uint16_t kSendTrim = 1U << 5U;
constexpr std::uint16_t kSendWriteZeroes = 1U << 6U;
constexpr std::uint16_t kSendDf = 1U << 7U;
constexpr std::uint16_t kCanMultiConn = 1U << 8U;
constexpr std::uint16_t kSendResize = 1U << 9U;
constexpr std::uint16_t kSendCache = 1U << 10U;
constexpr std::uint16_t kSendFastZero = 1U << 11U;

enum class Option : std::uint32_t {
  kExportName = 1,
  kAbort = 2,
  kList = 3,
  kStartTls = 5,
  kInfo = 6,
  kGo = 7,
  kStructuredReply = 8,
  kListMetaContext = 9,
  kSetMetaContext = 10,
};

/// For messages: "go", "list", ...; "<unknown>".
[[nodiscard]] std::string_view option_name(std::uint32_t option);

// Answers to an option.
constexpr std::uint32_t kReplyAck = 1;
constexpr std::uint32_t kReplyServer = 2;
constexpr std::uint32_t kReplyInfo = 3;
constexpr std::uint32_t kReplyMetaContext = 4;
constexpr std::uint32_t kReplyErrorBit = 1U << 31U;
constexpr std::uint32_t kErrUnsupported = kReplyErrorBit | 1U;
constexpr std::uint32_t kErrPolicy = kReplyErrorBit | 2U;
constexpr std::uint32_t kErrInvalid = kReplyErrorBit | 3U;
constexpr std::uint32_t kErrPlatform = kReplyErrorBit | 4U;
constexpr std::uint32_t kErrTlsRequired = kReplyErrorBit | 5U;
constexpr std::uint32_t kErrUnknown = kReplyErrorBit | 6U;
constexpr std::uint32_t kErrShutdown = kReplyErrorBit | 7U;
constexpr std::uint32_t kErrBlockSizeRequired = kReplyErrorBit | 8U;
constexpr std::uint32_t kErrTooBig = kReplyErrorBit | 9U;

// Kinds of information in NBD_REP_INFO.
constexpr std::uint16_t kInfoExport = 0;
constexpr std::uint16_t kInfoName = 1;
constexpr std::uint16_t kInfoDescription = 2;
constexpr std::uint16_t kInfoBlockSize = 3;

enum class Command : std::uint16_t {
  kRead = 0,
  kWrite = 1,
  kDisconnect = 2,
  kFlush = 3,
  kTrim = 4,
  kCache = 5,
  kWriteZeroes = 6,
  kBlockStatus = 7,
};

// Flags of a command.
constexpr std::uint16_t kFlagFua = 1U << 0U;
constexpr std::uint16_t kFlagNoHole = 1U << 1U;
constexpr std::uint16_t kFlagDf = 1U << 2U;
constexpr std::uint16_t kFlagReqOne = 1U << 3U;
constexpr std::uint16_t kFlagFastZero = 1U << 4U;

// Structured replies.
constexpr std::uint16_t kChunkDone = 1U << 0U;
constexpr std::uint16_t kChunkNone = 0;
constexpr std::uint16_t kChunkOffsetData = 1;
constexpr std::uint16_t kChunkOffsetHole = 2;
constexpr std::uint16_t kChunkBlockStatus = 5;
constexpr std::uint16_t kChunkErrorBit = 1U << 15U;
constexpr std::uint16_t kChunkError = kChunkErrorBit | 1U;
constexpr std::uint16_t kChunkErrorOffset = kChunkErrorBit | 2U;

// Errors of a command.
constexpr std::uint32_t kEperm = 1;
constexpr std::uint32_t kEio = 5;
constexpr std::uint32_t kEnomem = 12;
constexpr std::uint32_t kEinval = 22;
constexpr std::uint32_t kEnospc = 28;
constexpr std::uint32_t kEoverflow = 75;
constexpr std::uint32_t kEnotsup = 95;
constexpr std::uint32_t kEshutdown = 108;

// base:allocation
constexpr std::uint32_t kStateHole = 1;
constexpr std::uint32_t kStateZero = 2;
constexpr std::string_view kBaseAllocation = "base:allocation";
constexpr std::string_view kAllocationDepth = "qemu:allocation-depth";
constexpr std::string_view kDirtyBitmap = "qemu:dirty-bitmap:";

struct OptionHeader {
  Be<std::uint64_t> magic;
  Be<std::uint32_t> option;
  Be<std::uint32_t> length;
};
static_assert(sizeof(OptionHeader) == 16);

struct OptionReplyHeader {
  Be<std::uint64_t> magic;
  Be<std::uint32_t> option;
  Be<std::uint32_t> type;
  Be<std::uint32_t> length;
};
static_assert(sizeof(OptionReplyHeader) == 20);

struct RequestHeader {
  Be<std::uint32_t> magic;
  Be<std::uint16_t> flags;
  Be<std::uint16_t> command;
  Be<std::uint64_t> cookie;
  Be<std::uint64_t> offset;
  Be<std::uint32_t> length;
};
static_assert(sizeof(RequestHeader) == 28);

struct SimpleReplyHeader {
  Be<std::uint32_t> magic;
  Be<std::uint32_t> error;
  Be<std::uint64_t> cookie;
};
static_assert(sizeof(SimpleReplyHeader) == 16);

struct ChunkHeader {
  Be<std::uint32_t> magic;
  Be<std::uint16_t> flags;
  Be<std::uint16_t> type;
  Be<std::uint64_t> cookie;
  Be<std::uint32_t> length;
};
static_assert(sizeof(ChunkHeader) == 20);

struct Extent {
  Be<std::uint32_t> length;
  Be<std::uint32_t> flags;
};
static_assert(sizeof(Extent) == 8);

/// Builds the payload of a message.
class Writer {
 public:
  template <std::integral T>
  void put(T value) {
    const auto at = bytes_.size();
    bytes_.resize(at + sizeof value);
    store_be<T>(bytes_.data() + at, value);
  }
  void put(std::string_view text) { bytes_ += text; }
  void put_string(std::string_view text) {
    put(static_cast<std::uint32_t>(text.size()));
    put(text);
  }
  [[nodiscard]] const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

/// Takes a payload apart. Once something is missing, ok() is false and every further take gives nothing.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}
  template <std::integral T>
  T take() {
    const auto piece = take_bytes(sizeof(T));
    return ok_ ? load_be<T>(piece.data()) : T{};
  }
  std::string_view take_bytes(std::size_t count) {
    if (count > rest_.size()) {
      ok_ = false;
      rest_ = {};
      return {};
    }
    const auto piece = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return piece;
  }
  /// A length, and as many bytes.
  std::string_view take_string() { return take_bytes(take<std::uint32_t>()); }
  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] bool at_end() const { return ok_ && rest_.empty(); }
  [[nodiscard]] std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace whistler::nbd

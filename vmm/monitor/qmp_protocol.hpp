// The QEMU Machine Protocol's messages: how they are cut out of a byte stream, read and written. Source:
// QEMU's docs/interop/qmp-spec. JSON objects follow each other with any white space or none between them;
// each answer and event is one line.
//
// Missing: out-of-band execution, strings in single quotes.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.hpp"

namespace whistler::qmp {

using Json = nlohmann::json;

/// The most bytes of one message.
inline constexpr std::size_t kLargestMessage = 1024 * 1024;
/// The most objects and lists within each other.
inline constexpr unsigned kDeepestNesting = 128;

/// Cuts a stream into JSON values by their brackets, without understanding them.
class Splitter {
 public:
  /// Takes bytes of the stream. False once a message is longer or deeper than the limits: the client is to be
  /// dropped.
  [[nodiscard]] bool feed(std::string_view bytes);
  /// The next complete message, or nothing.
  [[nodiscard]] std::optional<std::string> next();

 private:
  std::string buffer_;
  std::size_t seen_ = 0;  // how much of buffer_ the brackets below stand for
  unsigned depth_ = 0;
  bool too_deep_ = false;
  bool in_string_ = false;
  bool escaped_ = false;
};

/// A refusal: QMP's error class and a sentence.
struct Refusal {
  std::string error_class = "GenericError";
  std::string description;
};

template <typename T>
using Answer = std::expected<T, Refusal>;
/// Takes what the client gets. Under the machine lock.
using Reply = std::function<void(Answer<Json> answer)>;

[[nodiscard]] std::unexpected<Refusal> refuse(std::string description);

struct Request {
  std::string command;
  Json arguments = Json::object();
};

/// What `text` asks for. `id` is set to what the client wants back with the answer, even if the rest is
/// refused; null if there is none.
[[nodiscard]] Answer<Request> read_request(std::string_view text, Json& id);

/// The line of an answer, with its newline.
[[nodiscard]] std::string answer_line(const Answer<Json>& answer, const Json& id);
/// The line of an event that happens now.
[[nodiscard]] std::string event_line(std::string_view name, Json data);
[[nodiscard]] std::string greeting_line();

/// Reads a command's arguments: each is asked for once, then finish() refuses those nobody asked for. The
/// first refusal stands.
class Arguments {
 public:
  explicit Arguments(const Json& object) : left_(object) {}
  [[nodiscard]] std::string text(const std::string& key);
  [[nodiscard]] std::string text_or(const std::string& key, std::string otherwise);
  [[nodiscard]] std::int64_t number_or(const std::string& key, std::int64_t otherwise);
  [[nodiscard]] std::int64_t number(const std::string& key);
  [[nodiscard]] bool flag_or(const std::string& key, bool otherwise);
  [[nodiscard]] Json list(const std::string& key);
  [[nodiscard]] Json object(const std::string& key);
  [[nodiscard]] bool has(const std::string& key) const { return left_.contains(key); }
  /// A word of `words`, by its place among them.
  [[nodiscard]] std::size_t word_or(const std::string& key, std::span<const std::string_view> words,
                                    std::size_t otherwise);
  /// All that nobody has asked for yet, for a command that knows what to make of any.
  [[nodiscard]] Json rest() { return std::exchange(left_, Json::object()); }
  /// What a value means is not allowed.
  void fail(std::string description);
  [[nodiscard]] Answer<void> finish();

 private:
  /// Takes the member out; null if it is not there.
  Json take(const std::string& key);

  Json left_;
  std::optional<Refusal> refusal_;
};

}  // namespace whistler::qmp

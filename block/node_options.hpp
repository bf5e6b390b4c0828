// How an image is named: QEMU's names as a tree of options.
//
// A tree is a JSON object as QEMU's -blockdev takes it: "driver", the driver's own options, and children
// ("file", "backing", "data-file", "image") that are trees again. It comes from a "json:{...}" name, from
// dotted options ("driver=qcow2,file.filename=x") or from a name with a protocol ("blkdebug:c:x").
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace whistler {

using Options = nlohmann::json;

/// Whether `name` begins with a protocol ("nbd:..."): a colon before any slash.
[[nodiscard]] bool has_protocol(std::string_view name);
/// The protocol of a name that has one.
[[nodiscard]] std::string_view protocol_of(std::string_view name);

/// The tree of a "json:{...}" name. QEMU's JSON: single quotes may stand for double ones.
[[nodiscard]] Result<Options> parse_json_name(std::string_view name);
/// "a.b=c,d=e,,f": a comma in a value is doubled. A part without '=' is the value of `implied_key`, if that
/// is given and the part is the first; else it is a switch: "x" means x=on, "nox" x=off.
[[nodiscard]] Result<Options> parse_dotted_options(std::string_view text, std::string_view implied_key = {});
/// Makes `{"a.b": 1}` into `{"a": {"b": 1}}`.
[[nodiscard]] Options nest_options(const Options& flat);

/// The option as text, whatever its JSON type; nothing if it is not there or has children.
[[nodiscard]] std::optional<std::string> option_text(const Options& options, std::string_view key);
/// "on", "off", true, false.
[[nodiscard]] Result<bool> option_flag(const Options& options, std::string_view key, bool otherwise);
/// A number of bytes: a JSON number, or text with a suffix.
[[nodiscard]] Result<std::optional<std::uint64_t>> option_size(const Options& options, std::string_view key);
/// A plain number; a negative one counts down from 2^64, as QEMU has it.
[[nodiscard]] Result<std::optional<std::uint64_t>> option_number(const Options& options,
                                                                 std::string_view key);

/// A size as QEMU reads it ("1k", "1.5G", "0x10"); kInvalid, or kNoSpace where it does not fit into 64 bits.
[[nodiscard]] Result<std::uint64_t> parse_size_text(std::string_view text);

/// JSON as QEMU prints it: on one line, or with `pretty` over several; the keys of an object in the order of
/// QEMU's hash table.
[[nodiscard]] std::string print_json(const Options& value, bool pretty);
/// The keys of an object in the order of QEMU's hash table.
[[nodiscard]] std::vector<std::string> keys_in_order(const Options& object);
/// Where QEMU's hash table keeps a key.
[[nodiscard]] unsigned json_key_bucket(std::string_view key);

}  // namespace whistler

// Saving and loading what a guest can see. A device keeps its registers in one plain struct that names its
// fields once:
//
//   struct State {
//     std::uint8_t index = 0;
//     std::array<std::uint8_t, 128> ram{};
//     bool operator==(const State&) const = default;
//     static void fields(auto& self, auto&& visit) {
//       visit("index", self.index);
//       visit("ram", self.ram);
//     }
//   };
//
// That list drives save, load and dump. Fields may be integers, bools, enums, strings, std::array and
// std::vector of any of these, and structs with a `fields` of their own.
//
// Format: a struct is a row of { name length u8, name, payload length u32, payload }; numbers are
// little-endian at their own width; a string is its bytes; a vector or array is its element count u32 and
// then its elements, each with a u32 length when an element has no fixed size. Loading looks fields up by
// name, so their order is free; a missing or ill-sized one is an error and leaves the target untouched.
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/bytes.hpp"
#include "base/result.hpp"

namespace whistler {

using StateBytes = std::vector<std::uint8_t>;

namespace state_detail {

struct NullVisit {
  void operator()(std::string_view, auto&) const {}
};
template <typename T>
concept Structure = requires(T& value, NullVisit visit) { T::fields(value, visit); };
template <typename T>
concept Scalar = std::integral<T> || std::is_enum_v<T>;
template <typename T>
struct IsArray : std::false_type {};
template <typename T, std::size_t N>
struct IsArray<std::array<T, N>> : std::true_type {};
template <typename T>
struct IsVector : std::false_type {};
template <typename T>
struct IsVector<std::vector<T>> : std::true_type {};

void append_u32(StateBytes& out, std::size_t value);
void append_field(StateBytes& out, std::string_view name, const StateBytes& payload);

template <Scalar T>
auto to_integer(T value) {
  if constexpr (std::is_enum_v<T>) {
    return static_cast<std::underlying_type_t<T>>(value);
  } else if constexpr (std::same_as<T, bool>) {
    return static_cast<std::uint8_t>(value);
  } else {
    return value;
  }
}

template <typename T>
void encode(StateBytes& out, const T& value) {
  if constexpr (Scalar<T>) {
    const auto integer = to_integer(value);
    const auto at = out.size();
    out.resize(at + sizeof integer);
    store_le<decltype(to_integer(value))>(&out[at], integer);
  } else if constexpr (std::same_as<T, std::string>) {
    out.insert(out.end(), value.begin(), value.end());
  } else if constexpr (IsArray<T>::value || IsVector<T>::value) {
    append_u32(out, value.size());
    for (const auto& element : value) {  // the type is named below: elements of vector<bool> are proxies
      if constexpr (Scalar<typename T::value_type>) {
        encode<typename T::value_type>(out, element);
      } else {
        StateBytes payload;
        encode<typename T::value_type>(payload, element);
        append_u32(out, payload.size());
        out.insert(out.end(), payload.begin(), payload.end());
      }
    }
  } else {
    static_assert(Structure<T>,
                  "a state field is an integer, enum, string, array, vector or a struct with fields()");
    T::fields(value, [&](std::string_view name, const auto& field) {
      StateBytes payload;
      encode(payload, field);
      append_field(out, name, payload);
    });
  }
}

using FieldMap = std::map<std::string_view, std::span<const std::uint8_t>>;
/// Splits a struct's bytes into its fields; an error if they are cut short.
Result<FieldMap> split_fields(std::span<const std::uint8_t> bytes);
/// Takes a u32 off the front of `bytes`.
Result<std::uint32_t> take_u32(std::span<const std::uint8_t>& bytes);
std::unexpected<Error> wrong_size();

template <typename T>
Result<void> decode(std::span<const std::uint8_t> bytes, T& value);

template <typename T>
Result<void> decode_elements(std::span<const std::uint8_t> bytes, T& value) {
  const auto count = take_u32(bytes);
  if (!count || *count > bytes.size()) {
    return wrong_size();
  }
  if constexpr (IsArray<T>::value) {
    if (*count != value.size()) {
      return wrong_size();
    }
  } else {
    value.assign(*count, {});
  }
  for (std::size_t i = 0; i < *count; ++i) {
    typename T::value_type element{};
    std::size_t length = 0;
    if constexpr (Scalar<typename T::value_type>) {
      length = sizeof(to_integer(element));
    } else {
      const auto stored = take_u32(bytes);
      if (!stored) {
        return wrong_size();
      }
      length = *stored;
    }
    if (length > bytes.size()) {
      return wrong_size();
    }
    if (auto done = decode(bytes.first(length), element); !done) {
      return done;
    }
    value[i] = element;
    bytes = bytes.subspan(length);
  }
  return bytes.empty() ? Result<void>{} : wrong_size();
}

template <typename T>
Result<void> decode(std::span<const std::uint8_t> bytes, T& value) {
  if constexpr (Scalar<T>) {
    using Integer = decltype(to_integer(value));
    if (bytes.size() != sizeof(Integer)) {
      return wrong_size();
    }
    value = static_cast<T>(load_le<Integer>(bytes.data()));
    return {};
  } else if constexpr (std::same_as<T, std::string>) {
    value.assign(bytes.begin(), bytes.end());
    return {};
  } else if constexpr (IsArray<T>::value || IsVector<T>::value) {
    return decode_elements(bytes, value);
  } else {
    auto map = split_fields(bytes);
    if (!map) {
      return std::unexpected(map.error());
    }
    Result<void> result;
    T loaded = value;
    T::fields(loaded, [&](std::string_view name, auto& field) {
      if (!result) {
        return;
      }
      const auto found = map->find(name);
      if (found == map->end()) {
        result = fail(ErrorCode::kCorrupt, "field '" + std::string(name) + "' is missing");
      } else if (auto done = decode(found->second, field); !done) {
        result = std::unexpected(done.error().within("field '" + std::string(name) + "'"));
      }
    });
    if (result) {
      value = std::move(loaded);
    }
    return result;
  }
}

template <typename T>
void dump(std::string& out, const std::string& path, const T& value) {
  if constexpr (Scalar<T>) {
    out += path + " = " + std::to_string(to_integer(value)) + "\n";
  } else if constexpr (std::same_as<T, std::string>) {
    out += path + " = \"" + value + "\"\n";
  } else if constexpr (IsArray<T>::value || IsVector<T>::value) {
    for (std::size_t i = 0; i < value.size(); ++i) {
      const typename T::value_type element = value[i];
      dump(out, path + "[" + std::to_string(i) + "]", element);
    }
  } else {
    T::fields(value, [&](std::string_view name, const auto& field) {
      dump(out, path.empty() ? std::string(name) : path + "." + std::string(name), field);
    });
  }
}

}  // namespace state_detail

/// Collects what one device saves.
class StateWriter {
 public:
  template <state_detail::Structure T>
  void put(const T& state) {
    state_detail::encode(bytes_, state);
  }
  [[nodiscard]] const StateBytes& bytes() const { return bytes_; }

 private:
  StateBytes bytes_;
};

/// Hands back what StateWriter collected. The bytes may come from a hostile file: a device must still check
/// that loaded indices and lengths are in range before it adopts them.
class StateReader {
 public:
  /// `bytes` must outlive the reader.
  explicit StateReader(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}

  /// Fills `state` from its fields, or leaves it as it was and says which field is wrong.
  template <state_detail::Structure T>
  [[nodiscard]] Result<void> get(T& state) const {
    return state_detail::decode(bytes_, state);
  }

 private:
  std::span<const std::uint8_t> bytes_;
};

/// The state as lines "name = value", for people.
template <state_detail::Structure T>
[[nodiscard]] std::string dump_state(const T& state) {
  std::string out;
  state_detail::dump(out, "", state);
  return out;
}

}  // namespace whistler

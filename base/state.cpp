#include "base/state.hpp"

namespace whistler::state_detail {

void append_u32(StateBytes& out, std::size_t value) {
  const auto at = out.size();
  out.resize(at + sizeof(std::uint32_t));
  store_le<std::uint32_t>(&out[at], static_cast<std::uint32_t>(value));
}

void append_field(StateBytes& out, std::string_view name, const StateBytes& payload) {
  out.push_back(static_cast<std::uint8_t>(name.size()));
  out.insert(out.end(), name.begin(), name.end());
  append_u32(out, payload.size());
  out.insert(out.end(), payload.begin(), payload.end());
}

std::unexpected<Error> wrong_size() { return fail(ErrorCode::kCorrupt, "saved state has the wrong size"); }

Result<std::uint32_t> take_u32(std::span<const std::uint8_t>& bytes) {
  if (bytes.size() < sizeof(std::uint32_t)) {
    return wrong_size();
  }
  const auto value = load_le<std::uint32_t>(bytes.data());
  bytes = bytes.subspan(sizeof(std::uint32_t));
  return value;
}

Result<FieldMap> split_fields(std::span<const std::uint8_t> bytes) {
  FieldMap map;
  while (!bytes.empty()) {
    const std::size_t name_length = bytes[0];
    bytes = bytes.subspan(1);
    if (name_length > bytes.size()) {
      return wrong_size();
    }
    const std::string_view name(reinterpret_cast<const char*>(bytes.data()), name_length);
    bytes = bytes.subspan(name_length);
    const auto length = take_u32(bytes);
    if (!length || *length > bytes.size()) {
      return wrong_size();
    }
    map[name] = bytes.first(*length);
    bytes = bytes.subspan(*length);
  }
  return map;
}

}  // namespace whistler::state_detail

#include "vmm/monitor/key_names.hpp"

#include <algorithm>
#include <array>

namespace whistler {
namespace {

struct NamedKey {
  std::string_view name;
  KeyNumber key;
};

constexpr KeyNumber kGrey = 0x80;  // sent with an E0 prefix

// clang-format off
constexpr auto kKeys = std::to_array<NamedKey>({
    {"esc", 0x01}, {"1", 0x02}, {"2", 0x03}, {"3", 0x04}, {"4", 0x05}, {"5", 0x06}, {"6", 0x07}, {"7", 0x08},
    {"8", 0x09}, {"9", 0x0A}, {"0", 0x0B}, {"minus", 0x0C}, {"equal", 0x0D}, {"backspace", 0x0E}, {"tab", 0x0F},
    {"q", 0x10}, {"w", 0x11}, {"e", 0x12}, {"r", 0x13}, {"t", 0x14}, {"y", 0x15}, {"u", 0x16}, {"i", 0x17},
    {"o", 0x18}, {"p", 0x19}, {"bracket_left", 0x1A}, {"bracket_right", 0x1B}, {"ret", 0x1C}, {"ctrl", 0x1D},
    {"a", 0x1E}, {"s", 0x1F}, {"d", 0x20}, {"f", 0x21}, {"g", 0x22}, {"h", 0x23}, {"j", 0x24}, {"k", 0x25},
    {"l", 0x26}, {"semicolon", 0x27}, {"apostrophe", 0x28}, {"grave_accent", 0x29}, {"shift", 0x2A},
    {"backslash", 0x2B}, {"z", 0x2C}, {"x", 0x2D}, {"c", 0x2E}, {"v", 0x2F}, {"b", 0x30}, {"n", 0x31}, {"m", 0x32},
    {"comma", 0x33}, {"dot", 0x34}, {"slash", 0x35}, {"shift_r", 0x36}, {"kp_multiply", 0x37}, {"asterisk", 0x37},
    {"alt", 0x38}, {"spc", 0x39}, {"caps_lock", 0x3A}, {"f1", 0x3B}, {"f2", 0x3C}, {"f3", 0x3D}, {"f4", 0x3E},
    {"f5", 0x3F}, {"f6", 0x40}, {"f7", 0x41}, {"f8", 0x42}, {"f9", 0x43}, {"f10", 0x44}, {"num_lock", 0x45},
    {"scroll_lock", 0x46}, {"kp_7", 0x47}, {"kp_8", 0x48}, {"kp_9", 0x49}, {"kp_subtract", 0x4A}, {"kp_4", 0x4B},
    {"kp_5", 0x4C}, {"kp_6", 0x4D}, {"kp_add", 0x4E}, {"kp_1", 0x4F}, {"kp_2", 0x50}, {"kp_3", 0x51},
    {"kp_0", 0x52}, {"kp_decimal", 0x53}, {"sysrq", 0x54}, {"less", 0x56}, {"f11", 0x57}, {"f12", 0x58},
    {"ro", 0x73}, {"henkan", 0x79}, {"muhenkan", 0x7B}, {"yen", 0x7D}, {"kp_comma", 0x7E},
    {"kp_enter", 0x1C | kGrey}, {"ctrl_r", 0x1D | kGrey}, {"kp_divide", 0x35 | kGrey}, {"print", 0x37 | kGrey},
    {"alt_r", 0x38 | kGrey}, {"pause", 0x46 | kGrey}, {"home", 0x47 | kGrey}, {"up", 0x48 | kGrey},
    {"pgup", 0x49 | kGrey}, {"left", 0x4B | kGrey}, {"right", 0x4D | kGrey}, {"end", 0x4F | kGrey},
    {"down", 0x50 | kGrey}, {"pgdn", 0x51 | kGrey}, {"insert", 0x52 | kGrey}, {"delete", 0x53 | kGrey},
    {"meta_l", 0x5B | kGrey}, {"meta_r", 0x5C | kGrey}, {"menu", 0x5D | kGrey}, {"compose", 0x5D | kGrey},
    {"power", 0x5E | kGrey}, {"sleep", 0x5F | kGrey}, {"wake", 0x63 | kGrey},
    {"audiomute", 0x20 | kGrey}, {"volumedown", 0x2E | kGrey}, {"volumeup", 0x30 | kGrey},
});
// clang-format on

}  // namespace

std::optional<KeyNumber> key_by_name(std::string_view name) {
  const auto found = std::ranges::find(kKeys, name, &NamedKey::name);
  return found == kKeys.end() ? std::nullopt : std::optional(found->key);
}

}  // namespace whistler

// Typed text in the notation of Packer's boot_command: "root<enter><wait5><leftCtrlOn>c<leftCtrlOff>".
//
// Characters stand for the keys of a US keyboard. Special keys in angle brackets, in any case: <enter>
// <return> <esc> <tab> <bs> <del> <spacebar> <up> <down> <left> <right> <insert> <home> <end> <pageUp>
// <pageDown> <f1> to <f12> <leftCtrl> <rightCtrl> <leftAlt> <rightAlt> <leftShift> <rightShift> <leftSuper>
// <rightSuper> <menu> <capsLock> <numLock> <scrollLock> <printScreen> <pause>. Each also with On and Off
// behind it: pressed or let go only; so does one character: <aOn><aOff>. <wait> is a second, <wait5> and
// <wait5s> five, <wait500ms>, <wait2m>. A "<" that begins none of these is an error; <lt> types one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace whistler::plan {

/// One thing to do: change a key, or wait.
struct Typing {
  std::string key = {};  ///< QMP's name of the key; empty: a wait
  bool down = false;
  double wait = 0;  ///< seconds
  bool operator==(const Typing&) const = default;
};

/// kInvalid, naming the place and the nearest word, for what cannot be typed, and for a key that stays down.
[[nodiscard]] Result<std::vector<Typing>> parse_boot_command(std::string_view text);

/// Keys pressed together and let go in the opposite order: "ctrl-alt-delete", by QMP's names.
[[nodiscard]] Result<std::vector<Typing>> parse_key_chord(std::string_view text);

}  // namespace whistler::plan

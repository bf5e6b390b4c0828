// Exit statuses of `whistler run`, for scripts.
#pragma once

namespace whistler {

inline constexpr int kExitPoweredOff = 0;
inline constexpr int kExitUsage = 2;         ///< arguments or description
inline constexpr int kExitHost = 3;          ///< this host cannot run it
inline constexpr int kExitGuestCrashed = 4;  ///< triple fault, instruction KVM cannot emulate
inline constexpr int kExitTimeout = 124;
inline constexpr int kExitSignalled =
    128;  ///< plus the signal: stopped from outside before the guest powered off

}  // namespace whistler

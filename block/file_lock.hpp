// Image locks as QEMU takes them, so that the two programs keep each other off an image in use.
//
// A program holds "permissions" on an image (what it does) and withholds others (what it cannot bear others
// to do). Each is one byte-range lock of one byte, F_RDLCK with F_OFD_SETLK: byte 100 + n for a held
// permission n, byte 200 + n for a withheld one. Who wants permission n looks whether byte 200 + n is locked,
// who withholds it whether 100 + n is (F_OFD_GETLK). Facts: QEMU, docs/system/qemu-block-drivers "Disk image
// file locking" and what `cat /proc/locks` shows beside a running qemu-io.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/result.hpp"

namespace whistler {

/// Bits of an image permission set; the bit number is the offset of its lock byte.
enum ImagePermission : std::uint8_t {
  kConsistentRead = 1 << 0,
  kWrite = 1 << 1,
  kWriteUnchanged = 1 << 2,
  kResize = 1 << 3,
};

/// Takes the locks on the open file `fd` (they go when it is closed): what is done, and what others must not
/// do. kBusy, naming the holder where it can be found out, if somebody is in the way: none is held then. A
/// file system without such locks is warned about once and taken as unlocked.
///
/// A process that was killed holds its locks for a moment longer: the kernel closes its io_uring, and the
/// files in it, behind its back. Who holds them then is no process any more; that is waited for, blocking, at
/// most `patience`.
[[nodiscard]] Result<void> lock_image(int fd, const std::string& path, std::uint8_t held,
                                      std::uint8_t withheld, std::chrono::milliseconds patience = {});

/// Gives up all of them.
void unlock_image(int fd);

}  // namespace whistler

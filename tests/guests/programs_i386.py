"""Lets this host run 32-bit programs, for making a Debian i386: some kernels refuse them, and QEMU's user mode takes over."""
import contextlib
import os
import subprocess
import tempfile

from store import BuildError, run

MISC = "/proc/sys/fs/binfmt_misc"
NAME = "whistler-i386"
EMULATOR = "/usr/bin/qemu-i386-static"
# The head of an ELF file for the i386: class 1, little-endian, version 1, an executable or shared object of machine 3.
MAGIC = bytes([0x7F, *b"ELF", 1, 1, 1, *[0] * 9, 2, 0, 3, 0])
MASK = bytes([*[0xFF] * 5, 0xFE, 0xFE, 0xFC, *[0xFF] * 8, 0xFE, 0xFF, 0xFF, 0xFF])
# An ELF file of one segment, at 0x08048000, that is all code: mov eax, 1; xor ebx, ebx; int 0x80, which is exit(0).
CODE = bytes.fromhex("b801000000 31db cd80")
BASE, HEADERS = 0x08048000, 52 + 32


def smallest_program():
    def words(*values):
        return b"".join(value.to_bytes(4, "little") for value in values)
    header = MAGIC + words(1, BASE + HEADERS, 52, 0, 0) + bytes([52, 0, 32, 0, 1, 0, 0, 0, 0, 0, 0, 0])
    size = HEADERS + len(CODE)
    return header + words(1, 0, BASE, BASE, size, size, 5, 0x1000) + CODE


def host_runs_them():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "program")
        with open(path, "wb") as file:
            file.write(smallest_program())
        os.chmod(path, 0o755)
        try:
            return subprocess.run([path], check=False).returncode == 0
        except OSError:
            return False


def escaped(data):
    return "".join(f"\\x{byte:02x}" for byte in data)


@contextlib.contextmanager
def programs_i386():
    """While this holds, 32-bit programs run, in a chroot too."""
    if host_runs_them():
        yield
        return
    if not os.path.exists(EMULATOR):
        raise BuildError("this kernel runs no 32-bit programs, and qemu-user-static is not installed")
    mounted = not os.path.exists(os.path.join(MISC, "register"))
    if mounted:
        run("mount", "-t", "binfmt_misc", "binfmt_misc", MISC)
    try:
        # F: the emulator is opened now, so that it need not lie in the chroot.
        with open(os.path.join(MISC, "register"), "w", encoding="ascii") as file:
            file.write(f":{NAME}:M::{escaped(MAGIC)}:{escaped(MASK)}:{EMULATOR}:F")
        try:
            yield
        finally:
            with open(os.path.join(MISC, NAME), "w", encoding="ascii") as file:
                file.write("-1")
    finally:
        if mounted:
            run("umount", MISC)

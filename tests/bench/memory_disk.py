"""A disk in memory: an ext4 file system in a file of /dev/shm behind a loop device.

It answers without waiting, so what a program that bypasses the page cache takes on it is the program's own time and
the kernel's, not a disk's. Needs root, a loop device, and as much free memory as is written.
"""

import contextlib
import os
import subprocess
import tempfile


def _run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@contextlib.contextmanager
def memory_disk(size):
    """The folder where `size` bytes can be written. OSError or CalledProcessError where it cannot be made."""
    with contextlib.ExitStack() as undo:
        backing = undo.enter_context(tempfile.NamedTemporaryFile(prefix="memory_disk-", dir="/dev/shm"))
        os.truncate(backing.name, size)
        _run("mkfs.ext4", "-q", "-F", backing.name)
        folder = undo.enter_context(tempfile.TemporaryDirectory(prefix="memory_disk-"))
        device = _run("losetup", "--find", "--show", backing.name)
        undo.callback(_run, "losetup", "--detach", device)
        _run("mount", device, folder)
        undo.callback(_run, "umount", folder)
        yield folder

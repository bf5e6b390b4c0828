"""The host's disk is full: the guest is paused, says so once, and goes on when there is room."""

import os
import signal
import subprocess
import unittest

from cli_case import CliCase, needs, needs_kvm, needs_root, tool
from monitor import Qmp

BOOT = 240
SECTORS = 48  # written by the guest, one in each cluster

# Writes sector n, filled with n, to the beginning of cluster n of the disk.
WRITER = f"""
    mov si, packet
    mov bp, 1
  next:
    mov ax, bp
    mov di, 0x8000
    mov cx, 256
    mov ah, al
    rep stosw
    mov ax, bp
    shl ax, 7
    mov [si + 8], ax
    mov ax, 0x4300
    mov dl, 0x80
    int 0x13
    mov al, 2
    jc leave
    inc bp
    cmp bp, {SECTORS}
    jbe next
    mov al, 1
  leave:
    out 0xf4, al
  packet: db 16, 0
    dw 1, 0x8000, 0
    dq 0
"""


@needs_kvm
@needs_root
@needs("nasm", "qemu-img", "mount")
class HostDiskFull(CliCase):
    def setUp(self):
        super().setUp()
        self.small = self.path("small")
        self.small.mkdir()
        try:
            tool("mount", "-t", "tmpfs", "-o", "size=2M", "none", self.small)
        except subprocess.CalledProcessError as error:
            self.skipTest(f"no tmpfs can be mounted: {error.stderr}")
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.small)], check=False)
        self.boot_sector(WRITER)
        self.disk = self.small / "disk.qcow2"
        tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", self.path("boot.raw"), self.disk)
        tool("qemu-img", "resize", "-q", self.disk, "64M")
        with open(self.small / "filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                pass
        free = os.statvfs(self.small)
        os.truncate(self.small / "filler", (self.small / "filler").stat().st_size // 4096 * 4096 - (16 - free.f_bavail) * 4096)

    def paused(self, cache="writeback", *arguments, meanwhile=lambda: None):
        machine = self.machine(memory="32M", drives=[{"id": "hda", "file": str(self.disk), "format": "qcow2", "cache": cache}],
                               debug={"exit_port": "0xf4"})
        errors = self.path("errors")
        with open(errors, "w", encoding="utf-8") as file:
            process = self.start("run", machine, "--timeout", str(BOOT), *arguments, stderr=file)
        meanwhile()
        self.until("the pause", lambda: "paused" in errors.read_text() or process.poll() is not None, BOOT)
        self.assertIsNone(process.poll(), errors.read_text())
        self.assertIn("disk.qcow2", errors.read_text())
        return process, errors

    def assert_sound(self):
        check = subprocess.run(["qemu-img", "check", str(self.disk)], capture_output=True, text=True, check=False)
        self.assertEqual(check.returncode, 0, check.stdout + check.stderr)

    def data(self):
        tool("qemu-img", "convert", "-f", "qcow2", "-O", "raw", self.disk, self.path("out.raw"))
        with open(self.path("out.raw"), "rb") as file:
            found = []
            for n in range(1, SECTORS + 1):
                file.seek(n << 16)
                found.append(file.read(512) == bytes([n]) * 512)
            return found

    def test_goes_on_when_there_is_room(self):
        process, errors = self.paused()
        with self.assertRaises(subprocess.TimeoutExpired):
            process.wait(4)
        self.assertEqual(errors.read_text().count("paused"), 1, errors.read_text())
        tool("mount", "-o", "remount,size=16M", self.small)
        self.assertEqual(process.wait(BOOT), 3, errors.read_text())
        self.assertIn("room again", errors.read_text())
        self.assert_sound()
        self.assertEqual(self.data(), [True] * SECTORS)

    def test_goes_on_from_one_full_disk_to_the_next(self):
        process, errors = self.paused()
        os.truncate(self.small / "filler", (self.small / "filler").stat().st_size - 16 * 4096)
        self.until("the second pause", lambda: errors.read_text().count("paused") == 2, BOOT)
        (self.small / "filler").unlink()
        tool("mount", "-o", "remount,size=16M", self.small)
        self.assertEqual(process.wait(BOOT), 3, errors.read_text())
        self.assert_sound()
        self.assertEqual(self.data(), [True] * SECTORS)

    def test_monitor_is_told(self):
        clients = []

        def connect():
            self.until("the monitor", lambda: self.path("qmp").exists())
            clients.append(Qmp(self.path("qmp")))
            clients[0].ask("qmp_capabilities")

        process, errors = self.paused("writeback", "--qmp", f"unix:{self.path('qmp')},server", meanwhile=connect)
        client = clients[0]
        self.addCleanup(client.close)
        failed = client.event("BLOCK_IO_ERROR")["data"]
        self.assertEqual(failed, {"device": "hda", "node-name": "hda", "operation": "write", "action": "stop", "nospace": True,
                                  "reason": "No space left on device"})
        client.event("STOP")
        self.assertEqual(client.ask("query-status")["return"]["status"], "io-error")
        tool("mount", "-o", "remount,size=16M", self.small)
        client.event("RESUME")
        self.assertEqual(process.wait(BOOT), 3, errors.read_text())

    def test_stopped_while_paused(self):
        process, errors = self.paused()
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(30), 128 + signal.SIGTERM, errors.read_text())
        (self.small / "filler").unlink()
        self.assert_sound()
        found = self.data()
        self.assertTrue(found[0])
        self.assertEqual(found, sorted(found, reverse=True), "a later write is there, an earlier one is not")


if __name__ == "__main__":
    unittest.main()

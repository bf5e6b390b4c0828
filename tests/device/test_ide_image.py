"""A qcow2 image behind the IDE registers: thousands of random requests against a model, and against QEMU's tools."""

import os
import random
import shutil
import subprocess
import time
import unittest

import qtest
from device_test import DeviceTest

SECTORS = 64 * 1024 * 1024 // 512
BUS_MASTER = 0xC000
BUFFER = 0x100000
LONGEST = 64  # sectors a request
SECONDS = float(os.environ.get("IDE_IMAGE_SECONDS", "30"))
SEED = int(os.environ.get("IDE_IMAGE_SEED", "1"))


def tool(*arguments):
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout


@unittest.skipUnless(shutil.which("qemu-io"), "needs qemu-img and qemu-io (Debian: qemu-utils)")
class IdeImageTest(DeviceTest):
    """The model is a raw file's worth of bytes; every read is compared with it at once, the image at the end."""

    def options(self):
        self.random = random.Random(SEED)
        self.image, base = self.images / "disk.qcow2", self.images / "base.qcow2"
        # A base with data, zeroes and nothing in it; the overlay then starts with some clusters of its own.
        self.model = bytearray(SECTORS * 512)
        for image, extra in ((base, ()), (self.image, ("-b", str(base), "-F", "qcow2"))):
            tool("qemu-img", "create", "-q", "-f", "qcow2", *extra, str(image), str(SECTORS * 512))
            for _ in range(40):
                offset, size = self.random.randrange(SECTORS - 512) * 512, self.random.randint(1, 512) * 512
                fill = self.random.randrange(256)
                how = f"-P {fill:#x}" if fill & 3 else "-z"
                tool("qemu-io", "-f", "qcow2", "-c", f"write -q {how} {offset} {size}", str(image))
                self.model[offset:offset + size] = bytes([fill if fill & 3 else 0]) * size
        return {"disks": [self.image]}

    def setUp(self):
        super().setUp()
        function = qtest.PciDevice(self.machine, 1, 1)
        function.place_bar(4, BUS_MASTER)
        function.writew(4, 5)
        for timing in (0x40, 0x42):
            function.writew(timing, 0x8000)
        self.disk = qtest.IdeChannel(self.machine, 0x1F0, 0x3F6, BUS_MASTER)
        self.disk.command(0xC6, count=16)  # SET MULTIPLE MODE
        self.assertEqual(self.disk.wait_idle() & 0x89, 0)

    def issue(self, commands, ext, lba, count):
        send = self.disk.command_ext if ext else self.disk.command
        send(commands[ext], lba=lba, count=count)

    def blocks(self, count, block):
        return [min(block, count - done) for done in range(0, count, block)]

    def read_pio(self, ext, lba, count, multiple):
        self.issue((0xC4, 0x29) if multiple else (0x20, 0x24), ext, lba, count)
        data = b""
        for sectors in self.blocks(count, 16 if multiple else 1):
            self.assertEqual(self.disk.wait_idle() & 0x89, 0x08)
            data += self.disk.read_words(256 * sectors)
        self.assertEqual(self.disk.wait_idle() & 0x89, 0)
        return data

    def write_pio(self, ext, lba, data, multiple):
        count = len(data) // 512
        self.issue((0xC5, 0x39) if multiple else (0x30, 0x34), ext, lba, count)
        done = 0
        for sectors in self.blocks(count, 16 if multiple else 1):
            self.assertEqual(self.disk.wait_idle() & 0x89, 0x08)
            self.disk.write_words(data[done:done + 512 * sectors])
            done += 512 * sectors
        self.assertEqual(self.disk.wait_idle() & 0x89, 0)

    def regions(self, size):
        """Scattered pieces of an even length that add up to `size`, none across 64 KiB."""
        pieces, at = [], BUFFER
        while size:
            at += self.random.randrange(0, 64, 2)
            length = min(size, self.random.choice((512, 4096, 65536, 2 * self.random.randint(1, 2000))), 0x10000 - at % 0x10000)
            pieces.append((at, length))
            at, size = at + length, size - length
        return pieces

    def read_dma(self, ext, lba, count):
        regions = self.regions(count * 512)
        status, master = self.disk.dma((0xC8, 0x25)[ext], regions, True, lba=lba, count=count, ext=ext)
        self.assertEqual((status & 0x89, master & 7), (0, 4))
        return b"".join(self.machine.b64read(address, length) for address, length in regions)

    def write_dma(self, ext, lba, data):
        regions, done = self.regions(len(data)), 0
        for address, length in regions:
            self.machine.b64write(address, data[done:done + length])
            done += length
        status, master = self.disk.dma((0xCA, 0x35)[ext], regions, False, lba=lba, count=len(data) // 512, ext=ext)
        self.assertEqual((status & 0x89, master & 7), (0, 4))

    def flush(self):
        self.disk.command(self.random.choice((0xE7, 0xEA)))
        self.assertEqual(self.disk.wait_idle() & 0x21, 0)

    def compare_from_outside(self, tries=4):
        """What was flushed is in the file, for a reader that does not lock it."""
        for _ in range(tries):
            offset = self.random.randrange(SECTORS - 2048) * 512
            for start in range(offset, offset + 1024 * 512, 4096):
                expected = self.model[start:start + 4096]
                if expected.count(expected[0]) == len(expected):
                    answer = tool("qemu-io", "-r", "-U", "-f", "qcow2", "-c",
                                  f"read -P {expected[0]:#x} {start} 4096", str(self.image))
                    self.assertNotIn("verification failed", answer, f"at {start:#x}")
                    break

    def request(self):
        """One read or write at a random place; how it was made, and its size in sectors."""
        how, ext, write = self.random.choice(("pio", "multiple", "dma", "dma")), self.random.random() < 0.5, \
            self.random.random() < 0.5
        # Small ones most of the time, as a guest's; PIO is slow here.
        count = self.random.randint(1, self.random.choice((1, 8, LONGEST if how == "dma" else 20)))
        hot = self.random.random() < 0.5
        lba = self.random.randrange(4096 if hot else SECTORS - count)
        place = slice(lba * 512, (lba + count) * 512)
        if write:
            kind = self.random.random()
            data = bytes(count * 512) if kind < 0.1 else bytes([self.random.randrange(256)]) * (count * 512) \
                if kind < 0.3 else self.random.randbytes(count * 512)
            if how == "dma":
                self.write_dma(ext, lba, data)
            else:
                self.write_pio(ext, lba, data, how == "multiple")
            self.model[place] = data
        else:
            data = self.read_dma(ext, lba, count) if how == "dma" else self.read_pio(ext, lba, count, how == "multiple")
            self.assertTrue(data == self.model[place], f"{how} read of {count} sectors at {lba}, 48-bit: {ext}")
        return f"{how} {'write' if write else 'read'}", count

    def test_random_requests_leave_what_qemu_reads(self):
        end, requests, sectors, since_look = time.monotonic() + SECONDS, {}, 0, 0
        while time.monotonic() < end:
            kind, count = self.request()
            requests[kind] = requests.get(kind, 0) + 1
            sectors += count
            since_look += 1
            if since_look == 500:
                since_look = 0
                self.flush()
                self.compare_from_outside()
        self.flush()
        self.compare_from_outside()
        self.assertEqual(self.machine.stop(), 0)

        check = tool("qemu-img", "check", "-f", "qcow2", str(self.image))
        self.assertIn("No errors were found", check)
        raw, model = self.images / "out.raw", self.images / "model.raw"
        tool("qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(self.image), str(raw))
        self.assertTrue(raw.read_bytes() == self.model, "the image's contents differ from what was written")
        model.write_bytes(self.model)
        self.assertIn("identical", tool("qemu-img", "compare", "-f", "qcow2", "-F", "raw", str(self.image), str(model)))
        each = ", ".join(f"{count} {kind}s" for kind, count in sorted(requests.items()))
        print(f"\n{sum(requests.values())} requests of {sectors} sectors: {each}")

"""Guests booted by Whistler, for what a plan (tests/boot/plans) cannot say: keys and pictures by VNC, and what other
programs find on the disk.

Every test says where it can run: ANY KVM (also one that only emulates) or only a REAL one. tests/boot/run finds out
what there is and takes the lab where it must.
"""
import hashlib
import os
import shutil
import subprocess
import tempfile
import unittest

import guest
from guest import Guest

import assembled  # noqa: F401  (importing registers the guests)
import debian     # noqa: F401
import disks      # noqa: F401
from disks import PARTITION_START
from store import SECTOR, make

WHISTLER = os.environ.get("WHISTLER", os.path.join(guest.ROOT, "build", "release", "vmm", "whistler"))
KEEP = os.environ.get("WHISTLER_KEEP", os.path.join(tempfile.gettempdir(), "whistler-boot"))


def needs(place, seconds, guests=()):
    """What a test needs: "any" or "real" KVM; how long it may take in the lab; guests that must be made before."""
    def mark(function):
        function.place, function.seconds, function.guests = place, seconds, guests
        return function
    return mark


def disk(path):
    return {"id": "hda", "interface": "ide", "bus": 0, "unit": 0, "media": "disk", "file": path, "format": "qcow2"}


class BootTest(unittest.TestCase):
    def setUp(self):
        self.work = tempfile.mkdtemp(prefix="whistler-boot-")
        self.addCleanup(shutil.rmtree, self.work, ignore_errors=True)
        self.keep = os.path.join(KEEP, self._testMethodName)
        os.makedirs(self.keep, exist_ok=True)

    def start(self, description, arguments=()):
        return Guest(WHISTLER, self.work, self.keep, description, arguments)

    def overlay(self, name):
        """A disk that may be written to, on top of the guest `name`."""
        path = os.path.join(self.work, "disk.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", make(name), "-F", "qcow2", path], check=True)
        return path

    def check_disk(self, path):
        """The image is whole: qemu-img finds neither errors nor leaks."""
        done = subprocess.run(["qemu-img", "check", "-f", "qcow2", path], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class Assembled(BootTest):
    @needs("any", 180, ["demo.qcow2"])
    def test_demo_shows_its_screen_echoes_keys_and_powers_off(self):
        with self.start({"memory": "64M", "drives": [disk(self.overlay("demo.qcow2"))]}) as machine:
            machine.wait_screen("Type something", 120)
            machine.wait_serial("Memory +64 MiB usable", 30)
            machine.screenshot("demo")
            machine.screen.type("Hello @ Whistler\n", pause=0.1)
            machine.wait_screen("Hello @ Whistler", 30)
            machine.wait_serial("Hello @ Whistler", 30)
            machine.send_serial("from the serial line")
            machine.wait_screen("from the serial line", 30)
            machine.screenshot("demo-typed")
            machine.screen.key("esc")
            machine.wait_end(0, 30)


class Debian(BootTest):
    """A whole system on a disk writes files, and other programs than the guest and Whistler read them."""

    @staticmethod
    def boot(machine):
        machine.wait_serial("boot: ", 120)
        machine.send_serial("686\n")
        machine.wait_serial("automatic login", 600)
        machine.wait_serial("# ", 120)

    def write_and_power_off(self, cores, megabytes, ide="piix3"):
        path = self.overlay("debian-i386.qcow2")
        description = {"memory": "384M", "cpu": {"cores": cores}, "machine": {"ide": ide}, "drives": [disk(path)]}
        # The PIIX3 (8086:7010) knows no UltraDMA, and ata_piix takes it at its word: multiword DMA is the best.
        mode = {"piix3": "XFER_MW_DMA_2", "piix4": "XFER_UDMA_2"}[ide]
        with self.start(description) as machine:
            self.boot(machine)
            self.assertEqual(machine.shell("nproc", 120).split()[-1], str(cores))
            self.assertIn(mode, machine.shell("cat /sys/class/ata_device/dev1.0/dma_mode", 60))
            machine.shell(f"fill-disk {megabytes}", 600)
            machine.send_serial("poweroff\n")
            machine.wait_end(0, 240)
        self.check_disk(path)
        self.check_files(path, megabytes)

    def check_files(self, path, megabytes):
        """The files the guest wrote have the checksums the guest computed, read through qemu-img."""
        raw = os.path.join(self.work, "disk.raw")
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw], check=True)
        files = os.path.join(self.work, "files")
        os.makedirs(files)
        subprocess.run(["debugfs", "-R", f"rdump /srv {files}", f"{raw}?offset={PARTITION_START * SECTOR}"], check=True,
                       capture_output=True)
        with open(os.path.join(files, "srv", "SHA256SUMS"), encoding="ascii") as sums:
            lines = [line.split() for line in sums]
        self.assertEqual(len(lines), megabytes // 10)
        for expected, name in lines:
            with open(os.path.join(files, "srv", name), "rb") as file:
                self.assertEqual(hashlib.sha256(file.read()).hexdigest(), expected, name)

    @needs("real", 1200, ["debian-i386.qcow2"])
    def test_debian_i386_writes_200_mb_and_powers_off_with_its_disk_whole(self):
        self.write_and_power_off(1, 200, ide="piix4")

    @needs("real", 1200, ["debian-i386.qcow2"])
    def test_debian_i386_with_two_vcpus_writes_and_powers_off(self):
        self.write_and_power_off(2, 40)


if __name__ == "__main__":
    unittest.main()

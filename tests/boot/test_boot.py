"""Guests nobody here wrote, and a few that were, booted by Whistler.

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
from guest import Guest, installed_file

import assembled  # noqa: F401  (importing registers the guests)
import debian     # noqa: F401
import discs      # noqa: F401
import disks      # noqa: F401
from disks import PARTITION_START
from store import SECTOR, make

WHISTLER = os.environ.get("WHISTLER", os.path.join(guest.ROOT, "build", "release", "vmm", "whistler"))
KEEP = os.environ.get("WHISTLER_KEEP", os.path.join(tempfile.gettempdir(), "whistler-boot"))
INSTALLER = "/usr/lib/debian-installer/images/12/{0}/text/debian-installer/{0}"


def needs(place, seconds, guests=(), short=False):
    """What a test needs: "any" or "real" KVM; how long it may take in the lab; guests that must be made before.
    `short`: it belongs to the selection of ./test, as all do that any KVM can run."""
    def mark(function):
        function.place, function.seconds, function.guests = place, seconds, guests
        function.short = short or place == "any"
        return function
    return mark


def disk(path):
    return {"id": "hda", "interface": "ide", "bus": 0, "unit": 0, "media": "disk", "file": path, "format": "qcow2"}


def cdrom(path):
    return {"id": "cd0", "interface": "ide", "bus": 1, "unit": 0, "media": "cdrom", "file": path, "format": "raw"}


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
    @needs("any", 120, ["hello.qcow2"])
    def test_boot_sector_from_qcow2_says_hello_and_leaves(self):
        path = self.overlay("hello.qcow2")
        with self.start({"drives": [disk(path)]}) as machine:
            machine.wait_end(85, 90)
            with open(machine.debug_path, "rb") as file:
                self.assertIn(b"HELLO\r\n", file.read())
        self.check_disk(path)

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

    @needs("any", 60, ["multiboot.elf"])
    def test_multiboot_kernel_without_firmware_leaves_by_exit_port(self):
        boot = {"kernel": make("multiboot.elf"), "cmdline": "hello from the description"}
        with self.start({"boot": boot}) as machine:
            machine.wait_end(33, 30)
            with open(machine.debug_path, "rb") as file:
                self.assertIn(b"hello from the description", file.read())


class Grub(BootTest):
    def follow_menu(self, machine):
        machine.wait_screen_size(1024, 768, 240)
        machine.wait_serial("Multiboot kernel that leaves", 60)
        machine.screen.wait_still(3, 60)
        machine.screenshot("grub-1024x768")
        machine.screen.key("down")
        machine.screen.key("enter")
        machine.wait_screen_size(800, 600, 60)
        machine.wait_serial("Whistler: GRUB in mode 800x600x32", 60)
        machine.screen.wait_still(3, 60)
        machine.screenshot("grub-800x600")
        for _ in range(5):
            machine.screen.key("down")
            machine.wait_serial(r"\*", 30)
        machine.screen.key("enter")
        machine.wait_serial("multiboot kernel started: from-grub", 60)
        machine.wait_end(33, 30)

    @needs("real", 480, ["grub.qcow2"])
    def test_grub_from_disk_shows_graphics_menu_and_starts_multiboot_kernel(self):
        with self.start({"drives": [disk(self.overlay("grub.qcow2"))]}) as machine:
            self.follow_menu(machine)

    @needs("real", 480, ["grub.iso"])
    def test_grub_from_cd_shows_graphics_menu_and_starts_multiboot_kernel(self):
        with self.start({"boot": {"order": ["cdrom"]}, "drives": [cdrom(make("grub.iso"))]}) as machine:
            self.follow_menu(machine)


class Memtest(BootTest):
    @needs("real", 480, ["memtest-i386.iso"])
    def test_memtest_from_cd_runs_its_first_tests(self):
        drives = [cdrom(make("memtest-i386.iso"))]
        with self.start({"memory": "32M", "boot": {"order": ["cdrom"]}, "drives": drives}) as machine:
            machine.wait_screen("Memtest86", 180)
            machine.wait_screen(r"Test +[^\n]*#[1-9]", 240)
            machine.screenshot("memtest")
            self.assertNotRegex("\n".join(machine.screen_text()), r"Errors: +[1-9]")


class Installer(BootTest):
    def reach_dialogs(self, architecture):
        iso = make(f"installer-{architecture}.iso")
        # With 768 MiB the amd64 installer begins with a dialog about too little memory.
        with self.start({"memory": "1024M", "boot": {"order": ["cdrom"]}, "drives": [cdrom(iso)]}) as machine:
            machine.wait_screen("Select a language", 600)
            machine.screen.wait_still(2, 30)
            machine.screenshot("first-dialog")
            machine.screen.key("down")
            machine.wait_screen_change(30)
            machine.screen.key("up")  # back on English, so that the next dialog can be read here
            machine.wait_screen_change(30)
            machine.screen.key("enter")
            machine.wait_screen("Select your location", 240)
            machine.screen.wait_still(2, 30)
            machine.screenshot("second-dialog")

    @needs("real", 900, ["installer-i386.iso"], short=True)
    def test_installer_i386_from_cd_reaches_dialogs_driven_by_keys(self):
        self.reach_dialogs("i386")

    @needs("real", 900, ["installer-amd64.iso"])
    def test_installer_amd64_from_cd_reaches_dialogs_driven_by_keys(self):
        self.reach_dialogs("amd64")


class DirectBoot(BootTest):
    def reach_shell(self, architecture, machine_word):
        folder = INSTALLER.format(architecture)
        boot = {"kernel": installed_file(os.path.join(folder, "linux"), f"debian-installer-12-netboot-{architecture}"),
                "initrd": os.path.join(folder, "initrd.gz"),
                "cmdline": "console=ttyS0,115200 rdinit=/bin/sh quiet"}
        with self.start({"memory": "512M", "boot": boot, "on": {"reboot": "exit"}}) as machine:
            machine.wait_serial("# ", 300)
            machine.send_serial("\n")
            self.assertRegex(machine.shell("uname -m", 60), machine_word)
            machine.send_serial("reboot -f\n")
            machine.wait_end(0, 60)

    @needs("real", 480, short=True)
    def test_bzimage_i386_without_firmware_gives_a_shell_on_the_serial_line(self):
        self.reach_shell("i386", "i686")

    @needs("real", 480)
    def test_bzimage_amd64_without_firmware_gives_a_shell_on_the_serial_line(self):
        self.reach_shell("amd64", "x86_64")


class Debian(BootTest):
    """A whole system on a disk: boots by EXTLINUX, systemd, root's shell on the serial line."""

    def boot(self, machine, kernel="686"):
        machine.wait_serial("boot: ", 120)
        machine.send_serial(f"{kernel}\n")
        self.wait_login(machine)

    @staticmethod
    def wait_login(machine):
        machine.wait_serial("automatic login", 600)
        machine.wait_serial("# ", 120)

    def write_and_power_off(self, kernel, cores, megabytes, ide="piix3"):
        path = self.overlay("debian-i386.qcow2")
        description = {"memory": "384M", "cpu": {"cores": cores}, "machine": {"ide": ide}, "drives": [disk(path)]}
        # The PIIX3 (8086:7010) knows no UltraDMA, and ata_piix takes it at its word: multiword DMA is the best.
        mode = {"piix3": "XFER_MW_DMA_2", "piix4": "XFER_UDMA_2"}[ide]
        with self.start(description) as machine:
            self.boot(machine, kernel)
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
        self.write_and_power_off("686", 1, 200, ide="piix4")

    @needs("real", 1200, ["debian-i386.qcow2"])
    def test_debian_i386_with_two_vcpus_writes_and_powers_off(self):
        self.write_and_power_off("686", 2, 40)

    @needs("real", 1200, ["debian-i386.qcow2"])
    def test_debian_amd64_kernel_writes_and_powers_off(self):
        self.write_and_power_off("amd64", 1, 40)

    @needs("real", 1500, ["debian-i386.qcow2"])
    def test_debian_i386_warm_reboot_then_power_button(self):
        path = self.overlay("debian-i386.qcow2")
        with self.start({"memory": "384M", "drives": [disk(path)]}) as machine:
            self.boot(machine)
            machine.screenshot("login")
            machine.send_serial("reboot\n")
            self.boot(machine)
            machine.shell("systemctl is-active acpid", 60)
            machine.press_power_button()
            machine.wait_end(0, 240)
        self.check_disk(path)


if __name__ == "__main__":
    unittest.main()

"""What the board tells a BIOS in CMOS and fw_cfg, and the device of kvm-unit-tests."""

import os
import struct
import time

import qtest
from device_test import DeviceTest

SMALL, LARGE = 61440, 8388608  # sectors: 30 MiB and 4 GiB
PARTITION_LBA = bytes((0x80, 1, 1, 0, 6, 127, 63, 0)) + struct.pack("<II", 63, 8001)  # ends at head 127
PARTITION_CHS = bytes((0x80, 1, 1, 0, 6, 15, 63, 7)) + struct.pack("<II", 63, 8001)  # ends at head 15


class BoardTest(DeviceTest):
    def start(self, **options):
        """The machine of this test, once it knows what it wants."""
        self.machine.stop()
        self.machine = qtest.Machine(os.environ["QTEST_PROGRAM"], **options)
        self.rtc = qtest.Rtc(self.machine)

    def boot_order(self):
        return self.rtc[0x3D] << 8 | self.rtc[0x38]

    def test_boot_order_is_in_cmos_and_floppies_are_checked(self):
        self.start(more={"boot": {"order": ["disk", "floppy", "cdrom"]}}, qemu_more=["-boot", "cad"])
        self.assertEqual(self.boot_order(), 0x1230)
        self.start(more={"boot": {"order": ["network", "cdrom", "floppy"]}}, qemu_more=["-boot", "nda"])
        self.assertEqual(self.boot_order(), 0x3410)
        self.start(more={"boot": {"order": [], "floppy_check": False}}, qemu_more=["-boot", "order=", "-no-fd-bootchk"])
        self.assertEqual(self.boot_order(), 0x0001)

    def test_boot_once_lasts_until_the_first_reset(self):
        if self.machine.is_qemu:
            self.skipTest("a reset wants a running processor there")
        self.start(more={"boot": {"once": ["cdrom"], "order": ["disk"]}}, disks=[self.disk(SMALL)])
        self.assertEqual(self.boot_order(), 0x0300)
        self.machine.outb(0xCF9, 6)
        self.machine.wait(lambda: self.boot_order() == 0x0200, "reset")

    def disk(self, sectors, partition=b""):
        path = self.images / f"disk{time.monotonic_ns()}.raw"
        with open(path, "wb") as file:
            file.truncate(sectors * 512)
            if partition:
                file.seek(446)
                file.write(partition)
                file.seek(510)
                file.write(b"\x55\xaa")
        return path

    def geometry(self, base):
        """Cylinders, heads and sectors, from the nine bytes at `base`."""
        return self.rtc[base] | self.rtc[base + 1] << 8, self.rtc[base + 2], self.rtc[base + 8]

    def test_disks_are_shown_as_their_partitions_were_made(self):
        for partition, translations in ((b"", 0b0100), (PARTITION_LBA, 0b0110), (PARTITION_CHS, 0b0000)):
            with self.subTest(partition=partition.hex()):
                self.start(disks=[self.disk(SMALL, partition), self.disk(LARGE, partition)])
                self.assertEqual(self.rtc[0x39], translations)
                self.assertEqual(self.geometry(0x1B), (60, 16, 63))
                self.assertEqual(self.geometry(0x24), (8322, 16, 63))

    def test_geometry_of_an_odd_disk_is_the_drives_too(self):
        partition = bytes((0x80, 1, 1, 0, 6, 3, 32, 100)) + struct.pack("<II", 32, 8001)
        self.start(disks=[self.disk(SMALL, partition)])
        self.assertEqual(self.geometry(0x1B), (480, 4, 32))
        channel = qtest.IdeChannel(self.machine, 0x1F0, 0x3F6)
        channel.command(0xEC)
        channel.wait_idle()
        words = struct.unpack("<256H", channel.read_words(256))
        self.assertEqual((words[1], words[3], words[6]), (480, 4, 32))

    def test_device_of_kvm_unit_tests(self):
        self.start(more={"debug": {"testdev": True}}, qemu_more=["-device", "pc-testdev"])
        self.machine.outl(0xE0, 0x87654321)
        self.assertEqual([self.machine.inb(0xE8 + i) for i in range(4)], [0x21, 0x43, 0x65, 0x87])
        self.machine.outw(0xEA, 0x8866)
        self.assertEqual(self.machine.inl(0xE0), 0x88664321)
        self.machine.writel(0xFF000010, 0xCAFEBABE)
        self.assertEqual(self.machine.readl(0xFF000010), 0xCAFEBABE)
        self.machine.writel(0x5000, 0x1234)
        self.machine.outl(0xE4, 0x5000)
        self.assertEqual(self.machine.readl(0x5000), 0x1234)
        if not self.machine.is_qemu:
            self.machine.irq_intercept_in("ioapic")
            self.machine.outb(0x2000 + 14, 1)
            self.machine.outb(0x2000 + 20, 1)
            self.assertTrue(self.machine.levels[14])
            self.assertTrue(self.machine.levels[20])
            self.machine.outb(0x2000 + 14, 0)
            self.assertFalse(self.machine.levels[14])

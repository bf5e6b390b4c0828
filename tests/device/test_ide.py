"""PIIX3 IDE: ATA disk by PIO and DMA, ATAPI CD-ROM, errors and interrupts."""

import struct

import qtest
from device_test import DeviceTest, pattern

SECTORS = 2048
BUS_MASTER = 0xC000


class IdeTest(DeviceTest):
    def options(self):
        disk, cdrom = self.images / "disk.raw", self.images / "cd.iso"
        disk.write_bytes(b"".join(pattern(sector) for sector in range(SECTORS)))
        cdrom.write_bytes(b"".join(pattern(sector, 2048) for sector in range(64)))
        return {"disks": [disk], "cdrom": cdrom}

    def setUp(self):
        super().setUp()
        ide = qtest.PciDevice(self.machine, 1, 1)
        ide.place_bar(4, BUS_MASTER)
        ide.writew(4, 5)
        for timing in (0x40, 0x42):
            ide.writew(timing, 0x8000)
        self.disk = qtest.IdeChannel(self.machine, 0x1F0, 0x3F6, BUS_MASTER)
        self.cdrom = qtest.IdeChannel(self.machine, 0x170, 0x376, BUS_MASTER + 8)

    def test_identify_tells_the_size(self):
        self.disk.command(0xEC)
        self.assertEqual(self.disk.wait_idle(), 0x58)
        words = struct.unpack("<256H", self.disk.read_words(256))
        self.assertEqual(words[60] | words[61] << 16, SECTORS)
        self.assertEqual(words[49] & 0x300, 0x300)  # LBA and DMA
        self.assertEqual(self.disk.status() & 0x89, 0)

    def test_absent_unit_has_no_status(self):
        self.disk.select(1)
        self.assertEqual(self.disk.status(), 0)

    def test_sector_is_read_by_pio(self):
        for lba in (0, 1, SECTORS - 1):
            self.assertEqual(self.disk.read_sector_pio(lba), pattern(lba))

    def test_sectors_are_read_in_one_command(self):
        self.disk.command(0x20, lba=10, count=3)
        data = b""
        for _ in range(3):
            self.disk.wait_idle()
            data += self.disk.read_words(256)
        self.assertEqual(data, pattern(10) + pattern(11) + pattern(12))

    def test_sector_written_by_pio_reads_back_and_reaches_the_image(self):
        data = bytes(reversed(pattern(5)))
        self.disk.write_sector_pio(5, data)
        self.disk.command(0xE7)
        self.assertEqual(self.disk.wait_idle() & 0x21, 0)
        self.assertEqual(self.disk.read_sector_pio(5), data)
        self.assertEqual((self.images / "disk.raw").read_bytes()[5 * 512:6 * 512], data)

    def test_sectors_are_read_by_dma_into_several_regions(self):
        drive, master = self.disk.dma(0xC8, [(0x10000, 512), (0x20000, 1024), (0x30002, 512)], True, lba=100, count=4)
        self.assertEqual((drive & 0xC9, master & 7), (0x40, 4))
        data = self.machine.read(0x10000, 512) + self.machine.read(0x20000, 1024) + self.machine.read(0x30002, 512)
        self.assertEqual(data, b"".join(pattern(sector) for sector in range(100, 104)))

    def test_sectors_written_by_dma_read_back(self):
        data = b"".join(bytes(reversed(pattern(sector))) for sector in range(2))
        self.machine.write(0x40000, data)
        drive, _ = self.disk.dma(0xCA, [(0x40000, 1024)], False, lba=7, count=2)
        self.assertEqual(drive & 0x89, 0)
        self.assertEqual(self.disk.read_sector_pio(7) + self.disk.read_sector_pio(8), data)

    def test_interrupt_goes_up_and_is_acknowledged_by_status(self):
        self.machine.irq_intercept_in("ioapic")
        self.disk.command(0xEC)
        self.machine.wait(lambda: self.machine.levels.get(14), "IRQ 14")
        self.disk.alternate_status()
        self.assertTrue(self.machine.levels[14])
        self.disk.status()
        self.assertFalse(self.machine.levels[14])

    def test_unknown_command_is_aborted(self):
        self.disk.command(0x09)
        self.assertEqual(self.disk.wait_idle() & 0x89, 0x01)
        self.assertEqual(self.disk.error() & 0x04, 0x04)

    def test_read_past_the_end_fails(self):
        self.disk.command(0x20, lba=SECTORS, count=1)
        self.assertEqual(self.disk.wait_idle() & 0x89, 0x01)

    def test_software_reset_shows_the_signatures(self):
        for channel, signature in ((self.disk, (1, 1, 0, 0)), (self.cdrom, (1, 1, 0x14, 0xEB))):
            self.machine.outb(channel.control, 4)
            self.machine.outb(channel.control, 0)
            channel.machine.wait(lambda ch=channel: not ch.alternate_status() & 0x80, "end of reset")
            channel.select(0)
            self.assertEqual(tuple(self.machine.inb(channel.base + offset) for offset in (2, 3, 4, 5)), signature)

    def packet(self, command, limit):
        """A PIO packet command that reads; the status after the packet, the data."""
        self.cdrom.select(0)
        self.machine.outb(self.cdrom.base + 1, 0)
        self.machine.outb(self.cdrom.base + 4, limit & 0xFF)
        self.machine.outb(self.cdrom.base + 5, limit >> 8)
        self.machine.outb(self.cdrom.base + 7, 0xA0)
        self.cdrom.wait_idle()
        self.cdrom.write_words(command.ljust(12, b"\0"))
        data = b""
        while (status := self.cdrom.wait_idle()) & 0x08:
            size = self.machine.inb(self.cdrom.base + 4) | self.machine.inb(self.cdrom.base + 5) << 8
            data += self.cdrom.read_words(size // 2)
        return status, data

    def test_cdrom_is_identified_as_packet_device(self):
        self.cdrom.command(0xEC)
        self.assertEqual(self.cdrom.wait_idle() & 0x01, 0x01)
        self.assertEqual((self.machine.inb(0x174), self.machine.inb(0x175)), (0x14, 0xEB))
        self.cdrom.command(0xA1)
        self.cdrom.wait_idle()
        words = struct.unpack("<256H", self.cdrom.read_words(256))
        self.assertEqual(words[0] & 0xDF00, 0x8500)

    def ready(self):
        """Takes the unit attentions of a fresh medium away."""
        def test_unit():
            if not self.packet(b"\x00", 0)[0] & 1:
                return True
            self.packet(b"\x03\0\0\0\x12", 18)  # REQUEST SENSE
            return False

        self.machine.wait(test_unit, "a medium")

    def test_cdrom_capacity_and_sector_are_read(self):
        self.ready()
        self.assertEqual(struct.unpack(">II", self.packet(b"\x25", 8)[1]), (63, 2048))
        status, data = self.packet(b"\x28\0" + struct.pack(">I", 17) + b"\0\0\x02", 4096)
        self.assertEqual(status & 0x89, 0)
        self.assertEqual(data, pattern(17, 2048) + pattern(18, 2048))

    def test_cdrom_command_unknown_leaves_a_sense(self):
        self.ready()
        self.assertEqual(self.packet(b"\xff", 8)[0] & 1, 1)
        sense = self.packet(b"\x03\0\0\0\x12", 18)[1]
        self.assertEqual((sense[2] & 0xF, sense[12]), (5, 0x20))

    def test_cdrom_read_past_the_end_is_refused(self):
        self.ready()
        self.assertEqual(self.packet(b"\x28\0" + struct.pack(">I", 64) + b"\0\0\x01", 2048)[0] & 1, 1)
        sense = self.packet(b"\x03\0\0\0\x12", 18)[1]
        self.assertEqual((sense[2] & 0xF, sense[12]), (5, 0x21))


class Piix4IdeTest(DeviceTest):
    def options(self):
        return {"ide": "piix4"}

    def test_function_is_a_piix4s_with_ultra_dma_registers(self):
        if self.machine.is_qemu:
            self.skipTest("QEMU's pc has a PIIX3 only")
        ide = qtest.PciDevice(self.machine, 1, 1)
        self.assertEqual((ide.ids(), ide.readb(ide.REVISION)), ((0x8086, 0x7111), 1))
        ide.writel(0x48, 0xFFFFFFFF)
        self.assertEqual(ide.readl(0x48), 0x3333000F)

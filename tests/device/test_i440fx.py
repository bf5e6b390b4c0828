"""i440FX: identification, PAM shadowing of 0xC0000-0xFFFFF, SMRAM over the VGA window."""

import qtest
from device_test import DeviceTest

READ, WRITE = 1, 2
# (register, shift, first address, length) of each segment; QEMU's BIOS lies behind the last ones.
SEGMENTS = [(0x5A + n // 2, 4 * (n % 2), 0xC0000 + n * 0x4000, 0x4000) for n in range(12)]
SEGMENTS += [(0x59, 4, 0xF0000, 0x10000)]


class I440fxTest(DeviceTest):
    def setUp(self):
        super().setUp()
        self.bridge = qtest.PciDevice(self.machine, 0)

    def set_segment(self, register, shift, attributes):
        value = self.bridge.readb(register) & ~(0xF << shift)
        self.bridge.writeb(register, value | attributes << shift)

    def test_power_on_identification(self):
        self.assertEqual(self.bridge.ids(), (0x8086, 0x1237))
        self.assertEqual(self.bridge.readl(8), 0x06000002)
        self.assertEqual(self.bridge.readl(0x2C), 0x11001AF4)
        self.assertEqual(self.bridge.readb(0x0E), 0)
        self.assertEqual(self.bridge.readb(0x72), 0x02)

    def test_power_on_shadows_nothing(self):
        self.assertEqual([self.bridge.readb(register) for register in range(0x59, 0x60)], [0] * 7)

    def test_segment_reads_and_writes_dram_as_its_attributes_say(self):
        for register, shift, base, length in SEGMENTS:
            for address in (base, base + length - 4):
                with self.subTest(register=hex(register), address=hex(address)):
                    self.set_segment(register, shift, READ | WRITE)
                    self.machine.writel(address, 0xA5A51111)
                    self.assertEqual(self.machine.readl(address), 0xA5A51111)
                    self.set_segment(register, shift, 0)
                    self.machine.writel(address, 0xA5A52222)
                    self.assertNotEqual(self.machine.readl(address), 0xA5A52222)
                    self.set_segment(register, shift, READ)
                    self.assertEqual(self.machine.readl(address), 0xA5A51111)

    def test_segment_can_be_read_only_or_write_only(self):
        if self.machine.is_qemu:
            self.skipTest("QEMU reads RAM in the write-only state, and its qtest writes pass a read-only view of RAM")
        for register, shift, address, _ in SEGMENTS:
            with self.subTest(register=hex(register), address=hex(address)):
                self.set_segment(register, shift, READ | WRITE)
                self.machine.writel(address, 0xA5A51111)
                self.set_segment(register, shift, READ)
                self.machine.writel(address, 0xA5A52222)
                self.assertEqual(self.machine.readl(address), 0xA5A51111)
                self.set_segment(register, shift, WRITE)
                self.machine.writel(address, 0xA5A53333)
                self.assertNotEqual(self.machine.readl(address), 0xA5A53333)
                self.set_segment(register, shift, READ)
                self.assertEqual(self.machine.readl(address), 0xA5A53333)

    def test_neighbours_are_not_shadowed(self):
        for index, (register, shift, base, _) in enumerate(SEGMENTS):
            with self.subTest(register=hex(register), shift=shift):
                self.set_segment(register, shift, READ | WRITE)
                self.machine.memset(base, 16, 0x5A)
                for other, (_, _, address, _) in enumerate(SEGMENTS):
                    if other != index:
                        self.assertNotEqual(self.machine.read(address, 16), b"\x5a" * 16)
                self.machine.memset(base, 16, 0)
                self.set_segment(register, shift, 0)

    def test_smram_open_shows_dram_in_the_vga_window(self):
        self.bridge.writeb(0x72, 0x4A)
        self.machine.writel(0xA0000, 0x534D4D21)
        self.assertEqual(self.machine.readl(0xA0000), 0x534D4D21)
        self.bridge.writeb(0x72, 0x0A)
        self.assertNotEqual(self.machine.readl(0xA0000), 0x534D4D21)
        self.bridge.writeb(0x72, 0x4A)
        self.assertEqual(self.machine.readl(0xA0000), 0x534D4D21)

    def test_smram_locked_cannot_be_opened(self):
        if self.machine.is_qemu:
            self.skipTest("QEMU's i440FX lets a guest open SMRAM after D_LCK; the datasheet (3.2.26) does not")
        self.bridge.writeb(0x72, 0x1A)
        self.bridge.writeb(0x72, 0x4A)
        self.assertEqual(self.bridge.readb(0x72), 0x1A)

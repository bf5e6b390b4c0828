"""PIIX3 function 0: identification, PIRQ routing registers, ELCR, reset control."""

import qtest
from device_test import DeviceTest


class Piix3Test(DeviceTest):
    def setUp(self):
        super().setUp()
        self.bridge = qtest.PciDevice(self.machine, 1, 0)

    def test_power_on_identification(self):
        self.assertEqual(self.bridge.ids(), (0x8086, 0x7000))
        self.assertEqual(self.bridge.readl(8), 0x06010000)
        self.assertEqual(self.bridge.readb(0x0E), 0x80)
        self.assertEqual(self.bridge.readw(6), 0x0200)

    def test_power_on_registers(self):
        expected = {0x4C: 0x4D, 0x4E: 0x03, 0x60: 0x80, 0x61: 0x80, 0x62: 0x80, 0x63: 0x80, 0x69: 0x02,
                    0x70: 0x80, 0x76: 0x0C, 0x77: 0x0C, 0x78: 0x02, 0xA0: 0x08, 0xA8: 0x0F}
        self.assertEqual({offset: self.bridge.readb(offset) for offset in expected}, expected)

    def test_routing_registers_keep_what_is_written(self):
        for register in range(0x60, 0x64):
            for value in (0x0A, 0x0B, 0x80):
                self.bridge.writeb(register, value)
                self.assertEqual(self.bridge.readb(register), value)

    def test_elcr_has_no_bits_for_the_boards_own_interrupts(self):
        self.machine.outb(0x4D0, 0xFF)
        self.machine.outb(0x4D1, 0xFF)
        self.assertEqual((self.machine.inb(0x4D0), self.machine.inb(0x4D1)), (0xF8, 0xDE))

    def test_reset_control_keeps_only_the_kind_of_reset(self):
        for written, read in ((0x02, 0x02), (0xF0, 0x00), (0x0A, 0x02), (0x01, 0x00)):
            self.machine.outb(0xCF9, written)
            self.assertEqual(self.machine.inb(0xCF9), read)

    def test_reset_control_is_not_part_of_config_address(self):
        self.machine.outl(0xCF8, 0x80000800)
        self.machine.outb(0xCF9, 0x02)
        self.assertEqual(self.machine.inl(0xCF8), 0x80000800)

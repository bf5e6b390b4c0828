"""Configuration mechanism #1, the functions of the board, base address registers."""

import qtest
from device_test import DeviceTest


class PciTest(DeviceTest):
    def test_board_has_its_functions(self):
        expected = {(0, 0): (0x8086, 0x1237), (1, 0): (0x8086, 0x7000), (1, 1): (0x8086, 0x7010),
                    (1, 3): (0x8086, 0x7113), (2, 0): (0x1234, 0x1111)}
        found = {at: qtest.PciDevice(self.machine, *at).ids() for at in expected}
        self.assertEqual(found, expected)

    def test_empty_slot_reads_as_all_ones(self):
        self.assertEqual(qtest.PciDevice(self.machine, 31).readl(0), 0xFFFFFFFF)

    def test_config_data_needs_the_enable_bit(self):
        self.machine.outl(0xCF8, 0)
        self.assertEqual(self.machine.inl(0xCFC), 0xFFFFFFFF)

    def test_config_address_reads_back(self):
        self.machine.outl(0xCF8, 0x80000904)
        self.assertEqual(self.machine.inl(0xCF8), 0x80000904)

    def test_parts_of_a_register_are_read_by_byte_and_word(self):
        bridge = qtest.PciDevice(self.machine, 0)
        self.assertEqual([bridge.readb(offset) for offset in range(4)], [0x86, 0x80, 0x37, 0x12])
        self.assertEqual(bridge.readw(2), 0x1237)

    def test_identification_cannot_be_written(self):
        bridge = qtest.PciDevice(self.machine, 0)
        bridge.writel(0, 0)
        bridge.writel(0x2C, 0)
        self.assertEqual((bridge.readl(0), bridge.readl(0x2C)), (0x12378086, 0x11001AF4))

    def test_bars_have_their_sizes(self):
        ide = qtest.PciDevice(self.machine, 1, 1)
        vga = qtest.PciDevice(self.machine, 2)
        self.assertEqual([ide.bar_size(index) for index in range(6)], [0, 0, 0, 0, 16, 0])
        self.assertEqual([vga.bar_size(index) for index in (0, 1, 3)], [16 << 20, 0, 0])

    def test_io_bar_is_decoded_where_it_is_put(self):
        ide = qtest.PciDevice(self.machine, 1, 1)
        ide.place_bar(4, 0xC000)
        self.machine.outl(0xC004, 0x1000)
        self.assertEqual(self.machine.inl(0xC004), 0x1000)
        ide.place_bar(4, 0xC100)
        self.assertEqual(self.machine.inl(0xC104), 0x1000)
        self.assertEqual(self.machine.inl(0xC004), 0xFFFFFFFF)
        ide.writew(4, 0)
        self.assertEqual(self.machine.inl(0xC104), 0xFFFFFFFF)

    def test_memory_bar_is_decoded_where_it_is_put(self):
        vga = qtest.PciDevice(self.machine, 2)
        vga.place_bar(0, 0xE0000000)
        self.machine.writel(0xE0000100, 0x12345678)
        vga.place_bar(0, 0xE8000000)
        self.assertEqual(self.machine.readl(0xE8000100), 0x12345678)

    def test_interrupt_line_is_storage(self):
        pm = qtest.PciDevice(self.machine, 1, 3)
        pm.writeb(0x3C, 9)
        self.assertEqual(pm.readb(0x3C), 9)

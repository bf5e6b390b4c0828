"""Standard VGA: register files, palette, planar memory, Bochs VBE, framebuffer."""

import qtest
from device_test import DeviceTest

FRAMEBUFFER = 0xE0000000


class VgaTest(DeviceTest):
    def setUp(self):
        super().setUp()
        vga = qtest.PciDevice(self.machine, 2)
        vga.place_bar(0, FRAMEBUFFER)
        vga.writew(4, 3)
        self.machine.outb(0x3C2, 0x67)  # colour addresses, memory enabled

    def put(self, port, index, value):
        self.machine.outb(port, index)
        self.machine.outb(port + 1, value)

    def get(self, port, index):
        self.machine.outb(port, index)
        return self.machine.inb(port + 1)

    def vbe(self, index, value=None):
        self.machine.outw(0x1CE, index)
        if value is not None:
            self.machine.outw(0x1CF, value)
        return self.machine.inw(0x1CF)

    def test_misc_output_reads_back(self):
        self.machine.outb(0x3C2, 0x63)
        self.assertEqual(self.machine.inb(0x3CC), 0x63)

    def test_register_files_keep_what_is_written(self):
        for port, index, value in ((0x3C4, 2, 0x0F), (0x3C4, 4, 0x06), (0x3CE, 5, 0x02), (0x3CE, 8, 0xA5),
                                   (0x3D4, 0x0E, 0x12), (0x3D4, 0x0F, 0x34), (0x3D4, 0x13, 0x28)):
            self.put(port, index, value)
            self.assertEqual(self.get(port, index), value)

    def test_crtc_protection_keeps_the_timing(self):
        self.put(0x3D4, 0x11, 0x00)
        self.put(0x3D4, 0x00, 0x5F)
        self.put(0x3D4, 0x11, 0x80)
        self.put(0x3D4, 0x00, 0x11)
        self.assertEqual(self.get(0x3D4, 0x00), 0x5F)

    def test_attribute_controller_alternates_index_and_data(self):
        self.machine.inb(0x3DA)
        self.machine.outb(0x3C0, 0x05)
        self.machine.outb(0x3C0, 0x2A)
        self.machine.inb(0x3DA)
        self.machine.outb(0x3C0, 0x05)
        self.assertEqual(self.machine.inb(0x3C1), 0x2A)

    def test_palette_keeps_six_bits_a_colour(self):
        self.machine.outb(0x3C8, 0x40)
        for value in (0x01, 0x3F, 0x20, 0x11, 0x22, 0x33):
            self.machine.outb(0x3C9, value)
        self.machine.outb(0x3C7, 0x40)
        self.assertEqual([self.machine.inb(0x3C9) for _ in range(6)], [0x01, 0x3F, 0x20, 0x11, 0x22, 0x33])

    def planar(self):
        for port, index, value in ((0x3C4, 2, 0x0F), (0x3C4, 4, 0x06), (0x3CE, 0, 0), (0x3CE, 1, 0), (0x3CE, 3, 0),
                                   (0x3CE, 5, 0), (0x3CE, 6, 0x05), (0x3CE, 8, 0xFF)):
            self.put(port, index, value)

    def test_planes_are_written_by_mask_and_read_by_map(self):
        self.planar()
        for plane in range(4):
            self.put(0x3C4, 2, 1 << plane)
            self.machine.writeb(0xA0010, 0x10 + plane)
        for plane in range(4):
            self.put(0x3CE, 4, plane)
            self.assertEqual(self.machine.readb(0xA0010), 0x10 + plane)

    def test_latches_copy_all_planes_in_write_mode_1(self):
        self.planar()
        for plane in range(4):
            self.put(0x3C4, 2, 1 << plane)
            self.machine.writeb(0xA0020, 0x31 * (plane + 1))
        self.put(0x3C4, 2, 0x0F)
        self.machine.readb(0xA0020)
        self.put(0x3CE, 5, 1)
        self.machine.writeb(0xA0021, 0)
        self.put(0x3CE, 5, 0)
        for plane in range(4):
            self.put(0x3CE, 4, plane)
            self.assertEqual(self.machine.readb(0xA0021), 0x31 * (plane + 1))

    def test_bit_mask_takes_the_rest_from_the_latches(self):
        self.planar()
        self.machine.writeb(0xA0030, 0xF0)
        self.machine.readb(0xA0030)
        self.put(0x3CE, 8, 0x3C)
        self.machine.writeb(0xA0030, 0x0F)
        self.put(0x3CE, 4, 0)
        self.assertEqual(self.machine.readb(0xA0030), 0xF0 & ~0x3C | 0x0F & 0x3C)

    def test_set_reset_replaces_the_written_value(self):
        self.planar()
        self.put(0x3CE, 0, 0x05)
        self.put(0x3CE, 1, 0x0F)
        self.machine.writeb(0xA0040, 0x00)
        self.put(0x3CE, 1, 0)
        values = []
        for plane in range(4):
            self.put(0x3CE, 4, plane)
            values.append(self.machine.readb(0xA0040))
        self.assertEqual(values, [0xFF, 0, 0xFF, 0])

    def test_vbe_identifies_itself_and_its_memory(self):
        self.assertEqual(self.vbe(0), 0xB0C5)
        self.assertEqual(self.vbe(0xA), 16 * 1024 // 64)

    def test_vbe_mode_is_kept_and_the_framebuffer_is_linear(self):
        for index, value in ((4, 0), (1, 800), (2, 600), (3, 32), (4, 0x41)):
            self.vbe(index, value)
        self.assertEqual([self.vbe(index) for index in (1, 2, 3, 6)], [800, 600, 32, 800])
        for offset in (0, 800 * 4 * 599, (16 << 20) - 4):
            self.machine.writel(FRAMEBUFFER + offset, 0x00C0FFEE)
            self.assertEqual(self.machine.readl(FRAMEBUFFER + offset), 0x00C0FFEE)

    def test_vbe_reports_its_limits_when_asked(self):
        self.vbe(4, 2)
        self.assertGreaterEqual(self.vbe(1), 1600)
        self.assertGreaterEqual(self.vbe(2), 1200)
        self.assertEqual(self.vbe(3), 32)
        self.vbe(4, 0)

    def test_vbe_bank_selects_what_the_window_shows(self):
        for index, value in ((4, 0), (1, 640), (2, 480), (3, 8), (4, 0x01)):
            self.vbe(index, value)
        self.put(0x3C4, 4, 0x0E)
        self.put(0x3C4, 2, 0x0F)
        self.put(0x3CE, 6, 0x05)
        self.vbe(5, 2)
        self.machine.writeb(0xA0005, 0x77)
        self.assertEqual(self.machine.readb(FRAMEBUFFER + 0x20005), 0x77)

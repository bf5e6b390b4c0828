"""fw_cfg: items by port and by DMA."""

import struct

from device_test import DeviceTest

SELECT, DATA, DMA = 0x510, 0x511, 0x514
SIGNATURE, ID, CPUS, DIRECTORY = 0x00, 0x01, 0x05, 0x19


class FwCfgTest(DeviceTest):
    def read(self, key, size):
        self.machine.outw(SELECT, key)
        return bytes(self.machine.inb(DATA) for _ in range(size))

    def files(self):
        count = struct.unpack(">I", self.read(DIRECTORY, 4))[0]
        entries = self.read(DIRECTORY, 4 + 64 * count)[4:]
        found = {}
        for size, key, _, name in struct.iter_unpack(">IHH56s", entries):
            found[name.rstrip(b"\0").decode()] = (key, size)
        return found

    def dma(self, control, length, address):
        self.machine.write(0x5000, struct.pack(">IIQ", control, length, address))
        self.machine.outl(DMA, 0)
        self.machine.outl(DMA + 4, struct.unpack("<I", struct.pack(">I", 0x5000))[0])
        self.machine.wait(lambda: struct.unpack(">I", self.machine.read(0x5000, 4))[0] & ~1 == 0, "end of the DMA")
        return struct.unpack(">I", self.machine.read(0x5000, 4))[0]

    def test_signature_and_interface_version(self):
        self.assertEqual(self.read(SIGNATURE, 4), b"QEMU")
        self.assertEqual(struct.unpack("<I", self.read(ID, 4))[0] & 3, 3)

    def test_data_restarts_with_each_selection(self):
        self.assertEqual(self.read(SIGNATURE, 2), b"QE")
        self.assertEqual(self.read(SIGNATURE, 2), b"QE")

    def test_data_past_the_end_is_zero(self):
        self.assertEqual(self.read(SIGNATURE, 8), b"QEMU\0\0\0\0")

    def test_unknown_item_is_zero(self):
        self.assertEqual(self.read(0x3FFF, 4), bytes(4))

    def test_processor_count(self):
        self.assertEqual(struct.unpack("<H", self.read(CPUS, 2))[0], 1)

    def test_directory_lists_what_firmware_asks_for(self):
        files = self.files()
        for name in ("etc/e820", "etc/acpi/tables", "etc/table-loader", "etc/smbios/smbios-tables"):
            self.assertIn(name, files)
        self.assertEqual(list(files), sorted(files))

    def test_e820_tells_the_ram(self):
        key, size = self.files()["etc/e820"]
        entries = list(struct.iter_unpack("<QQI", self.read(key, size)))
        self.assertIn((0, 64 << 20, 1), entries)

    def test_dma_signature(self):
        self.assertEqual(struct.pack("<II", self.machine.inl(DMA), self.machine.inl(DMA + 4)), b"QEMU CFG")

    def test_dma_reads_an_item_into_memory(self):
        key, size = self.files()["etc/e820"]
        self.assertEqual(self.dma(key << 16 | 0x08 | 0x02, size, 0x6000), 0)
        self.assertEqual(self.machine.read(0x6000, size), self.read(key, size))

    def test_dma_skips(self):
        self.assertEqual(self.dma(SIGNATURE << 16 | 0x08 | 0x04, 2, 0), 0)
        self.assertEqual(self.dma(0x02, 2, 0x6000), 0)
        self.assertEqual(self.machine.read(0x6000, 2), b"MU")

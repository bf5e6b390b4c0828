"""PIIX4 function 3: PM range, timer, events and SCI, APM ports, general purpose events, SMBus."""

import qtest
from device_test import DeviceTest

PM = 0x600
SMBUS = 0xB100
TIMER_HERTZ = 3579545


class Piix4PmTest(DeviceTest):
    def setUp(self):
        super().setUp()
        self.pm = qtest.PciDevice(self.machine, 1, 3)
        self.pm.writel(0x40, PM | 1)
        self.pm.writeb(0x80, 1)

    def test_power_on_identification(self):
        self.assertEqual(self.pm.ids(), (0x8086, 0x7113))
        self.assertEqual(self.pm.readl(8), 0x06800003)
        self.assertEqual(self.pm.readw(6), 0x0280)
        self.assertEqual(self.pm.readb(0x3D), 1)
        self.assertEqual(self.pm.readl(0x90), SMBUS | 1)
        self.assertEqual(self.pm.readb(0xD2), 9)
        self.assertEqual(self.pm.readb(0x67), 0x98)  # both serial ports

    def test_range_moves_and_is_decoded_only_when_enabled(self):
        self.pm.writeb(0x80, 0)
        self.assertEqual(self.machine.inw(PM + 4), 0xFFFF)
        self.pm.writel(0x40, 0xB001)
        self.pm.writeb(0x80, 1)
        self.assertEqual(self.machine.inw(PM + 4), 0xFFFF)
        self.assertEqual(self.machine.inw(0xB004), 0)

    def test_timer_counts_at_its_frequency(self):
        before = self.machine.inl(PM + 8)
        self.step(1)
        ticks = self.machine.inl(PM + 8) - before & 0xFFFFFF
        self.assert_about(ticks, TIMER_HERTZ, TIMER_HERTZ // 2)

    def test_timer_overflow_raises_the_sci_until_cleared(self):
        self.machine.irq_intercept_in("ioapic")
        self.machine.outw(PM, 1)
        self.machine.outw(PM + 2, 1)
        self.step(2.5)  # bit 23 changes every 2.34 s
        self.assertEqual(self.machine.inw(PM) & 1, 1)
        self.assertTrue(self.machine.levels.get(9))
        self.machine.outw(PM, 1)
        self.assertEqual(self.machine.inw(PM) & 1, 0)
        self.assertFalse(self.machine.levels.get(9))

    def test_apm_command_switches_acpi(self):
        self.machine.outb(0xB2, 0xF1)
        self.assertEqual(self.machine.inw(PM + 4) & 1, 1)
        self.assertEqual(self.machine.inb(0xB2), 0xF1)
        self.machine.outb(0xB2, 0xF0)
        self.assertEqual(self.machine.inw(PM + 4) & 1, 0)

    def test_apm_status_is_storage(self):
        self.machine.outb(0xB3, 0x5A)
        self.assertEqual(self.machine.inb(0xB3), 0x5A)

    def test_control_register_keeps_sleep_type_without_enable(self):
        self.machine.outw(PM + 4, 0x1401)
        self.assertEqual(self.machine.inw(PM + 4), 0x1401)

    def test_general_purpose_events_have_status_and_enable(self):
        self.machine.outb(0xAFE2, 0xFF)
        self.machine.outb(0xAFE0, 0xFF)
        self.assertEqual((self.machine.inb(0xAFE0), self.machine.inb(0xAFE2)), (0, 0xFF))
        self.machine.outb(0xAFE2, 0)

    def test_smbus_transaction_to_nobody_ends_in_a_device_error(self):
        self.machine.outb(SMBUS, 0x1E)
        self.machine.outb(SMBUS + 4, 0x21 << 1 | 1)
        self.machine.outb(SMBUS + 2, 0x48)
        self.machine.wait(lambda: not self.machine.inb(SMBUS) & 1, "end of the SMBus transaction")
        self.assertEqual(self.machine.inb(SMBUS), 0x04)

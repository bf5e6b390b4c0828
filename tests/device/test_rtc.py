"""MC146818 RTC and CMOS: time, formats, alarm, periodic and update interrupts."""

import qtest
from device_test import DeviceTest

SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM = range(6)
DAY, MONTH, YEAR, A, B, C, D, CENTURY = 7, 8, 9, 10, 11, 12, 13, 0x32
SET, PIE, AIE, UIE, BINARY, HOURS_24 = 0x80, 0x40, 0x20, 0x10, 0x04, 0x02


class RtcTest(DeviceTest):
    def setUp(self):
        super().setUp()
        self.rtc = qtest.Rtc(self.machine)
        self.machine.irq_intercept_in("ioapic")

    def set_time(self, hours, minutes, seconds, mode=BINARY | HOURS_24):
        self.rtc[A] = 0x26
        self.rtc[B] = SET | mode
        # The century is in the mode's format too: read as the wrong one it makes a year that overflows QEMU's count.
        date = ((DAY, 5), (MONTH, 3), (YEAR, 9), (CENTURY, 20 if mode & BINARY else 0x20))
        for index, value in ((HOURS, hours), (MINUTES, minutes), (SECONDS, seconds), *date):
            self.rtc[index] = value
        self.rtc[B] = mode

    def test_power_on_is_bcd_24_hours_with_good_battery(self):
        self.assertEqual(self.rtc[A] & 0x7F, 0x26)
        self.assertEqual(self.rtc[B], 0x02)
        self.assertEqual(self.rtc[D] & 0x80, 0x80)

    def test_seconds_carry_into_minutes_and_hours(self):
        self.set_time(9, 59, 58)
        self.step(3)
        total = (self.rtc[HOURS] * 60 + self.rtc[MINUTES]) * 60 + self.rtc[SECONDS]
        self.assertIn(total - 36000, (0, 1, 2))

    def test_bcd_and_binary_write_the_same_time(self):
        self.set_time(0x21, 0x34, 0x10, HOURS_24)
        self.assertEqual((self.rtc[HOURS], self.rtc[MINUTES]), (0x21, 0x34))

    def test_set_holds_the_time(self):
        self.set_time(1, 2, 3)
        self.rtc[B] = SET | BINARY | HOURS_24
        self.step(2)
        self.assertEqual((self.rtc[HOURS], self.rtc[MINUTES], self.rtc[SECONDS]), (1, 2, 3))

    def test_update_interrupt_comes_each_second_until_c_is_read(self):
        self.set_time(1, 2, 3)
        self.rtc[C]
        self.rtc[B] = UIE | BINARY | HOURS_24
        self.step(1.5)
        self.assertTrue(self.machine.levels.get(8))
        self.assertEqual(self.rtc[C] & 0x90, 0x90)
        self.assertFalse(self.machine.levels.get(8))
        self.assertEqual(self.rtc[C] & 0x80, 0)

    def test_alarm_comes_at_its_second(self):
        self.set_time(1, 2, 3)
        for index in (HOURS_ALARM, MINUTES_ALARM):
            self.rtc[index] = 0xC0  # any
        self.rtc[SECONDS_ALARM] = 5
        self.rtc[C]
        self.rtc[B] = AIE | BINARY | HOURS_24
        self.step(0.5)
        self.assertFalse(self.machine.levels.get(8, False))
        self.step(2.5)
        self.assertTrue(self.machine.levels.get(8))
        self.assertEqual(self.rtc[C] & 0xA0, 0xA0)

    def test_periodic_interrupt_sets_its_flag(self):
        self.rtc[A] = 0x2F  # 2 Hz
        self.rtc[C]
        self.rtc[B] = PIE | HOURS_24
        self.step(1.1)
        self.assertTrue(self.machine.levels.get(8))
        self.assertEqual(self.rtc[C] & 0xC0, 0xC0)

    def test_cmos_ram_keeps_what_is_written(self):
        for index in range(0x40, 0x50):
            self.rtc[index] = index ^ 0xA5
        for index in range(0x40, 0x50):
            self.assertEqual(self.rtc[index], index ^ 0xA5)

    def test_cmos_tells_the_memory_size(self):
        self.assertEqual(self.rtc[0x15] | self.rtc[0x16] << 8, 640)
        self.assertEqual(self.rtc[0x17] | self.rtc[0x18] << 8, 63 * 1024)
        self.assertEqual(self.rtc[0x34] | self.rtc[0x35] << 8, (64 - 16) * 16)

"""16550A serial ports, by their loopback mode."""

from device_test import DeviceTest

BASE = 0x3F8
DATA, IER, IIR, FCR, LCR, MCR, LSR, MSR, SCR = 0, 1, 2, 2, 3, 4, 5, 6, 7
LOOP, OUT2 = 0x10, 0x08


class UartTest(DeviceTest):
    def get(self, register, base=BASE):
        return self.machine.inb(base + register)

    def set(self, register, value, base=BASE):
        self.machine.outb(base + register, value)

    def test_power_on_registers(self):
        for base in (0x3F8, 0x2F8):
            self.assertEqual([self.get(register, base) for register in (IER, IIR, LCR, LSR)], [0, 1, 0, 0x60])

    def test_scratch_register_keeps_what_is_written(self):
        for value in (0x00, 0x5A, 0xFF):
            self.set(SCR, value)
            self.assertEqual(self.get(SCR), value)

    def test_divisor_is_behind_dlab(self):
        self.set(LCR, 0x83)
        self.set(DATA, 0x34)
        self.set(IER, 0x12)
        self.assertEqual((self.get(DATA), self.get(IER)), (0x34, 0x12))
        self.set(LCR, 0x03)
        self.assertEqual(self.get(IER), 0)

    def test_fifo_enable_shows_in_iir(self):
        self.set(FCR, 0x01)
        self.assertEqual(self.get(IIR), 0xC1)
        self.set(FCR, 0x00)
        self.assertEqual(self.get(IIR), 0x01)

    def test_interrupt_enable_has_four_bits(self):
        self.set(IER, 0xF0)
        self.assertEqual(self.get(IER), 0)

    def test_loopback_wires_the_modem_lines(self):
        for mcr, msr in ((0x01, 0x20), (0x02, 0x10), (0x04, 0x40), (0x08, 0x80)):
            self.set(MCR, LOOP | mcr)
            self.assertEqual(self.get(MSR) & 0xF0, msr)

    def test_loopback_returns_the_byte_sent(self):
        self.set(LCR, 0x03)
        self.set(MCR, LOOP)
        self.set(DATA, 0x5A)
        self.machine.wait(lambda: self.get(LSR) & 1, "the byte back")
        self.assertEqual(self.get(DATA), 0x5A)
        self.assertEqual(self.get(LSR) & 1, 0)

    def test_received_byte_raises_the_interrupt_until_read(self):
        self.machine.irq_intercept_in("ioapic")
        self.set(LCR, 0x03)
        self.set(MCR, LOOP | OUT2)
        self.set(IER, 0x01)
        self.set(DATA, 0x5A)
        self.machine.wait(lambda: self.machine.levels.get(4), "IRQ 4")
        self.assertEqual(self.get(IIR) & 0x0F, 0x04)
        self.get(DATA)
        self.assertFalse(self.machine.levels[4])

    def test_empty_transmitter_interrupt_is_acknowledged_by_iir(self):
        self.machine.irq_intercept_in("ioapic")
        self.set(MCR, OUT2)
        self.set(IER, 0x02)
        self.machine.wait(lambda: self.machine.levels.get(4), "IRQ 4")
        self.assertEqual(self.get(IIR) & 0x0F, 0x02)
        self.assertEqual(self.get(IIR) & 0x0F, 0x01)
        self.assertFalse(self.machine.levels[4])

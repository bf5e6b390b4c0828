"""i8042 with a PS/2 keyboard and mouse."""

from device_test import DeviceTest

DATA, STATUS = 0x60, 0x64
OUTPUT_FULL, FROM_MOUSE = 0x01, 0x20


class I8042Test(DeviceTest):
    def setUp(self):
        super().setUp()
        self.drain()

    def drain(self):
        for _ in range(64):
            if not self.machine.inb(STATUS) & OUTPUT_FULL:
                break
            self.machine.inb(DATA)

    def take(self, count):
        """The next bytes, each waited for."""
        data = []
        for _ in range(count):
            self.machine.wait(lambda: self.machine.inb(STATUS) & OUTPUT_FULL, "a byte from the i8042")
            data.append(self.machine.inb(DATA))
        return data

    def command(self, command, answer=1):
        self.machine.outb(STATUS, command)
        return self.take(answer)

    def keyboard(self, byte, answer=1):
        self.machine.outb(DATA, byte)
        return self.take(answer)

    def mouse(self, byte, answer=1):
        self.machine.outb(STATUS, 0xD4)
        self.machine.outb(DATA, byte)
        return self.take(answer)

    def set_mode(self, mode):
        self.machine.outb(STATUS, 0x60)
        self.machine.outb(DATA, mode)

    def test_self_tests_pass(self):
        self.assertEqual(self.command(0xAA), [0x55])
        self.assertEqual(self.command(0xAB), [0x00])
        self.assertEqual(self.command(0xA9), [0x00])

    def test_command_byte_keeps_what_is_written(self):
        for mode in (0x03, 0x30, 0x41):
            self.set_mode(mode)
            self.assertEqual(self.command(0x20), [mode])
        self.set_mode(0)

    def test_keyboard_reset_answers_ack_and_passed(self):
        self.set_mode(0)
        self.assertEqual(self.keyboard(0xFF, 2), [0xFA, 0xAA])

    def test_keyboard_identifies_itself(self):
        self.set_mode(0)
        self.keyboard(0xFF, 2)
        self.assertEqual(self.keyboard(0xF2, 3), [0xFA, 0xAB, 0x83])

    def test_keyboard_echo_and_leds(self):
        self.set_mode(0)
        self.keyboard(0xFF, 2)
        self.assertEqual(self.keyboard(0xEE), [0xEE])
        self.assertEqual(self.keyboard(0xED), [0xFA])
        self.assertEqual(self.keyboard(0x07), [0xFA])

    def test_mouse_reset_answers_with_its_id(self):
        self.set_mode(0)
        self.assertEqual(self.mouse(0xFF, 3), [0xFA, 0xAA, 0x00])

    def test_mouse_bytes_are_marked(self):
        self.set_mode(0)
        self.machine.outb(STATUS, 0xD4)
        self.machine.outb(DATA, 0xF2)
        self.machine.wait(lambda: self.machine.inb(STATUS) & OUTPUT_FULL, "an answer")
        self.assertEqual(self.machine.inb(STATUS) & FROM_MOUSE, FROM_MOUSE)

    def test_mouse_turns_into_a_wheel_mouse_by_its_knock(self):
        self.set_mode(0)
        self.mouse(0xFF, 3)
        for rate in (200, 100, 80):
            self.mouse(0xF3)
            self.mouse(rate)
        self.assertEqual(self.mouse(0xF2, 2), [0xFA, 0x03])

    def test_keyboard_interrupt_follows_the_output_buffer(self):
        self.machine.irq_intercept_in("ioapic")
        self.set_mode(0x01)
        self.machine.outb(DATA, 0xEE)
        self.machine.wait(lambda: self.machine.raised.get(1), "IRQ 1")
        self.assertEqual(self.take(1), [0xEE])
        self.assertFalse(self.machine.levels[1])
        self.set_mode(0)

    def test_loopback_commands_fill_the_output_buffer(self):
        self.set_mode(0)
        self.machine.outb(STATUS, 0xD2)
        self.machine.outb(DATA, 0x5A)
        self.assertEqual(self.take(1), [0x5A])

"""The qtest protocol itself, and how a machine under it ends."""

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import qtest
from device_test import DeviceTest


class ProtocolTest(DeviceTest):
    def test_sigterm_ends_it_with_status_0(self):
        self.assertEqual(self.machine.stop(), 0)

    def test_clock_set_by_hand_is_the_time(self):
        if not self.machine.exact_clock:
            self.skipTest("this QEMU has no qtest accelerator")
        before = self.machine.clock_step(0)
        self.assertEqual(self.machine.clock_step(1000), before + 1000)
        self.assertEqual(self.machine.clock_set(before + 5000), before + 5000)
        self.assertGreaterEqual(self.machine.clock_step(), before + 5000)

    def test_memory_is_written_and_read_in_every_width_and_form(self):
        self.machine.writeq(0x10000, 0x1122334455667788)
        self.assertEqual(self.machine.readl(0x10004), 0x11223344)
        self.assertEqual(self.machine.readw(0x10002), 0x5566)
        self.assertEqual(self.machine.readb(0x10007), 0x11)
        data = bytes(range(256)) * 300
        self.machine.write(0x20000, data)
        self.assertEqual(self.machine.b64read(0x20000, len(data)), data)
        self.machine.b64write(0x40001, data)
        self.assertEqual(self.machine.read(0x40001, len(data)), data)
        self.machine.memset(0x40001, 3, 0xA5)
        self.assertEqual(self.machine.read(0x40000, 5), b"\0\xa5\xa5\xa5\x03")

    def test_endianness_is_little(self):
        self.assertEqual(self.machine.endianness(), "little")

    def test_nonsense_is_refused_and_the_next_command_works(self):
        if self.machine.is_qemu:
            self.skipTest("QEMU ends on malformed commands")
        for line in (("nonsense",), ("inb",), ("inb", "x"), ("outb", "0x80"), ("readq",), ("write", "0", "8"),
                     ("inb", "0x10000"), ("read", "0", "0x7fffffffffff"), ("clock_step", "x"), ("memset", "1", "-1", "0"),
                     ("set_irq_in", "ioapic")):
            with self.assertRaises(qtest.QtestError):
                self.machine.command(*line)
        self.assertEqual(self.machine.endianness(), "little")

    def test_interrupts_are_told_only_once_intercepted(self):
        def keyboard_byte():  # what the controller answers to a self test
            self.machine.outb(0x64, 0x60)
            self.machine.outb(0x60, 0x41)  # command byte: interrupt 1 on
            self.machine.outb(0x64, 0xD2)
            self.machine.outb(0x60, 0x5A)  # a byte as if from the keyboard
            self.machine.endianness()

        keyboard_byte()
        self.assertEqual(self.machine.raised, {})
        self.machine.inb(0x60)
        self.machine.irq_intercept_in("ioapic")
        keyboard_byte()
        self.assertEqual(self.machine.raised.get(1), 1)
        self.machine.inb(0x60)
        self.assertFalse(self.machine.levels[1])


@unittest.skipIf("qemu" in Path(os.environ.get("QTEST_PROGRAM", "")).name, "Whistler's own socket modes")
class SocketTest(unittest.TestCase):
    """`unix:PATH,server` listens, for one client after the other."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="qtest-")
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "socket"
        self.description = Path(directory.name) / "machine.json"
        self.description.write_text(json.dumps({"memory": "16M"}))

    def start(self, endpoint):
        process = subprocess.Popen([os.environ["QTEST_PROGRAM"], "run", str(self.description), "--accel", "qtest",
                                    "--qtest", endpoint], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(lambda: (process.kill(), process.wait()))
        return process

    def connect(self):
        end = time.monotonic() + qtest.TIMEOUT
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(self.path))
                return qtest.Client(connection)
            except OSError:
                connection.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def test_server_takes_one_client_after_the_other_and_keeps_its_state(self):
        for options in (",server", ",server=on,wait=off"):
            process = self.start(f"unix:{self.path}{options}")
            client = self.connect()
            client.writel(0x1000, 0xCAFE)
            client.close()
            client = self.connect()
            self.assertEqual(client.readl(0x1000), 0xCAFE)
            client.close()
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(qtest.TIMEOUT), 0)

    def test_it_ends_when_the_client_it_connected_to_goes(self):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.path))
            listener.listen(1)
            listener.settimeout(qtest.TIMEOUT)
            process = self.start(f"unix:{self.path}")
            client = qtest.Client(listener.accept()[0])
            self.assertEqual(client.endianness(), "little")
            client.close()
            self.assertEqual(process.wait(qtest.TIMEOUT), 0)

    def test_nobody_listening_is_a_usage_error_in_one_line(self):
        process = self.start(f"unix:{self.path}")
        self.assertEqual(process.wait(qtest.TIMEOUT), 2)
        self.assertRegex(process.stderr.read(), r"\A.*--qtest.*\n\Z")

    def test_other_endpoints_are_refused(self):
        process = self.start("tcp:127.0.0.1:1")
        self.assertEqual(process.wait(qtest.TIMEOUT), 2)

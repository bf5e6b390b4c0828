"""What the chips' tests share: a machine for each test, and images for its drives."""

import os
import tempfile
import unittest
from pathlib import Path

import qtest


def pattern(sector, size=512):
    """What a test disk holds: every sector different, no byte order or offset error unseen."""
    return bytes((sector * 7 + i * 3 + (i >> 8)) & 0xFF for i in range(size))


class DeviceTest(unittest.TestCase):
    """Starts a machine with `options()` before each test."""

    def options(self):
        return {}

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="qtest-images-")
        self.addCleanup(directory.cleanup)
        self.images = Path(directory.name)
        self.machine = qtest.Machine(os.environ["QTEST_PROGRAM"], **self.options())
        self.addCleanup(lambda: self.machine.stop())  # the one it has by then

    def step(self, seconds):
        self.machine.clock_step(int(seconds * 1e9))

    def assert_about(self, value, expected, slack):
        """Exact where the clock is turned by hand; otherwise late by up to `slack`."""
        self.assertGreaterEqual(value, expected)
        self.assertLessEqual(value, expected if self.machine.exact_clock else expected + slack)

"""The block tools on a host that refuses io_uring, as containers do: threads do its work, and nobody sees a difference."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import no_io_uring  # noqa: E402

WHISTLER = os.path.abspath(os.environ.get("WHISTLER", "build/dev/vmm/whistler"))


class WithoutIoUring(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="whistler-threads-")
        self.addCleanup(shutil.rmtree, self.folder, True)

    def run_one(self, *command, **options):
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, timeout=120, **options)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def ours(self, *words):
        return self.run_one(WHISTLER, *words, preexec_fn=no_io_uring.refuse)

    def path(self, name):
        return os.path.join(self.folder, name)

    def disk(self, name="disk.raw", megabytes=24):
        with open(self.path(name), "wb") as file:
            for number in range(megabytes):
                file.write(os.urandom(1 << 16) + bytes([number % 3]) * ((1 << 20) - (1 << 16)))
        return name

    def test_convert_check_and_compare(self):
        self.disk()
        for options in ([], ["-c"], ["-t", "none", "-T", "none"], ["-W", "-m", "16"]):
            with self.subTest(options=options):
                self.ours("img", "convert", "-f", "raw", "-O", "qcow2", *options, "disk.raw", "disk.qcow2")
                self.assertIn("No errors", self.run_one("qemu-img", "check", "disk.qcow2"))
                self.assertIn("identical", self.run_one("qemu-img", "compare", "-f", "raw", "-F", "qcow2", "disk.raw", "disk.qcow2"))
                self.assertIn("identical", self.ours("img", "compare", "-f", "raw", "-F", "qcow2", "disk.raw", "disk.qcow2"))
        self.ours("img", "bench", "-w", "-c", "2000", "-d", "64", "-f", "qcow2", "--flush-interval", "100", "disk.qcow2")
        self.assertIn("No errors", self.ours("img", "check", "disk.qcow2"))

    def test_io_prints_the_same(self):
        script = [word for line in ("write -P 7 0 100k", "aio_write -P 8 1M 64k", "aio_write -P 9 2M 64k", "aio_flush", "discard 0 64k",
                                    "write -z 3M 64k", "read -P 8 1M 64k", "read -P 7 64k 36k", "flush", "length")
                  for word in ("-c", line)]
        said = []
        for command, more in (([WHISTLER, "io"], {"preexec_fn": no_io_uring.refuse}), (["qemu-io"], {})):
            self.run_one("qemu-img", "create", "-q", "-f", "qcow2", "a.qcow2", "8M")
            lines = self.run_one(*command, *script, "a.qcow2", **more).splitlines()
            said.append([line for line in lines if "sec" not in line])  # without the times
        # Two requests at once end in either order.
        self.assertEqual(sorted(said[0]), sorted(said[1]))

    def test_nbd_server_and_client(self):
        self.disk()
        self.ours("img", "convert", "-f", "raw", "-O", "qcow2", "disk.raw", "disk.qcow2")
        with subprocess.Popen([WHISTLER, "nbd", "-t", "-e", "4", "-k", self.path("s"), "-f", "qcow2", "disk.qcow2"], cwd=self.folder,
                              preexec_fn=no_io_uring.refuse) as server:
            try:
                while not os.path.exists(self.path("s")):
                    self.assertIsNone(server.poll())
                    time.sleep(0.02)
                descriptors = [os.readlink(f"/proc/{server.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{server.pid}/fd")]
                self.assertFalse([name for name in descriptors if "io_uring" in name])  # it is refused indeed
                url = f"nbd+unix:///?socket={self.path('s')}"
                self.assertIn("identical", self.run_one("qemu-img", "compare", "-f", "raw", "-F", "raw", "disk.raw", url))
                self.ours("img", "convert", "-f", "raw", "-O", "raw", url, "back.raw")
                self.assertIn("identical", self.run_one("qemu-img", "compare", "-f", "raw", "-F", "raw", "disk.raw", "back.raw"))
                self.ours("io", "-f", "raw", "-c", "write -P 5 1M 2M", "-c", "flush", url)
                self.run_one("qemu-io", "-f", "raw", "-c", "read -P 5 1M 2M", url)
                server.send_signal(signal.SIGTERM)
                self.assertEqual(server.wait(20), 0)
            finally:
                server.kill()
        self.run_one("qemu-io", "-c", "read -P 5 1M 2M", "disk.qcow2")

    def test_nbd_server_in_the_background(self):
        self.disk(megabytes=2)
        self.ours("nbd", "--fork", "--pid-file", self.path("pid"), "-k", self.path("s"), "-f", "raw", "disk.raw")
        url = f"nbd+unix:///?socket={self.path('s')}"
        self.assertIn("identical", self.run_one("qemu-img", "compare", "-f", "raw", "-F", "raw", "disk.raw", url))
        for _ in range(200):  # it ends with its last client
            if not os.path.exists(f"/proc/{Path(self.path('pid')).read_text().strip() if os.path.exists(self.path('pid')) else 0}"):
                return
            time.sleep(0.05)
        self.fail("the server stayed")


if __name__ == "__main__":
    unittest.main()

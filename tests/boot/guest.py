"""One guest in one Whistler, as the tests see it: a serial line, a screen with a keyboard, an end."""
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [os.path.join(ROOT, "tests", folder) for folder in ("guests", "tools")]

from rfb import Rfb  # noqa: E402
from vga_text import read_text  # noqa: E402

POLL = 0.2


class GuestError(AssertionError):
    """The guest, or the monitor, did not do what the test waited for."""


class Guest:
    """A running machine. `work` is an empty directory of its own; what is worth keeping goes to `keep`."""

    def __init__(self, whistler, work, keep, description, arguments=()):
        self.work = work
        self.keep = keep
        self.serial_text = ""
        self._seen = 0
        self._serial = None
        self._serial_log = open(os.path.join(keep, "serial.txt"), "w", encoding="utf-8")  # as it comes, to be followed
        self._screen = None
        self._serial_path = os.path.join(work, "serial.sock")
        self.debug_path = os.path.join(work, "debug.log")
        self._log_path = os.path.join(work, "whistler.log")
        machine = {
            "name": "boot-test", "memory": "256M", "cpu": {"cores": 1}, "display": {"vga": "std"},
            "vnc": {"listen": "127.0.0.1", "port": -1},
            "serial": [{"backend": "unix", "path": self._serial_path}],
            "debug": {"console": f"file:{self.debug_path}", "exit_port": "0xf4"}, **description}
        path = os.path.join(work, "machine.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(machine, file, indent=2)
        with open(self._log_path, "wb") as log:
            self.process = subprocess.Popen([whistler, "run", path, *arguments], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=subprocess.STDOUT, cwd=work)
        self._connect_serial()  # at once: what is sent while nobody listens is lost

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            with contextlib.suppress(Exception):
                self.screenshot("at-failure")
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for channel in (self._serial, self._screen):
            if channel is not None:
                channel.close()
        self._serial_log.close()
        for path in (self._log_path, self.debug_path):
            if os.path.exists(path):
                shutil.copy(path, self.keep)

    def log(self):
        with open(self._log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def _still_runs(self, waiting_for):
        status = self.process.poll()
        if status is not None:
            raise GuestError(f"waiting for {waiting_for}: the monitor ended with status {status}: {self.log()[-800:]}")

    def _until(self, waiting_for, timeout, attempt):
        """Calls `attempt` until it returns something true, which is returned."""
        end = time.monotonic() + timeout
        while True:
            found = attempt()
            if found:
                return found
            self._still_runs(waiting_for)
            if time.monotonic() > end:
                raise GuestError(f"{waiting_for} did not come within {timeout} s; serial line: "
                                 f"{self.serial_text[-400:]!r}; screen: {self._screen_or_nothing()}")
            time.sleep(POLL)

    def _screen_or_nothing(self):
        try:
            return [line for line in self.screen_text() if line][-12:]
        except Exception as error:  # whatever it is, it must not hide what failed
            return str(error)

    # ---- serial line ----

    def _connect_serial(self):
        def attempt():
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(self._serial_path)
            except OSError:
                connection.close()
                return None
            connection.setblocking(False)
            return connection
        try:
            self._serial = self._until("the serial socket", 30, attempt)
        except GuestError:
            # A guest may be done, or its description refused, before anyone could listen: the end tells.
            if self.process.poll() is None:
                self.process.kill()
                raise

    def _drain_serial(self):
        if self._serial is None:
            return
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                data = self._serial.recv(65536)
                if not data:
                    break
                text = data.decode("utf-8", "replace")
                self.serial_text += text
                self._serial_log.write(text)
                self._serial_log.flush()

    def wait_serial(self, pattern, timeout):
        """Waits for the pattern in what has come over the serial line since the last wait that found something."""
        def attempt():
            self._drain_serial()
            return re.compile(pattern, re.S).search(self.serial_text, self._seen)
        found = self._until(f"{pattern!r} on the serial line", timeout, attempt)
        self._seen = found.end()
        return found

    def send_serial(self, text):
        """Types on the serial line, no faster than a 16-byte FIFO without flow control takes it."""
        for at in range(0, len(text), 8):
            self._serial.sendall(text[at:at + 8].encode())
            time.sleep(0.05)

    def shell(self, command, timeout):
        """Runs a command in the shell on the serial line; returns what it printed."""
        self.send_serial(f"{command}; echo END-$((4000 + 242))-$?\n")
        found = self.wait_serial(r"\n(.*?)END-4242-(\d+)\r?\n", timeout)
        if found.group(2) != "0":
            raise GuestError(f"{command!r} ended with status {found.group(2)}: {found.group(1)[-400:]}")
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", found.group(1))

    # ---- screen and keyboard ----

    @property
    def screen(self):
        if self._screen is None:
            found = self._until("the VNC address", 30, lambda: re.search(r"127\.0\.0\.1:(\d+)", self.log()))
            self._screen = Rfb(f"127.0.0.1:{found.group(1)}", timeout=60)
        return self._screen

    def screen_text(self):
        self.screen.refresh()
        return read_text(self.screen.width, self.screen.height, self.screen.pixels)

    def wait_screen(self, pattern, timeout):
        """Waits for the pattern in the text on the screen."""
        return self._until(f"{pattern!r} on the screen", timeout,
                           lambda: re.search(pattern, "\n".join(self.screen_text()), re.S))

    def screenshot(self, name):
        self.screen.save(os.path.join(self.keep, f"{name}.png"))

    # ---- the end ----

    def wait_end(self, expected, timeout):
        """Waits until the monitor ends, with the given status."""
        end = time.monotonic() + timeout
        while self.process.poll() is None:
            if self._serial is not None:
                self._drain_serial()
            if time.monotonic() > end:
                raise GuestError(f"it still runs after {timeout} s; serial line: {self.serial_text[-400:]!r}")
            time.sleep(POLL)
        status = self.process.returncode
        if status != expected:
            raise GuestError(f"it ended with status {status}, not {expected}: {self.log()[-800:]}")

"""The lab itself: what a command in it sees and gives back, and what happens to a lab that dies.

    python3 tests/lab/test_lab.py
"""
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
import unittest

LAB = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lab")


def run_lab(*arguments):
    return subprocess.run([LAB, "--timeout", "300", *arguments], capture_output=True, text=True, check=False)


def emulators_of(pid):
    """Process ids of the QEMUs that a process has started."""
    listing = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(pid)], capture_output=True, text=True,
                             check=False)
    return [int(number) for number, name in re.findall(r"(\d+) (\S+)", listing.stdout) if name.startswith("qemu")]


class Lab(unittest.TestCase):
    def test_command_output_and_status_come_back(self):
        with tempfile.TemporaryDirectory() as out:
            done = run_lab("--out", out, "--", "sh", "-c",
                           f"grep -c -w svm /proc/cpuinfo; pwd; echo kept > {out}/file; echo gone > /root/lab-test; "
                           "echo no >&2; exit 7")
            self.assertEqual(done.returncode, 7, done.stderr)
            self.assertEqual(done.stdout, f"1\n{os.getcwd()}\n")
            self.assertIn("no\n", done.stderr)
            with open(os.path.join(out, "file"), encoding="ascii") as file:
                self.assertEqual(file.read(), "kept\n")
        self.assertFalse(os.path.exists("/root/lab-test"))

    def test_large_output_is_whole(self):
        done = run_lab("--", "seq", "200000")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout, "".join(f"{number}\n" for number in range(1, 200001)))

    def test_killed_emulator_is_started_again_and_said_so(self):
        process = subprocess.Popen([LAB, "--timeout", "300", "--", "sh", "-c", "sleep 5; echo done"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

        def kill_first():
            while not emulators_of(process.pid):
                time.sleep(0.2)
            os.kill(emulators_of(process.pid)[0], signal.SIGKILL)
        killer = threading.Thread(target=kill_first)
        killer.start()
        stdout, stderr = process.communicate()
        killer.join()
        self.assertEqual((process.returncode, stdout), (0, "done\n"), stderr)
        self.assertIn("the lab died, not the command (1 of 3)", stderr)

    def test_silent_lab_gets_interrupts(self):
        # The heartbeat is the other child of the first process.
        done = run_lab("--", "sh", "-c", "count() { awk '$NF == \"i8042\" && !n { n = 1; print $2 }' /proc/interrupts; }; "
                       "count; for pid in $(pgrep -P 1); do [ $pid = $$ ] || kill -STOP $pid; done; sleep 12; count")
        self.assertEqual(done.returncode, 0, done.stderr)
        before, after = (int(number) for number in done.stdout.split())
        self.assertGreater(after, before)
        self.assertRegex(done.stderr, "silent and got a key press [1-9]")

    def test_time_limit_ends_the_lab_with_124(self):
        done = subprocess.run([LAB, "--timeout", "25", "--", "sleep", "1000"], capture_output=True, text=True,
                              check=False)
        self.assertEqual(done.returncode, 124, done.stderr)
        self.assertIn("time limit", done.stderr)


if __name__ == "__main__":
    unittest.main()

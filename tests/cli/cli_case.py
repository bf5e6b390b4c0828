"""What the tests of the commands share: a folder, a program to start in it, machines small enough to need no BIOS."""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
QUICK = 60  # seconds; far more than anything without a guest takes
NOBODY = 65534


def whistler():
    return os.environ["WHISTLER"]


def needs(*programs):
    missing = [program for program in programs if shutil.which(program) is None]
    return unittest.skipIf(missing, f"needs {', '.join(missing)}")


NEEDS_KVM = "needs /dev/kvm"
needs_kvm = unittest.skipUnless(os.path.exists("/dev/kvm"), NEEDS_KVM)
needs_root = unittest.skipUnless(os.geteuid() == 0, "needs root")


def tool(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=QUICK, **options)


class CliCase(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="whistler-cli-"))
        self.addCleanup(shutil.rmtree, self.folder, True)

    # ---- making things ----

    def path(self, name):
        return self.folder / name

    def file(self, name, content):
        path = self.path(name)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def machine(self, called="machine.json", **changes):
        """A description; None for a value leaves its key out."""
        description = {"memory": "16M", "display": {"vga": "none"}, **changes}
        return self.file(called, json.dumps({k: v for k, v in description.items() if v is not None}))

    def raw_disk(self, name="disk.raw", size=1 << 20):
        path = self.path(name)
        with open(path, "wb") as file:
            file.truncate(size)
        return path

    def qcow2(self, name="disk.qcow2", size="1M", *options):
        tool("qemu-img", "create", "-q", "-f", "qcow2", *options, self.path(name), size)
        return self.path(name)

    def assemble(self, name, source):
        path = self.file(name + ".asm", source)
        tool("nasm", "-f", "bin", "-o", self.path(name), path)
        return self.path(name)

    def rom(self, code, name="rom.bin"):
        """A 64 KiB BIOS that does nothing but `code`, in real mode at F000:0000."""
        return self.assemble(name, f"""
            bits 16
            cpu 686
            org 0
          start:
            {code}
            times 0xfff0 - ($ - $$) db 0xff
            bits 16
            jmp 0xf000:start
            times 0x10000 - ($ - $$) db 0xff""")

    def boot_sector(self, code, name="boot.raw", size=1 << 20):
        path = self.assemble(name, f"""
            bits 16
            cpu 686
            org 0x7c00
            jmp 0:start
          start:
            xor ax, ax
            mov ds, ax
            mov es, ax
            mov ss, ax
            mov sp, 0x7c00
            sti
            cld
            {code}
            times 510 - ($ - $$) db 0
            dw 0xaa55""")
        os.truncate(path, size)
        return path

    # ---- running ----

    def whistler(self, *arguments, timeout=QUICK, **options):
        options = {"stdin": subprocess.DEVNULL, "cwd": self.folder, "text": True, "errors": "backslashreplace", **options}
        return subprocess.run([whistler(), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=timeout, **options)

    def start(self, *arguments, **options):
        options = {"stdin": subprocess.DEVNULL, "cwd": self.folder, "text": True, "stdout": subprocess.PIPE,
                   "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen([whistler(), *map(str, arguments)], **options)
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        if process.poll() is None:
            process.kill()
        process.communicate()

    def until(self, what, attempt, timeout=QUICK):
        end = time.monotonic() + timeout
        while not (found := attempt()):
            self.assertLess(time.monotonic(), end, f"{what} did not come")
            time.sleep(0.05)
        return found

    # ---- judging ----

    def state_of_files(self):
        """Everything in the folder: kind, mode, time and content."""
        state = {}
        for path in sorted(self.folder.rglob("*")):
            info = path.lstat()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(info.st_mode) else ""
            state[str(path)] = (info.st_mode, info.st_mtime_ns, info.st_size, content)
        return state

    def assert_refused(self, result, *words, status=2):
        """One line on standard error with all `words`, nothing on standard output."""
        self.assertEqual(result.returncode, status, result.stderr)
        self.assertEqual(result.stdout, "")
        self.assertRegex(result.stderr, r"\Awhistler: [^\n]+\n\Z")
        self.assertLess(len(result.stderr), 1000)
        for word in words:
            self.assertIn(str(word), result.stderr)

    def assert_bad(self, description, *words, commands=("run", "check"), arguments=()):
        """The commands refuse it, naming file, key and reason, and leave every file as it was."""
        before = self.state_of_files()
        for command in commands:
            result = self.whistler(command, description, *arguments)
            with self.subTest(command=command):
                self.assert_refused(result, *words)
        self.assertEqual(self.state_of_files(), before, "files were created or changed")

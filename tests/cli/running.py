"""Machines that run: how they end, reset, crash, and talk to the host. Most are a BIOS of a few instructions."""

import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import unittest

from cli_case import ROOT, CliCase, needs, needs_kvm, tool

sys.path.insert(0, str(ROOT / "tests" / "tools"))
import no_io_uring  # noqa: E402

BOOT = 240  # seconds for SeaBIOS on emulated instructions and a busy host

EXIT = "mov al, {}\n out 0xf4, al\n hang: hlt\n jmp hang"
HANG = "hang: cli\n hlt\n jmp hang"

CMOS_COUNT = """
    mov al, 0x40
    out 0x70, al
    in al, 0x71
    inc al
    mov bl, al
    mov al, 0x40
    out 0x70, al
    mov al, bl
    out 0x71, al
    cmp bl, {}
    jae done
    {}
  wait_for_it: hlt
    jmp wait_for_it
  done:
    mov al, bl
    out 0xf4, al
"""

PROTECTED_MODE = """
    cli
    lgdt [cs:gdt_pointer]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword 8:0xf0000 + inside
  align 8
  gdt: dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff  ; accessed: the table is in ROM
  gdt_pointer: dw 23
    dd 0xf0000 + gdt
  no_idt: dw 0
    dd 0
  bits 32
  inside:
    mov ax, 16
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, 0x7000
    {}
"""

ECHO = """
  next:
    mov dx, 0x3fd
    in al, dx
    test al, 1
    jz next
    mov dx, 0x3f8
    in al, dx
    cmp al, 'q'
    je leave
    out dx, al
    jmp next
  leave:
    mov al, 3
    out 0xf4, al
"""


def say(text):
    return "mov dx, 0x3f8\n" + "".join(f"mov al, {byte}\n out dx, al\n" for byte in text.encode())


@needs_kvm
@needs("nasm")
class RomCase(CliCase):
    def machine_of(self, code, **changes):
        self.rom(code)
        changes.setdefault("debug", {"exit_port": "0xf4"})
        return self.machine(firmware={"bios": "rom.bin"}, **changes)

    def assert_ends(self, result, status, *words):
        self.assertEqual(result.returncode, status, result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)


class Ending(RomCase):
    def test_exit_port_gives_the_status(self):
        for value in (0, 1, 0x2a, 0x7f, 0xff):
            with self.subTest(value):
                self.assert_ends(self.whistler("run", self.machine_of(EXIT.format(value))), (value << 1 | 1) & 0xff)

    def test_exit_port_is_off_unless_asked_for(self):
        self.assert_ends(self.whistler("run", self.machine_of(EXIT.format(1), debug={}), "--timeout", "2"), 124)

    def test_timeout(self):
        start = time.monotonic()
        self.assert_ends(self.whistler("run", self.machine_of(HANG), "--timeout", "2"), 124, "2 s")
        self.assertGreaterEqual(time.monotonic() - start, 2)

    def test_busy_guest_meets_its_timeout(self):
        self.assert_ends(self.whistler("run", self.machine_of("again: jmp again"), "--timeout", "1"), 124)

    def test_signals_stop_a_guest_without_acpi_at_once(self):
        disk = self.qcow2()
        for number in (signal.SIGTERM, signal.SIGINT):
            machine = self.machine_of(HANG, debug={"console": "file:started"}, drives=[{"file": str(disk), "format": "qcow2"}])
            process = self.start("run", machine)
            self.until("the machine", lambda: self.path("started").exists())
            start = time.monotonic()
            process.send_signal(number)
            self.assertEqual(process.wait(30), 128 + number)
            self.assertLess(time.monotonic() - start, 9, "it waited for the grace time")
            self.assertRegex(process.stderr.read(), r"\Awhistler: [^\n]*signal[^\n]*\n\Z")
            tool("qemu-img", "check", disk)
            os.unlink(self.path("started"))

    def test_signal_during_start(self):
        machine = self.machine_of(HANG)
        for delay in (0, 0.01, 0.05, 0.1, 0.2):
            process = self.start("run", machine)
            time.sleep(delay)
            process.terminate()
            self.assertIn(process.wait(30), (-signal.SIGTERM, 128 + signal.SIGTERM))

    def test_triple_fault_shows_registers(self):
        machine = self.machine_of(PROTECTED_MODE.format("mov ebx, 0xcafebabe\n lidt [0xf0000 + no_idt]\n ud2"))
        result = self.whistler("run", machine)
        self.assert_ends(result, 4, "triple fault")
        self.assertRegex(result.stderr, "cafebabe|KVM on an AMD host keeps nothing else")

    def test_triple_fault_can_reset(self):
        count = CMOS_COUNT.format(3, PROTECTED_MODE.format("lidt [0xf0000 + no_idt]\n ud2\n bits 16"))
        self.assert_ends(self.whistler("run", self.machine_of(count, on={"triple_fault": "reset"}), "--timeout", "30"), 7)

    def test_instruction_that_cannot_be_emulated_shows_registers(self):
        # Code at an address where nothing is: each kind of KVM must fetch it for the emulator, and cannot.
        machine = self.machine_of(PROTECTED_MODE.format("mov ebx, 0xcafebabe\n mov eax, 0xd0000000\n jmp eax"))
        result = self.whistler("run", machine, "--timeout", "30")
        self.assert_ends(result, 4, "cafebabe")

    def test_crash_says_one_line_and_then_registers(self):
        result = self.whistler("run", self.machine_of(PROTECTED_MODE.format("lidt [0xf0000 + no_idt]\n ud2")))
        lines = result.stderr.splitlines()
        self.assertTrue(lines[0].startswith("whistler: the guest crashed"), result.stderr)
        self.assertGreater(len(lines), 4)


class Reset(RomCase):
    WAYS = {
        "0xcf9": "mov dx, 0xcf9\n mov al, 2\n out dx, al\n mov al, 6\n out dx, al",
        "0x92": "in al, 0x92\n or al, 1\n out 0x92, al",
        "keyboard controller": "mov al, 0xfe\n out 0x64, al",
    }

    def test_every_way_reboots_many_times(self):
        for name, code in self.WAYS.items():
            with self.subTest(name):
                result = self.whistler("run", self.machine_of(CMOS_COUNT.format(20, code)), "--timeout", "50")
                self.assert_ends(result, 41)

    def test_reboot_exit_ends_it(self):
        machine = self.machine_of(CMOS_COUNT.format(9, self.WAYS["0x92"]), on={"reboot": "exit"})
        self.assert_ends(self.whistler("run", machine, "--timeout", "30"), 0)

    def test_reset_with_many_cores(self):
        machine = self.machine_of(CMOS_COUNT.format(5, self.WAYS["0xcf9"]), cpu={"cores": 4})
        self.assert_ends(self.whistler("run", machine, "--timeout", "50"), 11)


class Shapes(RomCase):
    def test_memory_sizes(self):
        code = "".join(f"mov al, {register}\n out 0x70, al\n in al, 0x71\n out 0xe9, al\n mov dx, 0x402\n out dx, al\n"
                       for register in (0x30, 0x31, 0x34, 0x35, 0x5b, 0x5c, 0x5d)) + EXIT.format(0)
        for mib in (1, 2, 8, 16, 17, 128, 1024, 3072, 3584, 4096, 5120):
            with self.subTest(mib=mib):
                machine = self.machine_of(code, memory=f"{mib}M", debug={"exit_port": "0xf4", "console": "file:sizes"})
                self.assert_ends(self.whistler("run", machine, "--timeout", "30"), 1)
                sizes = self.path("sizes").read_bytes()
                if len(sizes) == 14:  # 0xE9 is a debug console too
                    sizes = sizes[::2]
                above_1m, above_16m, high = struct.unpack("<HHI", sizes + b"\0")
                self.assertEqual(above_1m, min((mib - 1) * 1024, 65535), sizes.hex())
                low = min(mib, 3072)
                self.assertEqual(above_16m * 64, max(low - 16, 0) * 1024, sizes.hex())
                self.assertEqual(high * 64, (mib - low) * 1024, sizes.hex())

    def test_cores(self):
        code = "mov dx, 0x510\n mov ax, 5\n out dx, ax\n inc dx\n in al, dx\n out 0xf4, al"
        for cores in (1, 2, 3, 8):
            with self.subTest(cores=cores):
                machine = self.machine_of(code, cpu={"cores": cores})
                self.assert_ends(self.whistler("run", machine, "--timeout", "30"), cores << 1 | 1)

    def test_absurd_memory_runs_or_is_refused(self):
        result = self.whistler("run", self.machine_of(EXIT.format(0), memory="1024G"), "--timeout", "30")
        self.assertIn(result.returncode, (1, 2, 3), result.stderr)
        self.assertLessEqual(result.stderr.count("\n"), 1)

    def test_vnc_without_video_card_says_so(self):
        result = self.whistler("run", self.machine_of(EXIT.format(0), vnc={}))
        self.assertEqual(result.returncode, 1)
        self.assertIn("no video card", result.stdout)

    def vnc_security(self, **vnc):
        process = self.start("run", self.machine_of(HANG, display={"vga": "std"}, vnc=vnc), "--timeout", "60")
        address = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
        with socket.create_connection(("127.0.0.1", int(address.group(1))), timeout=60) as client:
            stream = client.makefile("rwb")
            self.assertEqual(stream.read(12), b"RFB 003.008\n")
            stream.write(b"RFB 003.008\n")
            stream.flush()
            types = stream.read(stream.read(1)[0])
        process.terminate()
        process.wait(30)
        return types

    def test_vnc_password(self):
        self.file("password", "secret\nmore\n")
        self.assertEqual(self.vnc_security(password_file="password"), b"\x02")
        self.assertEqual(self.vnc_security(), b"\x01")

    def test_no_vnc(self):
        result = self.whistler("run", self.machine_of(EXIT.format(0), display={"vga": "std"}))
        self.assertEqual((result.returncode, result.stdout), (1, ""))


class Serial(RomCase):
    def test_file(self):
        self.file("serial.txt", "old content that is longer")
        machine = self.machine_of(say("out\n") + EXIT.format(0), serial=[{"backend": "file", "path": "serial.txt"}])
        self.assert_ends(self.whistler("run", machine), 1)
        self.assertEqual(self.path("serial.txt").read_text(), "out\n")

    def test_debug_console_to_stdout_and_file(self):
        code = say("s") + "mov dx, 0x402\n mov al, 'd'\n out dx, al\n" + EXIT.format(0)
        machine = self.machine_of(code, debug={"console": "stdio", "exit_port": "0xf4"})
        self.assertEqual(self.whistler("run", machine).stdout, "d")
        machine = self.machine_of(code, debug={"console": "file:log", "exit_port": "0xf4"}, serial=[{"backend": "stdio"}])
        self.assertEqual(self.whistler("run", machine).stdout, "s")
        self.assertEqual(self.path("log").read_text(), "d")

    def test_stdio_echo_ends_after_end_of_input(self):
        machine = self.machine_of(ECHO, serial=[{"backend": "stdio"}], debug={"exit_port": "0xf4", "console": "stdio"})
        text = "The quick brown fox jumps over the lazy dog. " * 20
        result = self.whistler("run", machine, "--timeout", "50", stdin=None, input=text.replace("q", "k") + "q")
        self.assertEqual((result.returncode, result.stdout), (7, text.replace("q", "k")))

    def test_output_goes_on_after_end_of_input(self):
        machine = self.machine_of("mov cx, 0xffff\n x: in al, 0x61\n loop x\n" + say("late\n") + EXIT.format(0),
                                  serial=[{"backend": "stdio"}])
        result = self.whistler("run", machine, "--timeout", "50", stdin=None, input="")
        self.assertEqual((result.returncode, result.stdout), (1, "late\n"))

    def test_reader_that_went_away_costs_nothing(self):
        machine = self.machine_of(say("one\n") + "mov cx, 0xffff\n x: in al, 0x61\n loop x\n" + say("two\n") + HANG,
                                  serial=[{"backend": "stdio"}])
        process = self.start("run", machine, "--timeout", "60")
        self.assertEqual(process.stdout.readline(), "one\n")
        process.stdout.close()
        process.stdout = None
        time.sleep(3)

        def used():
            fields = open(f"/proc/{process.pid}/stat", encoding="ascii").read().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        before = used()
        time.sleep(2)
        self.assertLess(used() - before, 0.5)
        process.terminate()
        self.assertEqual(process.wait(30), 143)

    def test_pty(self):
        process = self.start("run", self.machine_of(ECHO, serial=[{"backend": "pty"}]), "--timeout", "60")
        path = re.search(r"/dev/pts/\d+", process.stdout.readline()).group()
        line = os.open(path, os.O_RDWR | os.O_NOCTTY)
        self.addCleanup(os.close, line)
        os.write(line, b"ping")
        self.assertEqual(self.read(line, 4), b"ping")
        os.write(line, b"q")
        self.assertEqual(process.wait(30), 7)

    def read(self, descriptor, count):
        data = b""
        while len(data) < count:
            self.assertTrue(select.select([descriptor], [], [], 30)[0], f"only {data} came")
            data += os.read(descriptor, count - len(data))
        return data

    def test_unix_socket_serves_one_client_after_another(self):
        process = self.start("run", self.machine_of(ECHO, serial=[{"backend": "unix", "path": "line"}]), "--timeout", "60")
        path = self.path("line")
        self.until("the socket", path.exists)
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        for text in (b"first", b"second", b"third"):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                client.sendall(text)
                self.assertEqual(self.read(client.fileno(), len(text)), text)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"q")
            self.assertEqual(process.wait(30), 7)
        self.assertFalse(path.exists(), "the socket stayed behind")

    def test_stale_socket_is_replaced(self):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(self.path("line")))
        machine = self.machine_of(EXIT.format(0), serial=[{"backend": "unix", "path": "line"}])
        self.assert_ends(self.whistler("run", machine), 1)

    def test_terminal_is_raw_and_given_back(self):
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        machine = self.machine_of(HANG, serial=[{"backend": "stdio"}], debug={"console": "file:started"})
        before = subprocess.run(["stty", "-g"], stdin=theirs, capture_output=True, check=True).stdout
        process = self.start("run", machine, "--timeout", "60", stdin=theirs, stdout=theirs)
        self.until("the machine", self.path("started").exists)
        self.until("raw mode", lambda: subprocess.run(["stty", "-g"], stdin=theirs, capture_output=True, check=True).stdout != before)
        os.write(ours, b"typed at a guest that does not read it, more than its FIFO takes, and more and more ")
        os.write(ours, b"\x01x")
        self.assertEqual(process.wait(30), 143)
        self.assertEqual(subprocess.run(["stty", "-g"], stdin=theirs, capture_output=True, check=True).stdout, before)
        os.close(theirs)


@needs_kvm
@needs("nasm", "qemu-img")
class WithFirmware(CliCase):
    """Through SeaBIOS, as a real guest starts."""

    def test_hello_on_every_channel(self):
        hello = tool(ROOT / "tests/guests/make", "hello.qcow2", text=True).stdout.strip()
        before = open(hello, "rb").read()
        machine = self.machine(memory="64M", drives=[{"file": hello, "format": "qcow2", "read_only": False}], display={"vga": "std"},
                               vnc={}, serial=[{"backend": "file", "path": "serial"}],
                               debug={"console": "file:debug", "exit_port": "0xf4"})
        result = self.whistler("run", machine, "--timeout", str(BOOT), timeout=BOOT + 30)
        self.assertEqual(result.returncode, 85, result.stderr)
        self.assertIn("HELLO", self.path("serial").read_text())
        self.assertIn("HELLO", self.path("debug").read_text(errors="replace"))
        self.assertEqual(open(hello, "rb").read(), before, "the disk changed")

    def test_hello_from_an_encrypted_disk(self):
        hello = tool(ROOT / "tests/guests/make", "hello.qcow2", text=True).stdout.strip()
        made = self.whistler("img", "convert", "-O", "qcow2", "--object", "secret,id=s,data=open sesame", "-o",
                             "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", hello, "e.qcow2")
        self.assertEqual(made.returncode, 0, made.stderr)
        self.file("key", "open sesame\n")
        machine = self.machine(memory="64M", drives=[{"file": "e.qcow2", "format": "qcow2", "password_file": "key"}],
                               display={"vga": "std"}, vnc={}, debug={"console": "file:debug", "exit_port": "0xf4"})
        result = self.whistler("run", machine, "--timeout", str(BOOT), timeout=BOOT + 30)
        self.assertEqual(result.returncode, 85, result.stderr)
        self.assertNotIn(b"HELLO", self.path("e.qcow2").read_bytes())

    def count_boots(self, **options):
        # Sector 1 holds how often it has started; the third time it leaves.
        self.boot_sector("""
            mov ax, 0x0201
            call sector_1
            inc byte [0x8000]
            mov ax, 0x0301
            call sector_1
            mov al, [0x8000]
            cmp al, 3
            je leave
            mov dx, 0xcf9
            mov al, 6
            out dx, al
          stay: hlt
            jmp stay
          leave:
            out 0xf4, al
          sector_1:
            mov cx, 2
            mov dx, 0x80
            mov bx, 0x8000
            int 0x13
            jc failed
            ret
          failed:
            mov al, 99
            out 0xf4, al
            """)
        machine = self.machine(memory="32M", drives=[{"file": "boot.raw", "format": "raw"}], debug={"exit_port": "0xf4"})
        result = self.whistler("run", machine, "--timeout", str(BOOT), timeout=BOOT + 30, **options)
        self.assertEqual(result.returncode, 7, result.stderr)
        self.assertEqual(self.path("boot.raw").read_bytes()[512], 3)
        return result.stderr

    def test_boots_counted_on_the_disk(self):
        self.assertNotIn("warning", self.count_boots())

    def test_boots_counted_where_the_host_refuses_io_uring(self):
        said = self.count_boots(preexec_fn=no_io_uring.refuse)
        self.assertRegex(said, r"\Awhistler: warning: io_uring is refused by this host [^\n]*threads serve the disks")


if __name__ == "__main__":
    unittest.main()

"""A machine without a processor, driven through QEMU's qtest line protocol: Whistler's own, or QEMU as the oracle.

A line goes out, a line comes back: "OK", "OK value" or "FAIL reason"; lines "IRQ raise N" and "IRQ lower N" may come in
between once a line was intercepted. Python's standard library only.

QEMU as Debian builds it has no qtest accelerator. It is then started stopped, on TCG, with a firmware that only halts,
and clock_step lets the machine run for that long: `Machine.exact_clock` is False and time is only about right.
"""

import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path

TIMEOUT = 20.0  # seconds for any one answer, and for a program to start


class QtestError(Exception):
    """The program refused a command, answered with nonsense, or went away."""


def image_format(file):
    return "qcow2" if str(file).endswith(".qcow2") else "raw"


class Client:
    """The protocol over a connected socket."""

    def __init__(self, connection):
        connection.settimeout(TIMEOUT)
        self._socket = connection
        # Not "rw": that forgets what has been read ahead, an interrupt's line, when something is written.
        self._stream = connection.makefile("r", encoding="ascii", newline="\n")
        self.levels = {}  # interrupt line -> level, of the intercepted ones
        self.raised = {}  # interrupt line -> how often it went up

    def close(self):
        self._stream.close()
        self._socket.close()

    def command(self, *words):
        """Sends one command; the words of the answer after OK."""
        return self.batch([words])[0]

    def batch(self, commands):
        """Sends commands (tuples of words) together, a few hundred at most; their answers' words after OK."""
        lines = [" ".join(f"{word:#x}" if isinstance(word, int) else word for word in words) for words in commands]
        self._socket.sendall("".join(line + "\n" for line in lines).encode("ascii"))
        return [self._answer(line) for line in lines]

    def _answer(self, line):
        while True:
            answer = self._stream.readline()
            if not answer:
                raise QtestError(f"connection closed after '{line}'")
            parts = answer.split()
            if parts[0] == "IRQ":
                self._note_irq(parts[1] == "raise", int(parts[2]))
            elif parts[0] == "OK":
                return parts[1:]
            else:
                raise QtestError(f"'{line}': {answer.strip()}")

    def _note_irq(self, up, number):
        if up and not self.levels.get(number, False):
            self.raised[number] = self.raised.get(number, 0) + 1
        self.levels[number] = up

    def _value(self, *words):
        return int(self.command(*words)[0], 0)

    # Ports.
    def inb(self, port):
        return self._value("inb", port)

    def inw(self, port):
        return self._value("inw", port)

    def inl(self, port):
        return self._value("inl", port)

    def outb(self, port, value):
        self.command("outb", port, value)

    def outw(self, port, value):
        self.command("outw", port, value)

    def outl(self, port, value):
        self.command("outl", port, value)

    # Memory.
    def readb(self, address):
        return self._value("readb", address)

    def readw(self, address):
        return self._value("readw", address)

    def readl(self, address):
        return self._value("readl", address)

    def readq(self, address):
        return self._value("readq", address)

    def writeb(self, address, value):
        self.command("writeb", address, value)

    def writew(self, address, value):
        self.command("writew", address, value)

    def writel(self, address, value):
        self.command("writel", address, value)

    def writeq(self, address, value):
        self.command("writeq", address, value)

    def read(self, address, size):
        return bytes.fromhex(self.command("read", address, size)[0][2:])

    def write(self, address, data):
        self.command("write", address, len(data), "0x" + data.hex())

    def b64read(self, address, size):
        return base64.b64decode(self.command("b64read", address, size)[0])

    def b64write(self, address, data):
        self.command("b64write", address, len(data), base64.b64encode(data).decode())

    def memset(self, address, size, value):
        self.command("memset", address, size, value)

    # Time and interrupts.
    def clock_step(self, nanoseconds=None):
        """Lets time pass, or goes to the next deadline; returns the time."""
        return self._value("clock_step", *([] if nanoseconds is None else [str(nanoseconds)]))

    def clock_set(self, nanoseconds):
        return self._value("clock_set", str(nanoseconds))

    def irq_intercept_in(self, path):
        self.command("irq_intercept_in", path)

    def irq_intercept_out(self, path):
        self.command("irq_intercept_out", path)

    def set_irq_in(self, path, name, number, level):
        self.command("set_irq_in", path, name, str(number), str(level))

    def endianness(self):
        return self.command("endianness")[0]


class Machine(Client):
    """A program started for one test, and the connection to it. Use as a context manager."""

    def __init__(self, program, memory_mib=64, disks=(), cdrom=None, ide="piix3", more=None, qemu_more=()):
        """`disks`: images for the IDE units 0:0, 0:1, qcow2 if they are named so, else raw; `cdrom`: an ISO image at
        1:0; `ide`: the IDE function's chip, "piix4" on Whistler only; `more`: further sections of the description, and
        `qemu_more`: the arguments that mean the same to QEMU."""
        self.program = str(program)
        self.is_qemu = Path(program).name.startswith("qemu")
        self.exact_clock = True
        self._ide = ide
        self._more = more or {}
        self._qemu_more = qemu_more
        self.directory = Path(tempfile.mkdtemp(prefix="qtest-"))
        self._qmp = None
        path = self.directory / "qtest.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(TIMEOUT)
        arguments = (self._qemu if self.is_qemu else self._whistler)(path, memory_mib, disks, cdrom)
        self._log = open(self.directory / "log", "w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        try:
            super().__init__(listener.accept()[0])
            if self.is_qemu and not self.exact_clock:
                self._qmp = Qmp(self.directory / "qmp.sock")
        except (OSError, QtestError) as error:
            self.process.kill()
            self.process.wait()
            self._log.seek(0)
            said = self._log.read()
            shutil.rmtree(self.directory, ignore_errors=True)
            raise QtestError(f"{self.program} did not start: {error}\n{said}") from error
        finally:
            listener.close()

    def _qemu(self, path, memory_mib, disks, cdrom):
        offered = subprocess.run([self.program, "-accel", "help"], capture_output=True, text=True, timeout=TIMEOUT,
                                 check=True)
        arguments = [self.program, "-machine", "pc", "-m", str(memory_mib), "-nodefaults", "-vga", "std",
                     "-display", "none", "-serial", "null", "-serial", "null",
                     "-rtc", "base=2026-01-02T03:04:05,clock=vm", "-qtest", f"unix:{path}", "-qtest-log", "/dev/null"]
        if "qtest" in offered.stdout.split():
            arguments += ["-accel", "qtest"]
        else:
            self.exact_clock = False
            firmware = self.directory / "halt.bin"
            # As long as the window below 1 MiB. At the reset vector: cli; hlt; and a jump back.
            firmware.write_bytes(bytes(0x1FFF0) + b"\xfa\xf4\xeb\xfc" + bytes(12))
            arguments += ["-accel", "tcg", "-S", "-bios", str(firmware), "-qmp",
                          f"unix:{self.directory}/qmp.sock,server=on,wait=off"]
        for index, disk in enumerate(disks):
            arguments += ["-drive", f"if=ide,index={index},format={image_format(disk)},media=disk,file={disk}"]
        arguments += self._qemu_more
        if cdrom:
            arguments += ["-drive", f"if=ide,index=2,format=raw,media=cdrom,file={cdrom}"]
        return arguments

    def _whistler(self, path, memory_mib, disks, cdrom):
        def drive(name, bus, unit, media, file):
            return {"id": name, "interface": "ide", "bus": bus, "unit": unit, "media": media, "file": str(file),
                    "format": image_format(file)}

        drives = [drive(f"hd{index}", 0, index, "disk", disk) for index, disk in enumerate(disks)]
        if cdrom:
            drives.append(drive("cd0", 1, 0, "cdrom", cdrom))
        description = {"name": "qtest", "memory": f"{memory_mib}M", "clock": {"base": "utc"},
                       **({"machine": {"ide": self._ide}} if self._ide != "piix3" else {}), "drives": drives,
                       "display": {"vga": "std", "vram": "16M"}, "serial": 2 * [{"backend": "none"}], **self._more}
        file = self.directory / "machine.json"
        file.write_text(json.dumps(description, indent=2))
        return [self.program, "run", str(file), "--accel", "qtest", "--qtest", f"unix:{path}"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Ends the program with SIGTERM; its exit status."""
        self.process.terminate()
        try:
            status = self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.close()
        if self._qmp:
            self._qmp.close()
        self._log.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        return status

    def wait_ended(self):
        """Once the program has ended: its exit status, and what it said."""
        status = self.process.wait(TIMEOUT)
        self._log.seek(0)
        return status, self._log.read()

    def clock_step(self, nanoseconds=None):
        if self.exact_clock:
            return super().clock_step(nanoseconds)
        self._qmp.run_for((nanoseconds or 0) / 1e9)
        self.endianness()  # takes in what the lines did meanwhile
        return None

    def wait(self, condition, what):
        """Until I/O that the host finishes in its own time has made `condition` true."""
        end = time.monotonic() + TIMEOUT
        while not condition():
            if time.monotonic() > end:
                raise QtestError(f"{what} did not happen in {TIMEOUT:.0f} s")
            self.clock_step(1_000_000)


class Qmp:
    """As much of QEMU's monitor as letting the machine run for a while takes."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT)
        self._socket.connect(str(path))
        self._stream = self._socket.makefile("rw", encoding="utf-8")
        self._stream.readline()  # the greeting
        self._execute("qmp_capabilities")

    def _execute(self, command):
        self._stream.write(json.dumps({"execute": command}) + "\n")
        self._stream.flush()
        while "return" not in (answer := json.loads(self._stream.readline())):
            if "error" in answer:
                raise QtestError(f"{command}: {answer['error']}")

    def run_for(self, seconds):
        self._execute("cont")
        time.sleep(seconds)
        self._execute("stop")

    def close(self):
        self._stream.close()
        self._socket.close()


class PciDevice:
    """One PCI function, by configuration mechanism #1, with places for its base address registers."""

    COMMAND, STATUS, REVISION, HEADER_TYPE, BAR0 = 0x04, 0x06, 0x08, 0x0E, 0x10
    IO, MEMORY, MASTER = 1, 2, 4

    def __init__(self, machine, slot, function=0):
        self.machine = machine
        self._address = 0x80000000 | slot << 11 | function << 8

    def _select(self, offset):
        self.machine.outl(0xCF8, self._address | offset & 0xFC)
        return 0xCFC + (offset & 3)

    def readb(self, offset):
        return self.machine.inb(self._select(offset))

    def readw(self, offset):
        return self.machine.inw(self._select(offset))

    def readl(self, offset):
        return self.machine.inl(self._select(offset))

    def writeb(self, offset, value):
        self.machine.outb(self._select(offset), value)

    def writew(self, offset, value):
        self.machine.outw(self._select(offset), value)

    def writel(self, offset, value):
        self.machine.outl(self._select(offset), value)

    def ids(self):
        return self.readw(0), self.readw(2)

    def bar_size(self, index):
        """In bytes, 0 where there is none; the register is left as it was."""
        offset = self.BAR0 + 4 * index
        before = self.readl(offset)
        self.writel(offset, 0xFFFFFFFF)
        probed = self.readl(offset)
        self.writel(offset, before)
        return -(probed & ~(0x3 if probed & 1 else 0xF)) & 0xFFFFFFFF if probed else 0

    def place_bar(self, index, address):
        """Puts the register at `address` and turns decoding of its kind on; `address`."""
        offset = self.BAR0 + 4 * index
        kind = self.IO if self.readl(offset) & 1 else self.MEMORY
        self.writel(offset, address)
        self.writew(self.COMMAND, self.readw(self.COMMAND) | kind)
        return address


class IdeChannel:
    """The task file of one IDE channel, and its half of the bus master."""

    BSY, DRDY, DF, DRQ, ERR = 0x80, 0x40, 0x20, 0x08, 0x01

    def __init__(self, machine, base, control, bus_master=None):
        self.machine, self.base, self.control, self.bus_master = machine, base, control, bus_master

    def status(self):
        return self.machine.inb(self.base + 7)

    def alternate_status(self):
        return self.machine.inb(self.control)

    def error(self):
        return self.machine.inb(self.base + 1)

    def select(self, unit, lba=0):
        self.machine.outb(self.base + 6, 0xE0 | unit << 4 | lba >> 24 & 0x0F)

    def command(self, command, unit=0, lba=0, count=0, feature=0):
        """Writes the task file for a 28-bit command and starts it."""
        self._write_registers((6, 0xE0 | unit << 4 | lba >> 24 & 0x0F), (1, feature), (2, count), (3, lba),
                              (4, lba >> 8), (5, lba >> 16), (7, command))

    def command_ext(self, command, unit=0, lba=0, count=0):
        """The same for a 48-bit command."""
        self._write_registers((6, 0x40 | unit << 4), (2, count >> 8), (3, lba >> 24), (4, lba >> 32), (5, lba >> 40),
                              (2, count), (3, lba), (4, lba >> 8), (5, lba >> 16), (7, command))

    def _write_registers(self, *writes):
        self.machine.batch([("outb", self.base + offset, value & 0xFF) for offset, value in writes])

    def wait_idle(self):
        """Until BSY is clear; the status, which acknowledges the interrupt."""
        self.machine.wait(lambda: not self.alternate_status() & self.BSY, "end of BSY")
        return self.status()

    def read_words(self, words):
        data = b""
        while len(data) < 2 * words:
            answers = self.machine.batch([("inw", self.base)] * min(256, words - len(data) // 2))
            data += struct.pack(f"<{len(answers)}H", *(int(answer[0], 0) for answer in answers))
        return data

    def write_words(self, data):
        words = [("outw", self.base, word) for (word,) in struct.iter_unpack("<H", data)]
        for start in range(0, len(words), 256):
            self.machine.batch(words[start:start + 256])

    def read_sector_pio(self, lba, unit=0):
        self.command(0x20, unit, lba, 1)
        self.wait_idle()
        return self.read_words(256)

    def write_sector_pio(self, lba, data, unit=0):
        self.command(0x30, unit, lba, 1)
        self.wait_idle()
        self.write_words(data)
        self.wait_idle()

    def dma(self, command, regions, to_memory, unit=0, lba=0, count=1, table=0x1000, ext=False):
        """One DMA command over `regions` [(address, length)]; (drive status, bus master status). `ext`: 48-bit."""
        entries = b"".join(struct.pack("<II", address, length & 0xFFFF | (i == len(regions) - 1) << 31)
                           for i, (address, length) in enumerate(regions))
        self.machine.write(table, entries)
        self.machine.outb(self.bus_master, 0)
        self.machine.outb(self.bus_master + 2, 6)
        self.machine.outl(self.bus_master + 4, table)
        (self.command_ext if ext else self.command)(command, unit, lba, count)
        direction = 8 if to_memory else 0
        self.machine.outb(self.bus_master, direction)
        self.machine.outb(self.bus_master, direction | 1)
        self.machine.wait(lambda: self.machine.inb(self.bus_master + 2) & 4, "DMA interrupt")
        status = self.machine.inb(self.bus_master + 2)
        self.machine.outb(self.bus_master, 0)
        return self.status(), status


class Rtc:
    """The CMOS, by its port pair."""

    def __init__(self, machine):
        self.machine = machine

    def __getitem__(self, index):
        self.machine.outb(0x70, index)
        return self.machine.inb(0x71)

    def __setitem__(self, index, value):
        self.machine.outb(0x70, index)
        self.machine.outb(0x71, value)

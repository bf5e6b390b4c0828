#!/usr/bin/env python3
"""A hostile guest: fuzz.py WHISTLER [SECONDS [SEED]] makes random accesses to every port and memory range through qtest.

Best with a build under the sanitizers. A machine that powers off or leaves by a port is started again; what counts as
failed is one that crashes, hangs, or that a sanitizer complains about. The seed is printed, and repeats the run up to
where the disk's timing differs.
"""

import os
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "tools")]
import qtest  # noqa: E402

# Where chips are: more interesting than the rest of the 64 Ki ports. (first, count)
PORTS = [(0x00, 32), (0x60, 5), (0x61, 1), (0x70, 2), (0x80, 16), (0x92, 1), (0xB2, 2), (0xC0, 32), (0x170, 8),
         (0x1F0, 8), (0x2F8, 8), (0x376, 1), (0x3F6, 1), (0x3B0, 0x30), (0x3F8, 8), (0x402, 1), (0x480, 16), (0x4D0, 2),
         (0x510, 12), (0x1CE, 4), (0xCF8, 8), (0xAFE0, 8), (0xB000, 0x40), (0xB100, 0x10), (0xC000, 16)]
MEMORY = [(0, 0x1000), (0x80000, 0x1000), (0xA0000, 0x20000), (0xC0000, 0x40000), (0x100000, 0x1000),
          (16 << 20, 0x100), (0xE0000000, 0x1000000), (0xFEBF0000, 0x1000), (0xFEC00000, 0x1000),
          (0xFEE00000, 0x1000), (0xFFFC0000, 0x40000), (0xFFFFFFFC, 8), (1 << 32, 0x1000), ((1 << 64) - 8, 16)]
ATA = [0x20, 0x24, 0x25, 0x29, 0x30, 0x34, 0x35, 0x39, 0x40, 0x91, 0xA0, 0xA1, 0xB0, 0xC4, 0xC5, 0xC6, 0xC8, 0xCA, 0xE7,
       0xEA, 0xEC, 0xEF, 0xF8, 0x27, 0x06, 0x08, 0x90]
EDGES = [0, 1, 0x2001, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
WIDTH = {"b": 8, "w": 16, "l": 32, "q": 64}


class Fuzzer:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def value(self, bits):
        how = self.random.random()
        if how < 0.3:
            return self.random.choice(EDGES) & (1 << bits) - 1
        return self.random.getrandbits(bits if how < 0.7 else min(bits, 8))

    def place(self, ranges, limit):
        if self.random.random() < 0.05:
            return self.random.randrange(limit)
        first, count = self.random.choice(ranges)
        return (first + self.random.randrange(count)) % limit

    def configuration(self):
        slot, function = self.random.choice(((0, 0), (1, 0), (1, 1), (1, 3), (2, 0)))
        offset = self.random.choice((4, 6, 0x10, 0x14, 0x18, 0x20, 0x30, 0x3C, 0x40, 0x44, 0x48, 0x58, 0x59, 0x5C, 0x60,
                                     0x70, 0x72, 0x80, 0x90, 0xD2, self.random.randrange(256)))
        value = self.random.choice((0xC001, 0xE0000000, 0xFEBF0000, 0xB001, 0x3B1, 0xA0000, 7, self.value(32)))
        letter = self.random.choice("bwl")
        return [("outl", 0xCF8, 0x80000000 | slot << 11 | function << 8 | offset & 0xFC),
                (f"out{letter}", 0xCFC | offset & 3, value & (1 << WIDTH[letter]) - 1)]

    def drive(self):
        base = self.random.choice((0x1F0, 0x170))
        table = [("write", 0x80000, 16, "0x" + self.random.randbytes(16).hex()), ("outl", 0xC004, 0x80000)]
        registers = [("outb", base + offset, self.value(8)) for offset in range(1, 6)]
        registers.append(("outb", base + 6, 0xE0 | self.random.getrandbits(5)))
        data = [("outw", base, self.value(16)) if self.random.random() < 0.5 else ("inw", base)] * self.random.randrange(40)
        return table + registers + [("outb", base + 7, self.random.choice(ATA)), ("outb", 0xC000, 9), *data,
                                    ("inb", base + 7)]

    def firmware_dma(self):
        control = self.random.getrandbits(5) | self.random.getrandbits(6) << 16
        request = control.to_bytes(4, "big") + self.value(32).to_bytes(4, "big") + self.value(64).to_bytes(8, "big")
        return [("write", 0x90000, 16, "0x" + request.hex()), ("outl", 0x514, 0), ("outl", 0x518, 0x00000900)]

    def commands(self):
        how = self.random.random()
        if how < 0.45:
            letter = self.random.choice("bwl")
            port = self.place(PORTS, 0x10000)
            if self.random.random() < 0.6:
                return [(f"out{letter}", port, self.value(WIDTH[letter]))]
            return [(f"in{letter}", port)]
        if how < 0.7:
            letter = self.random.choice("bwlq")
            address = self.place(MEMORY, 1 << 64)
            if self.random.random() < 0.6:
                return [(f"write{letter}", address, self.value(WIDTH[letter]))]
            return [(f"read{letter}", address)]
        if how < 0.75:
            return [("read", self.place(MEMORY, 1 << 64), self.random.randint(1, 5000))]
        if how < 0.8:
            return [("clock_step", self.random.choice(("0", "1000", "1000000", "1000000000")))]
        if how < 0.87:
            return self.configuration()
        if how < 0.95:
            return self.drive()
        return self.firmware_dma()


SETUP = (("irq_intercept_in", "ioapic"),
         ("outl", 0xCF8, 0x80000920), ("outl", 0xCFC, 0xC001), ("outl", 0xCF8, 0x80000904), ("outw", 0xCFC, 5),  # IDE
         ("outl", 0xCF8, 0x80001010), ("outl", 0xCFC, 0xE0000000), ("outl", 0xCF8, 0x80001018),  # VGA
         ("outl", 0xCFC, 0xFEBF0000), ("outl", 0xCF8, 0x80001004), ("outw", 0xCFC, 3),
         ("outl", 0xCF8, 0x80000B40), ("outl", 0xCFC, 0xB001), ("outl", 0xCF8, 0x80000B80), ("outb", 0xCFC, 1))  # PM


def drive_machine(machine, fuzzer, end):
    """Until `end`, or until the machine goes away; how many commands went through, and the last ones."""
    commands, batch = 0, SETUP
    try:
        while time.monotonic() < end:
            machine.batch(batch)
            commands += len(batch)
            batch = [command for _ in range(10) for command in fuzzer.commands()]
        machine.process.terminate()
    except TimeoutError:
        machine.process.kill()
    except (ConnectionError, qtest.QtestError) as error:
        if isinstance(error, qtest.QtestError) and "connection closed" not in str(error):
            machine.stop()
            raise
    return commands, batch


def run(program, seconds, seed):
    """How many commands went through, and how often a machine ended itself, as it may; exits if one did otherwise."""
    fuzzer, end, total, machines = Fuzzer(seed), time.monotonic() + seconds, 0, 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory:
        disk, cdrom = Path(directory) / "disk.raw", Path(directory) / "cd.iso"
        disk.write_bytes(bytes(1 << 20))
        cdrom.write_bytes(bytes(1 << 20))
        while time.monotonic() < end:
            machine = qtest.Machine(program, 16, [disk], cdrom, ide=fuzzer.random.choice(("piix3", "piix4")))
            commands, batch = drive_machine(machine, fuzzer, end)
            total, machines = total + commands, machines + 1
            status, text = machine.wait_ended()
            machine.stop()
            if status != 0 or "Sanitizer" in text or "runtime error" in text:
                sys.exit(f"fuzz: status {status}, seed {seed}, command {total}, after {batch}\n{text}")
    return total, machines - 1


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    os.environ.setdefault("UBSAN_OPTIONS", "halt_on_error=1:print_stacktrace=1")
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 20.0
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    commands, endings = run(sys.argv[1], seconds, seed)
    print(f"seed {seed}: {commands} commands, {endings} times the machine ended itself")


if __name__ == "__main__":
    main()

"""Guests made of nothing but an assembler source: hello, demo, multiboot."""
import os

from store import HERE, guest, read, run, to_qcow2, write

DISK_SIZE = 1 << 20  # the boot sectors' partition entries say so, too


def assemble_disk(source, target):
    raw = target + ".raw"
    run("nasm", "-I", HERE + "/", "-f", "bin", "-o", raw, os.path.join(HERE, source))
    code = read(raw)
    write(raw, code + bytes(DISK_SIZE - len(code)))
    to_qcow2(raw, target)


@guest("hello.qcow2", ["hello/hello.asm"], ["nasm", "qemu-utils"])
def hello(target):
    """A boot sector that says HELLO on every channel and leaves by the exit port with status 85."""
    assemble_disk("hello/hello.asm", target)


@guest("demo.qcow2", ["demo/demo.asm"], ["nasm", "qemu-utils"])
def demo(target):
    """What ./run shows: facts of the machine, echo of what is typed, Esc powers off."""
    assemble_disk("demo/demo.asm", target)


PLANS = ["plans/boot.inc", "plans/boot_end.inc"]


@guest("hang.qcow2", ["plans/hang.asm", *PLANS], ["nasm", "qemu-utils"])
def hang(target):
    """A boot sector that says a word and then halts for good, with interrupts off."""
    assemble_disk("plans/hang.asm", target)


@guest("off.qcow2", ["plans/off.asm", *PLANS], ["nasm", "qemu-utils"])
def off(target):
    """A boot sector that says a word and powers off."""
    assemble_disk("plans/off.asm", target)


@guest("typing.qcow2", ["plans/typing.asm", *PLANS], ["nasm", "qemu-utils"])
def typing(target):
    """A boot sector that passes keys, as the BIOS gives them, on to the serial port."""
    assemble_disk("plans/typing.asm", target)


@guest("multiboot.elf", ["multiboot/multiboot.asm"], ["nasm", "binutils"])
def multiboot(target):
    """A multiboot kernel that checks its loader and leaves by the exit port with status 33."""
    run("nasm", "-f", "elf32", "-o", target + ".o", os.path.join(HERE, "multiboot/multiboot.asm"))
    # -n: no part of the file's headers is loaded, which would lie below 1 MiB.
    run("ld", "-m", "elf_i386", "-n", "-Ttext", "0x100000", "--build-id=none", "-s", "-o", target, target + ".o")

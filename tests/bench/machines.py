"""The same PC for each virtual machine monitor: how it is described to each, and started."""
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lab"), os.path.join(HERE, "..", "guests")]

SEABIOS = "/usr/share/seabios/bios-256k.bin"
MEMORY_MIB = 256
EXIT_PORT = 0xF4


class Pc:
    """What is measured: a full PC with VGA, VNC and disks, or as little as a monitor allows."""

    def __init__(self, bios=SEABIOS, disk=None, cdrom=None, serial=None, memory=MEMORY_MIB):
        self.bios = bios
        self.disk = disk
        self.cdrom = cdrom
        self.serial = serial
        self.memory = memory


class Whistler:
    name = "whistler"

    def __init__(self, program, work):
        self.program = program
        self.work = work
        self.count = 0

    def command(self, pc):
        drives = []
        if pc.disk:
            drives.append({"id": "hda", "interface": "ide", "bus": 0, "unit": 0, "media": "disk", "file": pc.disk,
                           "format": "qcow2", "cache": "writeback"})
        if pc.cdrom:
            drives.append({"id": "cd0", "interface": "ide", "bus": 1, "unit": 0, "media": "cdrom", "file": pc.cdrom,
                           "format": "raw"})
        description = {
            "name": "bench", "memory": f"{pc.memory}M", "cpu": {"cores": 1},
            "boot": {"order": ["disk", "cdrom"] if pc.disk else ["cdrom"]},
            "firmware": {"bios": pc.bios}, "drives": drives, "display": {"vga": "std"},
            "vnc": {"listen": "127.0.0.1", "port": -1},
            "debug": {"exit_port": hex(EXIT_PORT)}}
        if pc.serial:
            description["serial"] = [{"backend": "file", "path": pc.serial}]
        self.count += 1
        path = os.path.join(self.work, f"bench-{self.count}.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(description, file, indent=2)
        return [self.program, "run", path]


class Qemu:
    name = "qemu"

    def __init__(self, program, kind):
        self.program = program
        self.kind = kind

    def command(self, pc):
        # On the emulating KVM a feature MSR cannot be set. In the lab the TPR patching must stay off: TCG aborts with
        # it.
        cpu = "host" if self.kind == "real" else "host,-arch-capabilities"
        command = [self.program, "-nodefaults", "-machine", "pc,vmport=off", "-accel", "kvm", "-cpu", cpu,
                   "-global", "kvm-apic.vapic=off", "-m", str(pc.memory), "-bios", pc.bios, "-vga", "std",
                   "-display", "none", "-vnc", "127.0.0.1:0,to=99",
                   "-device", f"isa-debug-exit,iobase={EXIT_PORT:#x},iosize=1"]
        if pc.disk:
            command += ["-drive", f"if=ide,index=0,file={pc.disk},format=qcow2,cache=writeback"]
        if pc.cdrom:
            command += ["-drive", f"if=ide,index=2,media=cdrom,file={pc.cdrom},format=raw,readonly=on"]
        if pc.serial:
            command += ["-serial", f"file:{pc.serial}"]
        return command


class Bare:
    """Only the KVM calls; see bare.c."""
    name = "bare"

    def __init__(self, work):
        self.program = compile_c(work, "bare")

    def command(self, pc):
        return [self.program, pc.bios, str(pc.memory)]


def compile_c(work, name):
    """Path of the program made of NAME.c."""
    program = os.path.join(work, name)
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", program, os.path.join(HERE, f"{name}.c")], check=True)
    return program


def make_rom(work, mode, count):
    """Path of the BIOS image that does `count` times what `mode` says; see rom.asm."""
    path = os.path.join(work, f"rom-{mode}-{count}.bin")
    if not os.path.exists(path):
        subprocess.run(["nasm", "-f", "bin", f"-DMODE={mode}", f"-DCOUNT={count}", "-o", path,
                        os.path.join(HERE, "rom.asm")], check=True)
    return path


def make_numbered_disk(work):
    """Path of an 8 MiB qcow2 disk whose sectors start with their own numbers."""
    path = os.path.join(work, "numbered.qcow2")
    if not os.path.exists(path):
        raw = os.path.join(work, "numbered.raw")
        with open(raw, "wb") as file:
            for sector in range(8 << 11):
                file.write(sector.to_bytes(4, "little") + bytes([sector & 0xFF | 1]) * 508)
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path], check=True)
        os.remove(raw)
    return path

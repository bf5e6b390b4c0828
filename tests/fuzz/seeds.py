#!/usr/bin/env python3
"""Makes the inputs the fuzzers begin with: small images of every kind, by qemu-img and by hand.

usage: seeds.py FOLDER; makes FOLDER/TARGET/... for every target.
"""

import struct
import subprocess
import sys
import tempfile
from pathlib import Path

MIB = 1 << 20
MAX_SEED_BYTES = 4 * MIB


def qemu(*arguments):
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)


def images(scratch, form, variants):
    """The bytes of one small image for each set of create options."""
    for number, options in enumerate(variants):
        path = scratch / f"{form}{number}"
        size, *rest = options
        qemu("qemu-img", "create", "-q", "-f", form, *rest, path, size)
        qemu("qemu-io", "-f", form, "-c", "write -P 7 0 3k", path)
        yield path


def qcow2(scratch):
    """The first byte chooses what the target does."""
    for path in images(scratch, "qcow2", [
            ("64k", "-o", "cluster_size=512"),
            ("64k", "-o", "cluster_size=512,compat=0.10"),
            ("64k", "-o", "cluster_size=1k,refcount_bits=1"),
            ("64k", "-o", "cluster_size=1k,refcount_bits=64,lazy_refcounts=on"),
            ("256k", "-o", "cluster_size=16k,extended_l2=on")]):
        qemu("qemu-io", "-f", "qcow2", "-c", "write -z 4k 4k", path)
        qemu("qemu-io", "-f", "qcow2", "-c", "write -c 32k 16k", path)
        if "refcount_bits=1" not in str(path):
            subprocess.run(["qemu-img", "snapshot", "-c", "one", path], check=False, stderr=subprocess.DEVNULL)
        qemu("qemu-io", "-f", "qcow2", "-c", "write -P 9 2k 2k", path)
        content = path.read_bytes()
        for what in (0, 1, 4, 8 | 4 | 2, 16, 32, 63):
            yield bytes([what]) + content


def vhdx_header(log):
    guid = b"Z" * 16 if log else bytes(16)
    return b"head" + struct.pack("<IQ", 0, 7) + bytes(32) + guid + struct.pack("<HHIQ", 0, 1, 65536, MIB) + bytes(48)


def vhdx_region(guid, offset):
    return bytes.fromhex(guid) + struct.pack("<QII", offset, MIB, 1)


def vhdx_item(guid, offset):
    return bytes.fromhex(guid) + struct.pack("<IIII", offset, 8, 4, 0)


def vhdx_log():
    """One entry with one descriptor of each kind."""
    entry = b"loge" + struct.pack("<IIIQII", 0, 8192, 0, 20, 2, 0) + b"Z" * 16 + struct.pack("<QQ", MIB, 4 * MIB)
    entry += b"zero" + struct.pack("<IQQQ", 0, 4096, 3 * MIB + 4096, 20)
    entry += b"desc" + struct.pack("<IQQQ", 0, 0, 3 * MIB + 8192, 20)
    return entry.ljust(4096, b"\0") + b"data" + bytes(4088) + struct.pack("<I", 20)


def vhdx(_scratch):
    """In the short form of vhdx_fuzz.cpp."""
    regions = (b"regi" + struct.pack("<III", 0, 2, 0)
               + vhdx_region("6677c22d23f600429d64115e9bfd4a08", 3 * MIB)
               + vhdx_region("06a27c8b90479a4bb8fe575f050f886e", 2 * MIB))
    table = (b"metadata" + struct.pack("<HH", 0, 3) + bytes(20)
             + vhdx_item("3767a1ca36fa434db3b633f0aa44e76b", 65536)
             + vhdx_item("2442a52f1bcd7648b2115dbed83bf4b8", 65544)
             + vhdx_item("1dbf41816fa90947ba47f233a8faab5f", 65552))
    items = struct.pack("<QQI", MIB, 8 * MIB, 512)
    blocks = struct.pack("<8Q", 0, 1, 2, 3 * MIB | 6, 3, 0, 6, 2)
    for flags in (0, 1):
        for log in (b"", vhdx_log()):
            yield (bytes([flags]) + vhdx_header(bool(log)).ljust(128, b"\0") + regions.ljust(128, b"\0")
                   + table.ljust(512, b"\0") + items.ljust(512, b"\0") + blocks.ljust(512, b"\0") + log)


def vdi(scratch):
    for path in images(scratch, "vdi", [("3M",), ("1M", "-o", "static=on")]):
        yield path.read_bytes()[:2048]


def vhd(scratch):
    for path in images(scratch, "vpc", [("4M", "-o", "force_size=on"), ("20k", "-o", "force_size=on,subformat=fixed")]):
        content = path.read_bytes()
        yield content
        yield content[:2560]


def vmdk(scratch):
    for path in images(scratch, "vmdk", [("1M",), ("1M", "-o", "zeroed_grain=on")]):
        yield path.read_bytes()
    source = scratch / "source"
    source.write_bytes(b"abc" * 30000)
    target = scratch / "stream.vmdk"
    qemu("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", source, target)
    yield target.read_bytes()
    for extent in ('RW 10 FLAT "x" 3', 'RW 128 SPARSE "x"', 'RW 5 VMFS "x"\nRW 20 ZERO', 'RW 128 VMFSSPARSE "x"'):
        yield ("# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
               f'createType="monolithicFlat"\nparentFileNameHint="p"\n{extent}\n').encode()
    yield b"COWD" + struct.pack("<IIIIII", 1, 3, 2048, 8, 1, 1) + bytes(484) + struct.pack("<I", 2) + bytes(2000)


def machines(_scratch):
    for path in sorted((Path(__file__).resolve().parents[1] / "cli" / "domains").glob("*.xml")):
        yield path.read_bytes()
    yield (b"qemu-system-i386 -M pc,accel=kvm -m 1G -smp 2,cores=2 -cpu host,+pae,-lm -hda a.qcow2 -cdrom x.iso -fda f -boot dc,menu=on "
           b"-drive file=d,format=raw,cache=none,if=virtio -drive if=none,id=n,file=/a -device ide-hd,drive=n,bus=ide.0,unit=1,bootindex=2 "
           b"-blockdev driver=file,filename=/b,node-name=f -blockdev driver=qcow2,file=f,node-name=t -device ide-hd,drive=t,serial=x "
           b"-device '{\"driver\":\"ide-cd\",\"unit\":0}' -vnc :3,password=on -netdev user,id=n0 -device rtl8139,netdev=n0 -nic tap -net nic "
           b"-rtc base=2006-06-17T16:01:21 -serial mon:stdio -chardev socket,id=q,path=/q,server=on -mon chardev=q,mode=control "
           b"-debugcon file:a -device isa-debug-exit,iobase=0xf4 -name guest=xp -usb -global VGA.vgamem_mb=32 -no-reboot -frob x")


def main():
    folder = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        for name, make in (("qcow2", qcow2), ("vdi", vdi), ("vhd", vhd), ("vhdx", vhdx), ("vmdk", vmdk), ("import", machines)):
            target = folder / name
            target.mkdir(parents=True, exist_ok=True)
            for number, content in enumerate(make(Path(scratch))):
                if len(content) <= MAX_SEED_BYTES:
                    (target / f"seed{number}").write_bytes(content)


if __name__ == "__main__":
    main()

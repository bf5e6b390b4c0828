#!/usr/bin/env python3
"""Option by option: an image of ours checked, read and written by QEMU's tools, and one of theirs by ours.

    tests/blocktools/test_matrix.py     prints the table, as Markdown; needs WHISTLER, the program

For each line and each direction one side makes the image, writes to it and takes a snapshot; the other checks it, reads
the same bytes out of it, and writes to it; then the first checks and reads again.
"""
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import unittest

WHISTLER = os.path.abspath(os.environ.get("WHISTLER", "build/release/vmm/whistler"))
KEY = ("--object", "secret,id=s0,data=password")
SIZE = 4 << 20

# (option, arguments of -o, what else). The default of 64 KiB clusters, 16-bit refcounts and version 3 unless said.
CASES = [
    ("defaults", "", ""),
    ("version 2", "compat=0.10", ""),
    ("version 2, clusters of 512 bytes", "compat=0.10,cluster_size=512", ""),
    *((f"clusters of {size}", f"cluster_size={size}", "") for size in ("512", "1k", "4k", "32k", "128k", "1M", "2M")),
    *((f"refcounts of {bits} bits", f"refcount_bits={bits}", "" if bits > 1 else "no snapshot")
      for bits in (1, 2, 4, 8, 32, 64)),
    ("clusters of 512 bytes, refcounts of 64 bits", "cluster_size=512,refcount_bits=64", ""),
    ("lazy refcounts", "lazy_refcounts=on", ""),
    ("extended L2", "extended_l2=on", ""),
    ("extended L2, clusters of 16 KiB", "extended_l2=on,cluster_size=16k", ""),
    ("extended L2, clusters of 2 MiB", "extended_l2=on,cluster_size=2M", ""),
    *((f"preallocation {mode}", f"preallocation={mode}", "") for mode in ("metadata", "falloc", "full")),
    ("preallocation metadata, extended L2", "preallocation=metadata,extended_l2=on", ""),
    ("compressed clusters, zlib", "compression_type=zlib", "compressed"),
    ("compressed clusters, zstd", "compression_type=zstd", "compressed"),
    ("compressed clusters, extended L2", "extended_l2=on", "compressed"),
    ("compressed clusters of 2 MiB", "cluster_size=2M", "compressed"),
    ("backing file, qcow2", "", "backing qcow2"),
    ("backing file, raw", "", "backing raw"),
    ("backing file, shorter than the disk", "", "backing short"),
    ("backing file, version 2", "compat=0.10", "backing qcow2"),
    ("backing file, extended L2", "extended_l2=on", "backing qcow2"),
    ("external data file", "data_file=DATA", ""),
    ("external data file, raw", "data_file=DATA,data_file_raw=on", ""),
    ("external data file, extended L2", "data_file=DATA,extended_l2=on", ""),
    ("LUKS", "encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=10", "key"),
    ("LUKS, extended L2", "encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=10,extended_l2=on", "key"),
    ("LUKS, backing file", "encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=10", "key, backing qcow2"),
    ("AES of old", "encrypt.format=aes,encrypt.key-secret=s0", "key"),
    ("persistent bitmap", "", "bitmap"),
    ("grown", "", "grow"),
    ("shrunk", "", "shrink"),
]


class Refused(Exception):
    """A program did not do what the table asks of it."""


class Side:
    """One side's tools, in the folder of a case."""

    def __init__(self, folder, ours, links):
        self.folder, self.name = folder, "ours" if ours else "QEMU's"
        self.path = links + "/" if ours else ""

    def run(self, tool, *words):
        for _ in range(20):
            done = subprocess.run([f"{self.path}qemu-{tool}", *words], cwd=self.folder, capture_output=True, text=True,
                                  check=False, timeout=120)
            # QEMU times its key derivation by processor time, and may find none spent.
            if "Unable to get accurate CPU usage" not in done.stderr:
                break
        if done.returncode != 0 or "verification failed" in done.stdout + done.stderr:
            raise Refused(f"{self.name} {tool} {' '.join(words)}: status {done.returncode}: {done.stdout}{done.stderr}")


def named(key):
    return "driver=qcow2,file.filename=disk.qcow2" + (",encrypt.key-secret=s0" if key else "")


def write(side, chance, key):
    """Data, zeroes and discards, at places of its own."""
    commands = []
    for _ in range(6):
        at, length = chance.randrange(0, SIZE // 512 - 300) * 512, chance.randrange(1, 300) * 512
        commands.append(f"write -P {chance.randrange(1, 255)} {at} {length}")
    at = chance.randrange(0, 20) * 65536
    commands += [f"write -z {at} 100k", f"write -z -u {at + 262144} 128k", f"discard {at + 524288} 64k"]
    words = [word for command in commands for word in ("-c", command)]
    side.run("io", *(KEY if key else ()), *words, "--image-opts", named(key))


def content(side, key):
    side.run("img", "convert", *(KEY if key else ()), "--image-opts", named(key), "-O", "raw", "out.raw")
    with open(os.path.join(side.folder, "out.raw"), "rb") as raw:
        return hashlib.sha256(raw.read()).hexdigest()


def check(side, key):
    side.run("img", "check", *(KEY if key else ()), "--image-opts", named(key))


def prepare(maker, options, what, key):
    backing = []
    if "backing" in what:
        form = "raw" if "backing raw" in what else "qcow2"
        maker.run("img", "create", "-q", "-f", form, "base", "1M" if "short" in what else str(SIZE))
        maker.run("io", "-f", form, "-c", "write -P 77 100k 700k", "base")
        backing = ["-b", "base", "-F", form]
    words = ["-o", options.replace("DATA", "disk.data")] if options else []
    maker.run("img", "create", "-q", "-f", "qcow2", *(KEY if key else ()), *words, *backing, "disk.qcow2", str(SIZE))
    if "compressed" in what:  # first: only what is not there yet can be written so
        maker.run("io", "-f", "qcow2", "-c", "write -c -P 201 0 2M", "-c", "write -c -P 202 2M 2M", "disk.qcow2")


def direction(maker, other, case, seed):
    """Raises Refused, or AssertionError where the two read different things."""
    _, options, what = case
    key = "key" in what
    chance = random.Random(seed)
    prepare(maker, options, what, key)
    write(maker, chance, key)
    if "bitmap" in what:
        maker.run("img", "bitmap", "--add", "-f", "qcow2", "disk.qcow2", "b0")
    if "no snapshot" not in what and "data_file" not in options:
        maker.run("img", "snapshot", "-c", "then", "--image-opts", *(KEY if key else ()), named(key)) if key else \
            maker.run("img", "snapshot", "-c", "then", "disk.qcow2")
        write(maker, chance, key)
    if "grow" in what:
        maker.run("img", "resize", "-q", "disk.qcow2", str(2 * SIZE + 1024))
    if "shrink" in what:
        maker.run("img", "snapshot", "-d", "then", "disk.qcow2")
        maker.run("img", "resize", "-q", "--shrink", "disk.qcow2", str(SIZE - 300 * 1024))
        maker.run("img", "resize", "-q", "disk.qcow2", str(SIZE))
    check(other, key)
    if content(other, key) != content(maker, key):
        raise Refused(f"{other.name} tools read something else than {maker.name}")
    write(other, chance, key)
    check(maker, key)
    if content(other, key) != content(maker, key):
        raise Refused(f"{maker.name} tools read something else than {other.name}, after a write of these")


def try_case(case, ours_makes):
    """"" or what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        links = os.path.join(folder, "links")
        os.mkdir(links)
        for tool in ("img", "io"):
            os.symlink(WHISTLER, os.path.join(links, f"qemu-{tool}"))
        ours, theirs = Side(folder, True, links), Side(folder, False, links)
        try:
            direction(*((ours, theirs) if ours_makes else (theirs, ours)), case, seed=case[0])
        except Refused as refused:
            return str(refused)
    return ""


class Matrix(unittest.TestCase):
    def test_every_option_both_ways(self):
        for case in CASES:
            for ours_makes in (True, False):
                with self.subTest(option=case[0], maker="ours" if ours_makes else "QEMU"):
                    self.assertEqual(try_case(case, ours_makes), "")


def main():
    print("| option | ours, checked, read and written by QEMU | QEMU's, by ours |\n|---|---|---|")
    failures = []
    for case in CASES:
        reasons = [try_case(case, ours_makes) for ours_makes in (True, False)]
        print(f"| {case[0]} | {' | '.join('FAILED' if reason else 'ok' for reason in reasons)} |", flush=True)
        failures += [f"{case[0]}: {reason}" for reason in reasons if reason]
    print("\n".join(failures), file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

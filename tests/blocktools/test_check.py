#!/usr/bin/env python3
"""`whistler img check` finds and repairs what qemu-img check does: the same words, the same counts, the same status."""

import os
import shutil
import struct
import subprocess
import tempfile
import unittest
from pathlib import Path

WHISTLER = os.environ.get("WHISTLER", "build/dev/vmm/whistler")
OFFSET = 0x00fffffffffffe00


class Damage:
    """Changes single numbers of an image of QEMU's: header, refcount table, block, L1 table in the first clusters."""

    def __init__(self, path, cluster=65536):
        self.bytes = bytearray(Path(path).read_bytes())
        self.path, self.cluster = path, cluster
        self.l1 = self.number(40)
        self.l2 = self.number(self.l1) & OFFSET
        self.table = self.number(48)
        self.block = self.number(self.table)

    def number(self, at):
        return struct.unpack_from(">Q", self.bytes, at)[0]

    def set(self, at, value, kind=">Q"):
        struct.pack_into(kind, self.bytes, at, value)
        return self

    def count(self, cluster, value):
        return self.set(self.block + 2 * cluster, value, ">H")

    def done(self):
        Path(self.path).write_bytes(self.bytes)


@unittest.skipUnless(shutil.which("qemu-io") and shutil.which("qemu-img"), "compares with qemu-img")
class SameAsQemuImg(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.link = Path(self.folder.name) / "bin" / "qemu-img"
        self.link.parent.mkdir()
        self.link.symlink_to(Path(WHISTLER).resolve())

    def check(self, damage, *options, create=()):
        results = []
        for program in ("qemu-img", str(self.link)):
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "a.qcow2")
                subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *create, "a.qcow2", "4M"], check=True,
                               cwd=folder)
                subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 128k", "a.qcow2"], check=True,
                               stdout=subprocess.DEVNULL, cwd=folder)
                damage(Damage(path))
                outputs = []
                for words in (["check", *options, "a.qcow2"], ["check", "a.qcow2"]):
                    done = subprocess.run([program, *words], cwd=folder, capture_output=True, text=True, check=False)
                    outputs.append((done.returncode, done.stdout, done.stderr))
                results.append(outputs)
        self.assertEqual(results[0], results[1])

    def test_statistics(self):
        # Four tables of 64 clusters each: where one ends and the next begins, there is no fragment.
        for create in ((), ("-o", "cluster_size=512"), ("-o", "cluster_size=512,data_file=a.raw")):
            for options in ((), ("--output=json",)):
                with self.subTest(create=create, options=options):
                    self.check(lambda damage: None, *options, create=create)

    def every_repair(self, damage, repairs=("leaks", "all"), **settings):
        for options in ((), *(("-r", repair) for repair in repairs), *(("-r", repair, "--output=json") for repair in repairs)):
            with self.subTest(options=options):
                self.check(damage, *options, **settings)

    def test_used_cluster_that_counts_as_free(self):
        self.every_repair(lambda image: image.count(5, 0).done())

    def test_header_that_counts_as_free(self):
        self.every_repair(lambda image: image.count(0, 0).done())

    def test_leak_and_count_too_high(self):
        self.every_repair(lambda image: image.count(5, 2).done())

    def test_count_too_low(self):
        self.every_repair(lambda image: image.set(image.l2 + 8, image.number(image.l2)).done())

    def test_l2_table_that_is_the_l1_table(self):
        # Repairing: QEMU gives up on its own guard of the L2 table.
        self.every_repair(lambda image: image.set(image.l1, image.l1 | 1 << 63).done(), repairs=("leaks",))

    def test_data_that_is_the_refcount_block(self):
        # Repairing: QEMU makes the new structure in holes, we behind the end, where nothing can be hit.
        self.every_repair(lambda image: image.set(image.l2, image.block | 1 << 63).done(), repairs=("leaks",))

    def test_wrong_mark(self):
        self.every_repair(lambda image: image.set(image.l2, image.number(image.l2) & OFFSET).done())

    def test_data_far_behind_the_end(self):
        self.every_repair(lambda image: image.set(image.l2, 1 << 63 | 1 << 55).done())

    def test_more_uses_than_the_width_holds(self):
        self.every_repair(lambda image: image.set(image.l2 + 8, image.number(image.l2)).done(),
                          create=("-o", "refcount_bits=1"))

    def test_zero_cluster_with_an_unaligned_host_cluster(self):
        self.every_repair(lambda image: image.set(image.l2 + 64, 1 << 63 | 0x2a01).done())

    def test_snapshot_beyond_the_width_of_the_counts(self):
        said = []
        for program in ("qemu-img", str(self.link)):
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "a.qcow2")
                subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "refcount_bits=1", path, "4M"], check=True)
                subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write 0 64k", path], check=True, stdout=subprocess.DEVNULL)
                done = subprocess.run([program, "snapshot", "-c", "s", path], capture_output=True, text=True, check=False)
                said.append((done.returncode, done.stdout, done.stderr))
        self.assertEqual(said[0], said[1])


if __name__ == "__main__":
    unittest.main()

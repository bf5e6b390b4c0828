#!/usr/bin/env python3
"""`whistler img check` finds and repairs what qemu-img check does: the same words, the same counts, the same status."""

import json
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

    def test_wrong_mark_of_what_is_in_another_file(self):
        self.every_repair(lambda image: image.set(image.l2 + 8, image.number(image.l2 + 8) & OFFSET).done(),
                          create=("-o", "data_file=a.raw"))

    def test_data_far_behind_the_end(self):
        self.every_repair(lambda image: image.set(image.l2, 1 << 63 | 1 << 55).done())

    def test_more_uses_than_the_width_holds(self):
        self.every_repair(lambda image: image.set(image.l2 + 8, image.number(image.l2)).done(),
                          create=("-o", "refcount_bits=1"))

    def test_zero_cluster_with_an_unaligned_host_cluster(self):
        self.every_repair(lambda image: image.set(image.l2 + 64, 1 << 63 | 0x2a01).done())

    def test_reserved_bits(self):
        self.every_repair(lambda image: image.set(image.l1, image.number(image.l1) | 2).done())
        self.every_repair(lambda image: image.set(image.l2, image.number(image.l2) | 1 << 60).done())
        self.every_repair(lambda image: image.set(image.l2 + 8, image.number(image.l2 + 8) | 4).done())

    def test_last_header_extension_that_is_too_long(self):
        def damage(image):
            at = struct.unpack_from(">I", image.bytes, 100)[0]
            while struct.unpack_from(">I", image.bytes, at)[0] != 0:
                at += 8 + (struct.unpack_from(">I", image.bytes, at + 4)[0] + 7) // 8 * 8
            image.set(at + 4, 1 << 24, ">I").done()
        self.check(damage)

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


class Hostile(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.image = os.path.join(self.folder.name, "a.qcow2")

    def qemu(self, *words):
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, cwd=self.folder.name)

    def ours(self, *words, timeout=60):
        return subprocess.run([WHISTLER, *words], cwd=self.folder.name, capture_output=True, text=True, check=False, timeout=timeout)

    def test_refcount_table_that_names_one_block_everywhere(self):
        self.qemu("qemu-img", "create", "-q", "-f", "qcow2", self.image, "4M")
        damage = Damage(self.image)
        for entry in range(damage.cluster // 8):
            damage.set(damage.table + 8 * entry, damage.block)
        damage.done()
        self.assertNotEqual(self.ours("img", "check", self.image).returncode, 0)  # 268 million clusters, if one believes it
        self.ours("img", "check", "-r", "all", self.image)
        self.qemu("qemu-img", "check", "-q", self.image)

    def test_raw_data_file_whose_clusters_lie_elsewhere(self):
        self.qemu("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=d.raw,data_file_raw=on", self.image, "4M")
        self.qemu("qemu-io", "-c", "write 0 128k", self.image)
        damage = Damage(self.image)
        damage.set(damage.l2, 1 << 63 | 0x20000).done()
        for command in (["img", "convert", "-f", "qcow2", "-O", "raw", self.image, "out"], ["img", "map", "-f", "qcow2", self.image],
                        ["io", "-r", "-c", "read 0 512", self.image], ["io", "-c", "write 0 512", self.image]):
            done = self.ours(*command)
            self.assertEqual(done.returncode, 1)
            self.assertIn("host cluster offset 0x20000 does not match guest cluster offset: 0", done.stdout + done.stderr)
            self.qemu("qemu-img", "check", "-q", self.image)

    def test_bitmaps_take_memory_only_for_what_they_mark(self):
        # Three of 512 MiB each; that is more than all may have, so that two are given up, and say so.
        self.qemu("qemu-img", "create", "-q", "-f", "qcow2", self.image, "2T")
        for name in ("a", "b", "c"):
            self.qemu("qemu-img", "bitmap", "--add", "-g", "512", self.image, name)
        with subprocess.Popen([WHISTLER, "io", "-c", "write 1T 64k", self.image], stdout=subprocess.DEVNULL) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 0)
        self.assertLess(usage.ru_maxrss, 400 << 10)
        info = json.loads(subprocess.run(["qemu-img", "info", "--output=json", self.image], check=True, capture_output=True).stdout)
        bitmaps = info["format-specific"]["data"]["bitmaps"]
        self.assertEqual([(each["name"], "in-use" in each["flags"]) for each in bitmaps], [("a", False), ("b", True), ("c", True)])


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""img create, info, check, map, measure, resize, snapshot and amend print what qemu-img prints, and end as it does.

The same commands run in two folders, one with each program, and their whole output is compared. The program is
taken from WHISTLER.
"""

import json
import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

WHISTLER = os.path.abspath(os.environ.get("WHISTLER", "build/dev/vmm/whistler"))


class Pair:
    """A folder for each of the two programs."""

    def __init__(self, root):
        self.folders = {name: Path(root, name) for name in ("ours", "qemu")}
        links = Path(root, "links")
        links.mkdir()
        (links / "qemu-img").symlink_to(WHISTLER)
        self.programs = {"ours": str(links / "qemu-img"), "qemu": "qemu-img"}
        for folder in self.folders.values():
            folder.mkdir()

    def run(self, *words):
        """(status, output) of both."""
        return tuple(self.run_one(name, *words) for name in ("ours", "qemu"))

    def run_one(self, name, *words):
        done = subprocess.run([self.programs[name], *words], cwd=self.folders[name], capture_output=True, text=True,
                              check=False, timeout=120)
        return done.returncode, done.stdout + "|" + done.stderr

    def io(self, image, *commands, image_format="qcow2"):
        words = [word for command in commands for word in ("-c", command)]
        for folder in self.folders.values():
            subprocess.run(["qemu-io", "-f", image_format, *words, image], cwd=folder, check=True,
                           stdout=subprocess.DEVNULL)


def steady(text):
    """Without what depends on the moment or on the order of host allocations."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE", text)
    text = re.sub(r'"date-(sec|nsec)": \d+', r'"date-\1": 0', text)
    text = re.sub(r"disk size: .*", "disk size: X", text)
    return re.sub(r'"actual-size": \d+', '"actual-size": 0', text)


class SameOutput(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.pair = Pair(folder.name)

    def same(self, *words):
        (our_status, ours), (status, theirs) = self.pair.run(*words)
        self.assertEqual(steady(ours), steady(theirs), f"output of {words}")
        self.assertEqual(our_status, status, f"status of {words}")
        return ours

    def test_create_announces_options_in_qemus_order(self):
        for options in ("", "compat=0.10", "cluster_size=4k", "extended_l2=on", "lazy_refcounts=on,refcount_bits=1",
                        "preallocation=metadata", "compression_type=zstd", "size=3M", "data_file=d.raw"):
            words = ["-o", options] if options else []
            with self.subTest(options):
                self.same("create", "-f", "qcow2", *words, "t.qcow2", *([] if "size" == options[:4] else ["64M"]))
                self.same("info", "t.qcow2")

    def test_create_refuses_what_qemu_refuses(self):
        for options in ("foo=1", "cluster_size=3k", "cluster_size=x", "cluster_size=32E", "compat=0.42",
                        "lazy_refcounts=x", "refcount_bits=7", "refcount_bits=x", "compat=v2,refcount_bits=8",
                        "compat=v2,lazy_refcounts=on", "extended_l2=on,cluster_size=4k", "data_file_raw=on",
                        "compression_type=x", "preallocation=x", "backing_file=", ",", "a,"):
            with self.subTest(options):
                self.same("create", "-q", "-f", "qcow2", "-o", options, "t.qcow2", "1G")
        self.same("create", "-f", "qcow2", "-o", "refcount_bits=-1", "t.qcow2", "1G")
        for size in ("", "1X", "-1", "1.5", "9E", "16E", "0x", "1kk", "1.5k", "0x400", "1b", "+1k", " 1k"):
            with self.subTest(size):
                self.same("create", "-f", "raw", "--", "t.raw", size)

    def test_create_with_backing_files(self):
        self.same("create", "-q", "-f", "qcow2", "base", "3M")
        self.same("create", "-q", "-f", "raw", "base.raw", "2M")
        for words in (("-b", "base", "-F", "qcow2", "t"), ("-b", "base.raw", "-F", "raw", "t"),
                      ("-b", "base", "-F", "qcow2", "t", "64M"), ("-b", "base", "t"), ("-b", "none", "-F", "raw", "t"),
                      ("-b", "base", "-F", "nothing", "t"), ("-b", "t", "-F", "raw", "t"), ("-F", "raw", "t", "1M"),
                      ("-u", "-b", "none", "-F", "raw", "t"), ("-u", "-b", "none", "-F", "raw", "t", "1M"),
                      ("-u", "-b", "none", "t", "1M"), ("t",), ("t", "1M", "2M"), ()):
            with self.subTest(words):
                self.same("create", "-f", "qcow2", *words)
        self.same("create", "-f", "raw", "-b", "base", "t", "1M")

    def test_help_of_options(self):
        for words in (("create", "-f", "qcow2", "-o", "help"), ("create", "-f", "raw", "-o", "help"),
                      ("create", "-f", "qcow2", "-o", "help", "x"), ("convert", "-O", "qcow2", "-o", "help", "none", "x"),
                      ("convert", "-O", "vpc", "-o", "?"), ("convert", "-O", "vpc", "-o", "help,foo=bar", "x"),
                      ("convert", "-O", "qcow2", "-o", "help", "none", "foo:x"),
                      ("convert", "-O", "qcow2", "-c", "-C", "-o", "help"),
                      ("create", "-f", "raw", "-o", "help", "x"),
                      ("amend", "-f", "qcow2", "-o", "help"), ("create", "-f", "nothing", "-o", "help")):
            with self.subTest(words):
                self.same(*words)

    def test_names_of_images(self):
        self.same("create", "-q", "-f", "qcow2", "t.qcow2", "1M")
        self.same("create", "-q", "-f", "raw", "t.raw", "1M")
        for words in (("none",), ("-f", "qcow2", "t.raw"), ("-f", "nothing", "t.raw"), ("foo:t",), ("/",), ("json:{x",),
                      ('json:{"driver":"qcow2","file":{"driver":"file","filename":"t.qcow2"}}',),
                      ("json:{'driver':'raw','file.filename':'t.qcow2'}",), ("json:{}",), ("json:[]",),
                      ("--image-opts", "driver=qcow2,file.filename=t.qcow2"), ("--image-opts", "driver=qcow2"),
                      ("--image-opts", "driver=qcow2,file.filename=t.qcow2,foo=bar"),
                      ("--image-opts", "driver=raw,file.filename=t.raw,offset=512,size=1024"),
                      ("--image-opts", "driver=null-co,size=1M"), ("--image-opts", "driver=qcow2,file=x"),
                      ("blkdebug::t.qcow2",), ("blkdebug:none:t.qcow2",), ("blkdebug:t",), ("null-co://",), ("a", "b"),
                      ("--output=x", "t.raw"), ("--bad", "t.raw")):
            with self.subTest(words):
                self.same("info", *words)

    def test_info_of_chains_and_snapshots(self):
        self.same("create", "-q", "-f", "qcow2", "base", "3M")
        for folder in self.pair.folders.values():
            (folder / "sub").mkdir()
        self.same("create", "-q", "-f", "qcow2", "-b", "../base", "-F", "qcow2", "sub/top")
        self.same("snapshot", "-c", "first", "base")
        self.same("snapshot", "-c", "a very long name of a snapshot", "base")
        self.same("snapshot", "-l", "base")
        for words in (("--backing-chain", "sub/top"), ("--backing-chain", "--output=json", "sub/top"), ("sub/top",),
                      ("--output=json", "base")):
            with self.subTest(words):
                text = self.same("info", *words)
                if "--output=json" in words:
                    json.loads(text.rpartition("|")[0])
        for words in (("-a", "first"), ("-a", "none"), ("-d", "none"), ("-d", "first"), ("-d", "1"), ("-l",), (),
                      ("-l", "-c", "x"), ("-d", "a very long name of a snapshot")):
            with self.subTest(words):
                self.same("snapshot", *words, "base")

    def test_check(self):
        self.same("create", "-q", "-f", "qcow2", "t", "1M")
        self.pair.io("t", "write 0 128k", "write 256k 64k")
        for words in ((), ("--output=json",), ("-q",), ("-r", "all"), ("-r", "leaks"), ("-r", "x"), ("--output=x",),
                      ("-f", "raw"), ("-T", "x"), ("-U",)):
            with self.subTest(words):
                self.same("check", *words, "t")
        for folder in self.pair.folders.values():  # a cluster behind all others counts as used: a leak
            with open(folder / "t", "r+b") as image:
                image.seek(2 * 65536 + 2 * 9)
                image.write(b"\0\1")
                image.truncate(16 * 65536)
        for words, status in (((), 3), (("-r", "leaks"), 0), ((), 0)):
            with self.subTest(words):
                self.same("check", "-q", "--output=json", "t")
                (ours, _), (theirs, _) = self.pair.run("check", "-q", *words, "t")
                self.assertEqual((ours, theirs), (status, status))

    def test_map(self):
        self.same("create", "-q", "-f", "qcow2", "base", "1M")
        self.pair.io("base", "write 0 256k", "write -z 512k 64k", "write -z -u 576k 64k")
        self.same("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "t", "2M")
        self.pair.io("t", "write 0 64k", "write 1M 128k")
        self.same("create", "-q", "-f", "raw", "t.raw", "1M")
        self.pair.io("t.raw", "write 64k 64k", image_format="raw")
        for words in ((), ("--output=json",), ("--start-offset=64k",), ("--start-offset=64k", "--max-length=64k"),
                      ("--output=json", "-s", "100k", "-l", "1M"), ("--output=x",), ("-s", "x")):
            for image in (("base",), ("t",), ("-f", "raw", "t.raw")):
                with self.subTest(words + image):
                    self.same("map", *words, *image)
        for words in (("-s", "2M"), ("-s", "3M"), ("-l", "0"), ("-s", "64k", "-l", "0"), ("-s", "2097151")):
            for image in (("t",), ("-f", "raw", "t.raw")):
                with self.subTest(words + image):
                    self.same("map", *words, *image)
                    self.same("map", "--output=json", *words, *image)

    def test_map_of_subclusters_and_encrypted_clusters(self):
        self.same("create", "-q", "-f", "raw", "base", "1M")
        self.same("create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "-b", "base", "-F", "raw", "t", "2M")
        self.pair.io("t", "write 0 4k", "write 8k 2k", "write 128k 64k", "write -z 200k 4k", "write 1100k 4k")
        secret = ["--object", "secret,id=s,data=abc"]
        for folder in self.pair.folders.values():
            subprocess.run([self.pair.programs["ours"], "create", "-q", *secret, "-f", "qcow2", "-o",
                            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", "luks", "1M"],
                           cwd=folder, check=True)
            subprocess.run(["qemu-io", *secret, "-c", "write 0 128k", "--image-opts",
                            "driver=qcow2,file.filename=luks,encrypt.key-secret=s"], cwd=folder, check=True,
                           stdout=subprocess.DEVNULL)
        for output in ("human", "json"):
            self.same("map", f"--output={output}", "t")
            self.same("map", f"--output={output}", *secret, "--image-opts",
                      "driver=qcow2,file.filename=luks,encrypt.key-secret=s")

    def test_measure(self):
        self.same("create", "-q", "-f", "qcow2", "t", "5M")
        self.pair.io("t", "write 0 256k", "write 1M 1k")
        for words in (("--size", "1G", "-O", "qcow2"), ("-O", "qcow2", "t"), ("-O", "raw", "t"), ("--size", "1G"), (),
                      ("--size", "1", "t"), ("--size", "x"), ("--size", "1G", "-O", "qcow2", "-o", "cluster_size=2M"),
                      ("--size", "1T", "-O", "qcow2", "-o", "refcount_bits=1,cluster_size=512"), ("a", "b"),
                      ("--size", "2G", "-O", "qcow2", "-o", "preallocation=full,extended_l2=on"), ("-O", "nothing", "t"),
                      ("--output=json", "-O", "qcow2", "t"), ("--output=json", "--size", "3333333", "-O", "qcow2")):
            with self.subTest(words):
                self.same("measure", *words)

    def test_measure_looks_at_some_options_only(self):
        for options in ("compat=v3", "compat=v2", "compat=1.1", "compat=0.10", "compression_type=lzo", "bogus=1",
                        "compression_type=zstd,compat=0.10", "cluster_size=abc", "cluster_size=3k,compat=v3",
                        "lazy_refcounts=maybe", "lazy_refcounts=on,compat=0.10", "preallocation=foo,compat=v3",
                        "preallocation=foo", "refcount_bits=1,compat=0.10", "extended_l2=on,cluster_size=4k",
                        "data_file_raw=on", "backing_file=x,preallocation=full", "encrypt.format=foo",
                        "encryption=on", "encrypt.format=luks", "encrypt.key-secret=s", "size=3M"):
            with self.subTest(options):
                self.same("measure", "-O", "qcow2", "-o", options, "--size", "1M")
        for image_format in ("raw", "luks", "vdi", "bogus"):
            self.same("measure", "-O", image_format, "-o", "bogus=1", "--size", "1M")

    def test_resize(self):
        self.same("create", "-q", "-f", "qcow2", "t", "2M")
        self.same("create", "-q", "-f", "raw", "t.raw", "2M")
        for words in (("t", "3M"), ("t", "1M"), ("--shrink", "t", "1M"), ("t", "+1M"), ("--shrink", "t", "-1M"),
                      ("-q", "t", "8M"), ("t", "x"), ("t", "-10G"), ("t",), (), ("t", "1M", "2M"), ("t", "+0"),
                      ("--preallocation=x", "t", "1M"), ("--preallocation=full", "t", "1M"), ("t.raw", "4M"),
                      ("t", "9000001"), ("--shrink", "t", "1000001"), ("--preallocation=full", "t", "9000001"),
                      ("--preallocation=metadata", "-f", "raw", "t.raw", "6M"),
                      ("-f", "raw", "t.raw", "5M"), ("--preallocation=metadata", "t", "16M"), ("none", "1M")):
            with self.subTest(words):
                self.same("resize", *words)
                self.same("info", "t")

    def test_snapshots_are_deleted_by_name_only(self):
        self.same("create", "-q", "-f", "qcow2", "t", "1M")
        for words in (("-c", "foo"), ("-d", "1"), ("-a", "1"), ("-a", "2"), ("-a", "foo"), ("-c", "1"), ("-d", "2"),
                      ("-l",), ("-d", "1"), ("-d", "foo"), ("-l",)):
            with self.subTest(words):
                ours = self.same("snapshot", *words, "t")
                self.assertNotIn("internal", ours)

    def test_snapshots_of_formats_without_them(self):
        for image_format in ("vdi", "vpc"):
            self.same("create", "-q", "-f", image_format, "t", "1M")
            for words in (("-c", "x"), ("-a", "x"), ("-d", "x"), ("-l",)):
                with self.subTest((image_format, words)):
                    self.same("snapshot", *words, "t")

    def test_amend_looks_at_all_options_before_it_changes_something(self):
        self.same("create", "-q", "-f", "raw", "base", "1M")
        self.same("create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "over")
        self.same("create", "-q", "-f", "qcow2", "t", "1M")
        for options in ("backing_fmt=raw", "backing_file=base", "backing_file=base,backing_fmt=raw", "backing_file=",
                        "data_file=x,backing_fmt=qcow2", "data_file=d,extended_l2=on,bogus=1",
                        "extended_l2=on,lazy_refcounts=x", "compat=v3,extended_l2=on", "refcount_bits=3,data_file=x",
                        "bogus=1,extended_l2=on", "compat=x,data_file=x", "encrypt.state=active,data_file=x"):
            for image in ("over", "t"):
                with self.subTest((options, image)):
                    self.same("amend", "-o", options, image)

    def test_amend(self):
        self.same("create", "-q", "-f", "qcow2", "base", "1M")
        self.same("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "t", "4M")
        self.pair.io("t", "write -z 0 128k", "write 256k 64k", "write -z 2M 64k")
        for options in ("compat=0.10", "compat=1.1", "lazy_refcounts=on", "lazy_refcounts=off", "refcount_bits=8",
                        "refcount_bits=64", "refcount_bits=7", "compat=0.10", "refcount_bits=16", "compat=0.10",
                        "lazy_refcounts=on", "compat=0.42", "cluster_size=4k", "foo=1", "size=8M", "backing_file=x",
                        "data_file=x", "data_file_raw=on", ",", "compat=v3"):
            with self.subTest(options):
                self.same("amend", "-o", options, "t")
                self.same("info", "t")
                self.same("check", "-q", "t")
        self.same("amend", "t")
        self.same("amend", "-o", "size=1M", "-f", "raw", "base")

    def test_refcount_blocks_that_come_in_advance_keep_the_image_clean(self):
        small = "cluster_size=512,refcount_bits=64"  # a block for each 32 KiB
        self.same("create", "-q", "-f", "qcow2", "-o", f"{small},preallocation=metadata", "t", "24M")
        self.same("create", "-q", "-f", "qcow2", "-o", small, "u", "24M")
        self.pair.io("u", "write 0 24M")
        for image in ("t", "u"):
            ours = self.pair.folders["ours"] / image
            for words in (("check", "-q", image), ("resize", "-q", "--shrink", image, "1M"), ("snapshot", "-c", "one", image),
                          ("resize", "-q", image, "30M"), ("resize", "-q", "--preallocation=metadata", image, "60M")):
                self.same(*words)
                done = subprocess.run(["qemu-img", "check", str(ours)], capture_output=True, text=True, check=False)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_amend_progress(self):
        for before, after in (("compat=0.10", "compat=1.1"), ("compat=1.1", "compat=0.10,size=4G"),
                              ("compat=1.1", "refcount_bits=64"), ("cluster_size=4k", "refcount_bits=1"),
                              ("compat=0.10", "compat=1.1,refcount_bits=64"),
                              ("refcount_bits=8", "compat=0.10,refcount_bits=16"), ("compat=1.1", "lazy_refcounts=on")):
            with self.subTest(before=before, after=after):
                self.same("create", "-q", "-f", "qcow2", "-o", before, "t", "2G")
                self.pair.io("t", "write 0 1M")
                self.same("amend", "-p", "-o", after, "t")

    def test_amend_progress_of_zero_clusters(self):
        self.same("create", "-q", "-f", "qcow2", "base", "3G")
        self.same("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "t")
        self.pair.io("t", "write -z 0 64k", "write -z 1G 64k", "write -z 2G 64k")
        self.same("snapshot", "-c", "one", "t")
        self.pair.io("t", "write -z 600M 64k")
        self.same("snapshot", "-c", "two", "t")
        shown = self.same("amend", "-p", "-o", "compat=0.10", "t")
        self.assertEqual(shown.count("%"), 20)  # six tables of the disk and of each snapshot, and both ends
        self.same("check", "-q", "t")

    def test_warnings_of_probed_raw_images(self):
        self.same("create", "-q", "-f", "raw", "t", "1M")
        for words in (("commit", "t"), ("commit", "-b", "x", "t"), ("snapshot", "-a", "x", "t"),
                      ("snapshot", "-c", "x", "t"), ("snapshot", "-d", "x", "t"), ("snapshot", "-l", "t"),
                      ("resize", "t", "2M"), ("amend", "-o", "foo=1", "t"), ("map", "t")):
            with self.subTest(words):
                self.same(*words)

    def test_zeroes_unmap_only_where_discard_is_asked_for(self):
        self.same("create", "-q", "-f", "qcow2", "base", "1M")
        self.same("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "t")
        name = "driver=qcow2,file.filename=t,detect-zeroes=unmap"
        for words in (("info",), ("map",), ("check",), ("snapshot", "-c", "x"), ("commit",)):
            for discard in ("", ",discard=off", ",discard=unmap", ",discard=bogus"):
                with self.subTest((words, discard)):
                    self.same(*words, "--image-opts", name + discard)

    def test_help_names_the_formats(self):
        _, text = self.pair.run_one("ours", "--help")
        for name in ("blkdebug", "file", "luks", "nbd", "qcow2", "raw", "vdi", "vhdx", "vmdk", "vpc"):
            self.assertRegex(text, rf"\nSupported formats:.* {name}\b")

    def test_general(self):
        for words in ((), ("nothing",), ("-x",)):
            with self.subTest(words):
                self.same(*words)


if __name__ == "__main__":
    unittest.main()

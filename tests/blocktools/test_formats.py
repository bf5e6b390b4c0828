#!/usr/bin/env python3
"""VDI, VMDK, VHD and VHDX: images of other programs read and converted by ours, and ours by them.

The program is $WHISTLER; what is right is asked of the installed qemu-img, and of what else makes or reads these formats.
"""

import hashlib
import json
import os
import random
import shutil
import struct
import subprocess
import tempfile
import unittest
from pathlib import Path

WHISTLER = os.environ.get("WHISTLER", "whistler")
MIB = 1 << 20
PYTHON = "/usr/bin/python3"  # the one that Debian's packages are for

# Format, create options: every kind that qemu-img makes.
KINDS = [
    ("vdi", ""), ("vdi", "static=on"),
    ("vpc", "force_size=on"), ("vpc", "force_size=on,subformat=fixed"),
    ("vmdk", "subformat=monolithicSparse"), ("vmdk", "subformat=monolithicSparse,zeroed_grain=on"),
    ("vmdk", "subformat=monolithicFlat"), ("vmdk", "subformat=twoGbMaxExtentSparse"),
    ("vmdk", "subformat=twoGbMaxExtentFlat"), ("vmdk", "subformat=streamOptimized"),
    ("vhdx", "subformat=dynamic"), ("vhdx", "subformat=fixed"), ("vhdx", "block_size=1M"),
]
WRITABLE = [kind for kind in KINDS if kind[0] in ("vdi", "vpc")]


def run(*command, check=True):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"{command}: status {done.returncode}\n{done.stdout.decode(errors='replace')}")
    return done.returncode, done.stdout.decode(errors="replace")


def img(*arguments, check=True):
    return run(WHISTLER, "img", *arguments, check=check)


def tool(*arguments, check=True):
    """Ours under the name of the program it stands for, for texts that are compared."""
    return run(LINK, *arguments, check=check)


LINKS = tempfile.TemporaryDirectory()
LINK = Path(LINKS.name) / "qemu-img"


def setUpModule():
    LINK.symlink_to(Path(shutil.which(WHISTLER)).resolve())


def tearDownModule():
    LINKS.cleanup()


def checksum(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class Formats(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def content(self, size=9 * MIB):
        """A disk with random stretches and holes, the same in every run."""
        source = random.Random(7)
        data = bytearray(size)
        for start, length in ((0, 70000), (2 * MIB + 300, MIB), (5 * MIB - 512, 3000), (size - 4096, 4096)):
            data[start:start + length] = source.randbytes(length)
        path = self.folder / "raw"
        path.write_bytes(data)
        return path

    def made_by_qemu(self, form, options):
        path = self.folder / f"i.{form}"
        run("qemu-img", "convert", "-f", "raw", "-O", form, *(("-o", options) if options else ()), self.content(), path)
        return path

    def test_images_of_qemu_convert_to_the_same_bytes(self):
        for form, options in KINDS:
            with self.subTest(form=form, options=options):
                path = self.made_by_qemu(form, options)
                img("convert", "-f", form, "-O", "raw", path, self.folder / "ours")
                self.assertEqual(checksum(self.folder / "ours"), checksum(self.folder / "raw"))

    def test_the_format_is_found_by_content(self):
        for form, options in KINDS:
            if options.endswith("fixed") and form == "vpc":
                continue  # nothing at its beginning tells
            with self.subTest(form=form, options=options):
                path = self.made_by_qemu(form, options)
                self.assertEqual(json.loads(img("info", "--output=json", path)[1])["format"], form)

    def test_info_is_that_of_qemu_img(self):
        for form, options in KINDS:
            with self.subTest(form=form, options=options):
                path = self.made_by_qemu(form, options)
                self.assertEqual(tool("info", "-f", form, path), run("qemu-img", "info", "-f", form, path))
                self.assertEqual(json.loads(tool("info", "--output=json", "-f", form, path)[1]),
                                 json.loads(run("qemu-img", "info", "--output=json", "-f", form, path)[1]))

    def test_map_is_that_of_qemu_img(self):
        for form, options in KINDS:
            with self.subTest(form=form, options=options):
                path = self.made_by_qemu(form, options)
                ours, theirs = (json.loads(call("map", "--output=json", "-f", form, path)[1])
                                for call in (tool, lambda *words: run("qemu-img", *words)))
                self.assertEqual(holes(ours), holes(theirs))
                self.assertEqual(["offset" in extent for extent in ours], ["offset" in extent for extent in theirs])
                self.assertEqual(tool("map", "-f", form, path, check=False),
                                 run("qemu-img", "map", "-f", form, path, check=False))

    def test_images_of_ours_are_read_by_qemu_img(self):
        for form, options in WRITABLE:
            with self.subTest(form=form, options=options):
                path = self.folder / f"ours.{form}"
                img("convert", "-f", "raw", "-O", form, *(("-o", options) if options else ()), self.content(), path)
                run("qemu-img", "compare", "-f", form, "-F", "raw", path, self.folder / "raw")
                if form == "vdi":
                    run("qemu-img", "check", "-f", "vdi", path)

    def test_create_says_what_qemu_img_says(self):
        for form, options, size in (("vdi", "", "10M"), ("vdi", "static=on", "10M"), ("vpc", "", "10M"),
                                    ("vpc", "subformat=fixed", "10M"), ("vpc", "force_size=on", "10M"),
                                    ("vpc", "subformat=none", "10M"), ("vpc", "", "3T"), ("vdi", "", "513T")):
            with self.subTest(form=form, options=options, size=size):
                path = self.folder / "new"
                words = ("create", "-f", form, *(("-o", options) if options else ()), path, size)
                ours = tool(*words, check=False)
                told = path.stat().st_size if path.exists() else None
                path.unlink(missing_ok=True)
                self.assertEqual(ours, run("qemu-img", *words, check=False))
                if ours[0] == 0:  # after a refusal qemu-img leaves an empty file, and we none
                    self.assertEqual(told, path.stat().st_size if path.exists() else None)
                else:
                    self.assertIsNone(told)
                path.unlink(missing_ok=True)

    def test_written_in_place_and_still_whole(self):
        for form, options in WRITABLE:
            with self.subTest(form=form, options=options):
                path = self.made_by_qemu(form, options)
                for words in (("write -P 0x31 1500k 3M",), ("write -P 0x32 8M 100",), ("write -z 2M 64k",)):
                    run(WHISTLER, "io", "-f", form, "-c", *words, path)
                    run("qemu-io", "-f", "raw", "-c", *words, self.folder / "raw")
                run("qemu-img", "compare", "-f", form, "-F", "raw", path, self.folder / "raw")

    def test_stream_optimized_vmdk_of_another_maker(self):
        if run(PYTHON, "-c", "import VMDKstream", check=False)[0] != 0:
            self.skipTest("python3-vmdkstream is not installed")
        source = self.content()
        path = self.folder / "stream.vmdk"
        run(PYTHON, "-c", "import sys, VMDKstream; VMDKstream.convert_to_stream(*sys.argv[1:])", source, path)
        img("convert", "-f", "vmdk", "-O", "raw", path, self.folder / "ours")
        self.assertEqual(checksum(self.folder / "ours"), checksum(source))

    def test_vmdk_with_a_parent(self):
        base = self.made_by_qemu("vmdk", "subformat=monolithicSparse")
        top = self.folder / "top.vmdk"
        run("qemu-img", "create", "-q", "-f", "vmdk", "-b", base, "-F", "vmdk", top)
        run("qemu-io", "-f", "vmdk", "-c", "write -P 0x44 100k 200k", top)
        run("qemu-img", "convert", "-f", "vmdk", "-O", "raw", top, self.folder / "theirs")
        img("convert", "-f", "vmdk", "-O", "raw", top, self.folder / "ours")
        self.assertEqual(checksum(self.folder / "ours"), checksum(self.folder / "theirs"))

    def test_map_of_more_zeroes_than_there_are_disks(self):
        huge = self.folder / "huge.vmdk"
        huge.write_text("# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n"
                        "RW 9007199254740992 ZERO\n")
        self.assertEqual(tool("map", "-f", "vmdk", huge), run("qemu-img", "map", "-f", "vmdk", huge))

    def test_damaged_images_are_refused_as_qemu_img_does(self):
        cases = [("vdi", 64, "00"), ("vdi", 68, "05"), ("vdi", 341, "01"), ("vdi", 424, "01"), ("vdi", 440, "01"),
                 ("vdi", 376, "ffff0f00"), ("vdi", 384, "03000000"), ("vpc", 0, "00"), ("vpc", 56, "00"),
                 ("vpc", 512, "00"), ("vpc", 540, "00000004"), ("vpc", 544, "00200001"),
                 ("vmdk", 4, "09"), ("vmdk", 20, "ff" * 8), ("vmdk", 44, "ffffffff"), ("vmdk", 16, "ffffffff")]
        for form, at, value in cases:
            with self.subTest(form=form, at=at, value=value):
                path = self.made_by_qemu(form, "force_size=on" if form == "vpc" else "")
                with path.open("r+b") as image:
                    image.seek(at)
                    image.write(bytes.fromhex(value))
                before = checksum(path)
                ours = tool("info", "-f", form, path, check=False)
                self.assertEqual(ours, run("qemu-img", "info", "-f", form, path, check=False))
                self.assertEqual(ours[0], 1)
                self.assertEqual(checksum(path), before)

    def test_io_info_tells_the_cluster_size(self):
        link = LINK.with_name("qemu-io")
        link.symlink_to(LINK.resolve())
        for form, options in KINDS:
            with self.subTest(form=form, options=options):
                words = ("-r", "-f", form, "-c", "info", self.made_by_qemu(form, options))
                self.assertEqual(run(link, *words), run("qemu-io", *words))

    def test_io_zeroes_without_fallback_where_the_format_can(self):
        for form, options in WRITABLE:
            path = self.made_by_qemu(form, options)
            for program in ([WHISTLER, "io"], ["qemu-io"]):
                status, text = run(*program, "-f", form, "-c", "write -zn 0 64k", path, check=False)
                self.assertEqual((status, text), (1, "write failed: Operation not supported\n"), (form, program))

    def test_check_of_a_vmdk_image(self):
        for form, options in KINDS:
            if form == "vmdk":
                path = self.made_by_qemu(form, options)
                for words in (("check",), ("check", "--output=json"), ("check", "-r", "all")):
                    with self.subTest(options=options, words=words):
                        self.assertEqual(tool(*words, path, check=False), run("qemu-img", *words, path, check=False))

    def test_check_of_a_vmdk_image_that_names_grains_behind_its_end(self):
        path = self.made_by_qemu("vmdk", "")
        image = bytearray(path.read_bytes())
        directory = struct.unpack_from("<Q", image, 56)[0] * 512
        table = struct.unpack_from("<I", image, directory)[0] * 512
        for grain in (0, 1, 100):
            damaged = self.folder / "damaged.vmdk"
            damaged.write_bytes(image)
            with damaged.open("r+b") as file:
                file.seek(table + 4 * grain)
                file.write(struct.pack("<I", 0xfffff0))
            ours = tool("check", damaged, check=False)
            self.assertEqual(ours, run("qemu-img", "check", damaged, check=False))
            self.assertIn("points after EOF", ours[1])

    def test_check_of_a_vdi_image(self):
        path = self.made_by_qemu("vdi", "")
        for at, value in ((None, ""), (512, "ff000000"), (516, "00000000"), (388, "63000000")):
            with self.subTest(at=at, value=value):
                damaged = self.folder / "damaged.vdi"
                shutil.copy(path, damaged)
                if at is not None:
                    with damaged.open("r+b") as image:
                        image.seek(at)
                        image.write(bytes.fromhex(value))
                self.assertEqual(tool("check", "-f", "vdi", damaged, check=False),
                                 run("qemu-img", "check", "-f", "vdi", damaged, check=False))


def holes(extents):
    """What a map says of data, neighbours of one kind joined."""
    joined = []
    for extent in extents:
        kind = (extent["zero"], extent["data"])
        if joined and joined[-1][1] == kind:
            joined[-1][0] += extent["length"]
        else:
            joined.append([extent["length"], kind])
    return joined


if __name__ == "__main__":
    unittest.main()

"""img bitmap against qemu-img: the same words, the same status, and images the other one understands."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import unittest

WHISTLER = os.environ.get("WHISTLER", "build/whistler")
QEMU_IMG = shutil.which("qemu-img")


@unittest.skipUnless(QEMU_IMG, "qemu-img is not installed")
class BitmapCommand(unittest.TestCase):
    """Every command line is given to both programs, each on images of its own."""

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.ours = os.path.join(self.folder, "qemu-img")
        os.symlink(os.path.abspath(WHISTLER), self.ours)
        for side in ("ours", "theirs"):
            os.mkdir(os.path.join(self.folder, side))
            self.run_one(side, QEMU_IMG, ["create", "-q", "-f", "qcow2", "a.qcow2", "10M"])
            self.run_one(side, QEMU_IMG, ["create", "-q", "-f", "qcow2", "-o", "compat=0.10", "v2.qcow2", "10M"])

    def run_one(self, side, program, arguments):
        done = subprocess.run([program] + arguments, cwd=os.path.join(self.folder, side), capture_output=True,
                              text=True, check=False)
        # A node's generated name says nothing.
        errors = re.sub(r"persistent in '[^']*'", "persistent in 'X'", done.stderr)
        return done.returncode, done.stdout, errors

    def both(self, *arguments):
        """What both say, once it is known to be the same."""
        ours = self.run_one("ours", self.ours, ["bitmap", *arguments])
        theirs = self.run_one("theirs", QEMU_IMG, ["bitmap", *arguments])
        self.assertEqual(ours, theirs, arguments)
        return ours

    def bitmaps(self, side):
        _, out, _ = self.run_one(side, QEMU_IMG, ["info", "--output=json", "a.qcow2"])
        return json.loads(out)["format-specific"]["data"].get("bitmaps", [])

    def test_every_action_leaves_the_same_bitmaps(self):
        for arguments in (["--add", "a.qcow2", "b0"], ["--add", "-g", "512", "a.qcow2", "b1"],
                          ["--add", "--disable", "-g", "2M", "a.qcow2", "b2"], ["--disable", "a.qcow2", "b0"],
                          ["--enable", "a.qcow2", "b2"], ["--clear", "a.qcow2", "b1"],
                          ["--merge", "b0", "a.qcow2", "b1"], ["--remove", "a.qcow2", "b0"],
                          ["--add", "a.qcow2", "-g", "64k", "b4", "--disable"],  # options behind operands
                          ["--add", "--merge", "b1", "--disable", "a.qcow2", "b3"]):
            self.assertEqual(self.both(*arguments)[0], 0)
            self.assertEqual(self.bitmaps("ours"), self.bitmaps("theirs"))
        status, _, _ = self.run_one("ours", QEMU_IMG, ["check", "-q", "a.qcow2"])
        self.assertEqual(status, 0)

    def test_bitmaps_of_a_crash_are_in_use_and_not_copied(self):
        aborting = os.path.join(self.folder, "qemu-io")
        os.symlink(os.path.abspath(WHISTLER), aborting)
        for name in ("b0", "b1", "b2"):
            self.both("--add", "a.qcow2", name)
        self.both("--disable", "a.qcow2", "b1")
        for side, program in (("ours", aborting), ("theirs", shutil.which("qemu-io"))):
            status, _, _ = self.run_one(side, program, ["-c", "abort", "a.qcow2"])
            self.assertEqual(status, -signal.SIGABRT)
            # A breakpoint whose event has come stops the next request: not the program's end.
            status, _, _ = self.run_one(side, program, ["-c", "break flush_to_disk A", "-c", "flush", "-c", "abort",
                                                        "blkdebug::a.qcow2"])
            self.assertEqual(status, -signal.SIGABRT)
        self.both("--add", "a.qcow2", "b3")
        self.assertEqual(self.bitmaps("ours"), self.bitmaps("theirs"))
        self.assertEqual([len(each["flags"]) for each in self.bitmaps("ours")[:3]].count(0), 0)
        for more in ([], ["--skip-broken-bitmaps"]):
            said = [self.run_one(side, program, ["convert", "--bitmaps", *more, "-O", "qcow2", "a.qcow2", "c.qcow2"])
                    for side, program in (("ours", self.ours), ("theirs", QEMU_IMG))]
            self.assertEqual(said[0], said[1])

    def test_refusals_are_worded_alike(self):
        self.both("--add", "a.qcow2", "b0")
        for arguments in (["--add", "a.qcow2", "b0"], ["--remove", "a.qcow2", "x"], ["--clear", "a.qcow2", "x"],
                          ["--enable", "a.qcow2", "x"], ["--disable", "a.qcow2", "x"],
                          ["--merge", "x", "a.qcow2", "b0"], ["--merge", "x", "a.qcow2", "y"],
                          ["--add", "-g", "100", "a.qcow2", "b2"],
                          ["--add", "-g", "8G", "a.qcow2", "b2"], ["--add", "-g", "1000", "a.qcow2", "b2"],
                          ["--add", "-g", "xx", "a.qcow2", "b2"], ["--add", "v2.qcow2", "b"], ["a.qcow2", "b0"],
                          ["--clear", "-g", "512", "a.qcow2", "b0"], ["--clear", "-b", "x", "a.qcow2", "b0"],
                          ["--merge", "x", "-F", "raw", "a.qcow2", "b0"], ["--add", "a.qcow2"], ["--add"],
                          ["--add", "a.qcow2", "x", "y"], ["--add", "a.qcow2", ""], ["--bogus", "a.qcow2", "x"],
                          ["--add", "nofile", "b"], ["--merge", "q", "-b", "nofile", "-F", "qcow2", "a.qcow2", "b0"],
                          ["--add", "--image-opts", "-f", "qcow2", "a.qcow2", "b"],
                          ["--add", "a.qcow2", "n" * 1024]):
            self.assertEqual(self.both(*arguments)[0], 1, arguments)

    def test_bits_of_qemu_are_merged_across_files(self):
        for side in ("ours", "theirs"):
            self.run_one(side, QEMU_IMG, ["bitmap", "--add", "-g", "4k", "a.qcow2", "b0"])
            subprocess.run(["qemu-io", "-c", "write 1M 64k", "a.qcow2"], cwd=os.path.join(self.folder, side),
                           check=True, capture_output=True)
            self.run_one(side, QEMU_IMG, ["create", "-q", "-f", "qcow2", "b.qcow2", "10M"])
        self.both("--add", "b.qcow2", "c")
        self.assertEqual(self.both("--merge", "b0", "-b", "a.qcow2", "-F", "qcow2", "b.qcow2", "c")[0], 0)
        status, _, _ = self.run_one("ours", QEMU_IMG, ["check", "-q", "b.qcow2"])
        self.assertEqual(status, 0)


if __name__ == "__main__":
    unittest.main()

"""img convert, dd, compare, rebase, commit, bench and compact: against qemu-img where it has them.

Run: WHISTLER=path/to/whistler python3 tests/blocktools/test_img_copy.py
"""
import filecmp
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

WHISTLER = os.environ.get("WHISTLER", "build/dev/vmm/whistler")
HAVE_QEMU = shutil.which("qemu-img") is not None and shutil.which("qemu-io") is not None


def ours(directory, *words, **kwargs):
    return subprocess.run([os.path.join(directory, "bin", "qemu-img"), *words], cwd=directory, text=True,
                          capture_output=True, timeout=120, check=False, **kwargs)


def theirs(directory, *words):
    return subprocess.run(["qemu-img", *words], cwd=directory, text=True, capture_output=True, timeout=120,
                          check=False)


def qemu_io(directory, image, *commands, form="qcow2"):
    words = ["qemu-io", "-f", form]
    for command in commands:
        words += ["-c", command]
    done = subprocess.run(words + [image], cwd=directory, text=True, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0 and "error" not in done.stdout.lower(), done.stdout + done.stderr


@unittest.skipUnless(HAVE_QEMU, "needs qemu-img and qemu-io")
class ImageTest(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="whistler-img-")
        os.mkdir(os.path.join(self.dir, "bin"))
        os.symlink(os.path.abspath(WHISTLER), os.path.join(self.dir, "bin", "qemu-img"))

    def tearDown(self):
        shutil.rmtree(self.dir)

    def path(self, name):
        return os.path.join(self.dir, name)

    def ok(self, *words):
        done = ours(self.dir, *words)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def create(self, *words):
        done = theirs(self.dir, "create", "-q", *words)
        self.assertEqual(done.returncode, 0, done.stderr)

    def same_outcome(self, *words, prepare=None):
        """Both programs print the same and end with the same status."""
        if prepare:
            prepare()
        left = theirs(self.dir, *words)
        if prepare:
            prepare()
        right = ours(self.dir, *words)
        self.assertEqual((left.returncode, left.stdout, left.stderr), (right.returncode, right.stdout, right.stderr),
                         words)

    def content(self, name, form="qcow2"):
        raw = self.path("content.raw")
        done = theirs(self.dir, "convert", "-f", form, "-O", "raw", name, raw)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(raw, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        os.unlink(raw)
        return digest

    def check(self, name, allow_leaks=False):
        for _ in range(100):
            done = theirs(self.dir, "check", "-f", "qcow2", name)
            if "lock" not in done.stderr:
                break
            time.sleep(0.05)  # the kernel closes the files of a killed program's io_uring after its end
        self.assertIn(done.returncode, (0, 3) if allow_leaks else (0,), done.stdout + done.stderr)

    def random_raw(self, name, mebibytes, seed=1):
        """Data and zero runs of all lengths."""
        chance = random.Random(seed)
        with open(self.path(name), "wb") as file:
            while file.tell() < mebibytes << 20:
                length = chance.choice([512, 4096, 65536, 300 * 1024])
                file.write(bytes(length) if chance.random() < 0.4 else chance.randbytes(length))
            file.truncate(mebibytes << 20)


class ConvertTest(ImageTest):
    def test_convert_raw_to_qcow2_and_back_is_the_same(self):
        self.random_raw("a.raw", 24)
        for options in ([], ["-o", "cluster_size=4k"], ["-o", "compat=0.10"], ["-W", "-m", "16"], ["-S", "0"],
                        ["-c"], ["-c", "-o", "compression_type=zstd"], ["-S", "64k"], ["-o", "extended_l2=on"]):
            self.ok("convert", "-f", "raw", "-O", "qcow2", *options, "a.raw", "b.qcow2")
            self.check("b.qcow2")
            self.assertEqual(self.content("b.qcow2"), self.content("a.raw", "raw"), options)
            self.ok("convert", "-f", "qcow2", "-O", "raw", "b.qcow2", "c.raw")
            self.assertEqual(self.content("c.raw", "raw"), self.content("a.raw", "raw"), options)

    def test_convert_lays_an_image_out_in_the_order_of_the_disk(self):
        self.random_raw("a.raw", 100)  # four L2 slices
        for name in ("b.qcow2", "c.qcow2"):
            self.ok("convert", "-t", "none", "-f", "raw", "-O", "qcow2", "a.raw", name)
        places = [part["offset"] for part in json.loads(self.ok("map", "--output=json", "b.qcow2"))
                  if "offset" in part]
        self.assertGreater(len(places), 100)
        self.assertEqual(places, sorted(places))
        self.assertTrue(filecmp.cmp(self.path("b.qcow2"), self.path("c.qcow2"), shallow=False))

    def test_copies_onto_what_they_read_are_refused(self):
        self.random_raw("a.raw", 1)
        before = self.content("a.raw", "raw")
        os.link(self.path("a.raw"), self.path("linked"))
        os.symlink("a.raw", self.path("soft"))
        self.create("-f", "qcow2", "-b", "a.raw", "-F", "raw", "top")
        for words in (("convert", "-U", "-f", "raw", "-O", "raw", "a.raw", "a.raw"),
                      ("convert", "-U", "-f", "raw", "-O", "qcow2", "a.raw", "linked"),
                      ("convert", "-U", "-f", "raw", "-O", "raw", "a.raw", "file:a.raw"),
                      ("create", "-f", "qcow2", "-b", "a.raw", "-F", "raw", "file:a.raw"),
                      ("create", "-f", "qcow2", "-b", "file:a.raw", "-F", "raw", "a.raw"),
                      ("convert", "-U", "-O", "qcow2", "top", "soft"), ("dd", "-U", "-f", "raw", "if=a.raw", "of=soft"),
                      ("create", "-f", "qcow2", "-b", "a.raw", "-F", "raw", "linked")):
            done = ours(self.dir, *words)
            self.assertEqual((done.returncode, done.stdout), (1, ""), words)
            self.assertRegex(done.stderr, "lies in this file too|same filename as the backing file")
            self.assertEqual(self.content("a.raw", "raw"), before, words)

    def test_convert_leaves_the_same_map_as_qemu_img(self):
        self.create("-f", "qcow2", "a.qcow2", "20M")
        qemu_io(self.dir, "a.qcow2", "write -P 1 0 64k", "write -P 2 1M 3M", "write -z 5M 1M", "write -P 0 8M 64k",
                "write -P 3 8M 1k", "write -P 4 19M 1M")
        for words in (["-O", "raw"], ["-O", "qcow2"], ["-O", "qcow2", "-S", "0"], ["-O", "raw", "-S", "8k"],
                      ["-O", "qcow2", "-c"]):
            maps = []
            for program in (theirs, ours):
                done = program(self.dir, "convert", *words, "a.qcow2", "b")
                self.assertEqual(done.returncode, 0, done.stderr)
                text = theirs(self.dir, "map", "--output=json", "-f", words[1], "b").stdout
                maps.append(re.sub(r', "offset": \d+', "", text))
            self.assertEqual(maps[0], maps[1], words)

    def test_convert_refusals_are_those_of_qemu_img(self):
        self.create("-f", "raw", "s.raw", "1M")
        self.create("-f", "raw", "s2.raw", "2M")
        self.create("-f", "qcow2", "a.qcow2", "1M")
        self.create("-f", "qcow2", "-o", "compat=v2", "v2.qcow2", "1M")
        for words in ("", "a", "-n -o x a b", "-m 0 a b", "-m 17 a b", "-S 100 a b", "-S x a b", "-C -c a b",
                      "--target-image-opts a b", "--target-is-zero a b", "-C -S 4k a b", "--salvage -C a b",
                      "--skip-broken-bitmaps a b", "-c -O raw s.raw x", "-O foo s.raw x", "-f foo s.raw x",
                      "nofile x", "-O qcow2 -l nosnap a.qcow2 x", "-l x s.raw x", "-n s2.raw s.raw",
                      "-t foo s.raw x", "-T foo s.raw x", "-r foo s.raw x", "--bitmaps -O qcow2 s.raw x",
                      "-l 1 s.raw s.raw x", "-c -O qcow2 -o preallocation=metadata s.raw x",
                      "-B s.raw -F raw -O qcow2 s.raw s.raw x", "--bitmaps -O qcow2 v2.qcow2 x",
                      "-O raw -o static=on s.raw x", "-O qcow2 -o cluster_size=abc s.raw x", "-O qcow2 -o , s.raw x",
                      "-c -O raw -o static=on s.raw x", "--bitmaps -O raw -o static=on a.qcow2 x",
                      "-O qcow2 -o cluster_size=3k s.raw x", "-O qcow2 -o bogus=1 s.raw foo:x",
                      "-B s.raw -F raw -O foo s.raw s.raw x", "-B s.raw -F raw -O raw -o static=on s.raw x",
                      "--bitmaps -O raw v2.qcow2 x", "-O qcow2 -B s.raw s.raw x", "-Z"):
            self.same_outcome("convert", *words.split())

    def test_convert_makes_the_target_as_large_as_the_source_whatever_size_says(self):
        self.create("-f", "raw", "s.raw", "1M")
        for form in ("qcow2", "raw"):
            for size in ("3M", "512k"):
                self.ok("convert", "-f", "raw", "-O", form, "-o", f"size={size}", "s.raw", "o")
                self.assertEqual(json.loads(self.ok("info", "--output=json", "o"))["virtual-size"], 1 << 20)

    def test_convert_does_not_wait_before_the_first_nor_after_the_last_request(self):
        self.create("-f", "raw", "s.raw", "32k")
        qemu_io(self.dir, "s.raw", "write -P 5 0 32k", form="raw")
        begin = time.monotonic()
        self.ok("convert", "-f", "raw", "-O", "raw", "-r", "10", "s.raw", "o.raw")
        self.assertLess(time.monotonic() - begin, 5)
        self.create("-f", "raw", "s.raw", "4M")
        qemu_io(self.dir, "s.raw", "write -P 5 0 4M", form="raw")
        begin = time.monotonic()
        self.ok("convert", "-f", "raw", "-O", "raw", "-r", "4M", "s.raw", "o.raw")
        self.assertGreater(time.monotonic() - begin, 0.35)

    def test_convert_progress_is_that_of_qemu_img(self):
        self.create("-f", "qcow2", "a.qcow2", "20M")
        qemu_io(self.dir, "a.qcow2", "write 0 7M", "write 10M 3M")
        self.same_outcome("convert", "-p", "-O", "raw", "a.qcow2", "b.raw")

    def test_convert_salvage_warns_as_qemu_img_does(self):
        self.create("-f", "qcow2", "a.qcow2", "8M")
        qemu_io(self.dir, "a.qcow2", "write -P 42 0 8M")
        # Far apart, next to each other and within one worker's piece.
        sectors = {"read": [640, 2049, 2050, 2051, 3000, 9000], "block-status": [2049, 9001]}
        errors = [{"event": "none", "iotype": kind, "errno": 5, "sector": sector}
                  for kind, list_of_kind in sectors.items() for sector in list_of_kind]
        source = {"driver": "blkdebug", "inject-error": errors,
                  "image": {"driver": "qcow2", "file": {"driver": "file", "filename": "a.qcow2"}}}
        words = ["convert", "--salvage", "-O", "raw", "json:" + json.dumps(source), "b.raw"]
        theirs_alone = theirs(self.dir, *words, "-m", "1")  # more of its coroutines mix their warnings up
        done = ours(self.dir, *words)
        self.assertEqual((done.returncode, done.stderr), (theirs_alone.returncode, theirs_alone.stderr))
        with open(self.path("b.raw"), "rb") as file:
            content = file.read()
        lost = [at // 512 for at in range(0, len(content), 512) if content[at:at + 512] == bytes(512)]
        self.assertEqual(lost, sectors["read"])

    def test_convert_concatenates_sources(self):
        self.random_raw("a.raw", 3, 1)
        self.random_raw("b.raw", 2, 2)
        self.ok("convert", "-f", "raw", "-O", "qcow2", "a.raw", "b.raw", "c.qcow2")
        with open(self.path("ab.raw"), "wb") as file:
            for name in ("a.raw", "b.raw"):
                with open(self.path(name), "rb") as part:
                    file.write(part.read())
        self.assertEqual(self.content("c.qcow2"), self.content("ab.raw", "raw"))

    def test_convert_snapshot_copies_what_it_froze(self):
        self.create("-f", "qcow2", "a.qcow2", "8M")
        qemu_io(self.dir, "a.qcow2", "write -P 1 0 4M")
        before = self.content("a.qcow2")
        theirs(self.dir, "snapshot", "-c", "first", "a.qcow2")
        qemu_io(self.dir, "a.qcow2", "write -P 2 1M 4M")
        for wanted in ("first", "1", "snapshot.name=first", "snapshot.id=1"):
            self.ok("convert", "-l", wanted, "-O", "qcow2", "a.qcow2", "b.qcow2")
            self.assertEqual(self.content("b.qcow2"), before, wanted)

    def test_convert_with_backing_file_copies_the_top_layer_only(self):
        self.create("-f", "qcow2", "base.qcow2", "8M")
        qemu_io(self.dir, "base.qcow2", "write -P 1 0 8M")
        self.create("-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
        qemu_io(self.dir, "top.qcow2", "write -P 2 1M 1M", "write -z 3M 1M")
        self.ok("convert", "-O", "qcow2", "-B", "base.qcow2", "-F", "qcow2", "top.qcow2", "copy.qcow2")
        self.assertEqual(self.content("copy.qcow2"), self.content("top.qcow2"))
        self.assertLess(os.path.getsize(self.path("copy.qcow2")), 3 << 20)

    def test_convert_that_fails_leaves_no_half_file(self):
        self.random_raw("a.raw", 8)
        self.create("-f", "qcow2", "bad.qcow2", "8M")
        qemu_io(self.dir, "bad.qcow2", "write -P 1 0 8M")
        size = os.path.getsize(self.path("bad.qcow2"))
        with open(self.path("bad.qcow2"), "r+b") as file:  # the mapping of its middle contradicts the format
            file.seek(0x40000 + 64 * 8)
            file.write(b"\x80\x00\x00\x00\x00\x12\x34\x00")
        self.assertGreater(size, 8 << 20)
        done = ours(self.dir, "convert", "-O", "raw", "bad.qcow2", "out.raw")
        self.assertEqual(done.returncode, 1)
        self.assertIn("error while reading", done.stderr)
        self.assertFalse(os.path.exists(self.path("out.raw")))


class EncryptedTest(ImageTest):
    KEYS = ["--object", "secret,id=s0,data=one", "--object", "secret,id=s1,data=two"]
    LUKS = "encrypt.format=luks,encrypt.iter-time=10,encrypt.key-secret="

    def test_convert_into_an_encrypted_image_with_clusters_allocated_before(self):
        with open(self.path("in.raw"), "wb") as disk:
            disk.write(os.urandom(1 << 20) + bytes(7 << 20))
        for preallocation in ("off", "metadata"):
            self.ok("convert", "-O", "qcow2", *self.KEYS, "-o", f"{self.LUKS}s0,preallocation={preallocation}", "in.raw",
                    "out.qcow2")
            compared = theirs(self.dir, "compare", *self.KEYS, "--image-opts", "driver=raw,file.filename=in.raw",
                              "driver=qcow2,file.filename=out.qcow2,encrypt.key-secret=s0")
            self.assertEqual((compared.returncode, compared.stdout), (0, "Images are identical.\n"), compared.stderr)

    def test_commit_into_an_encrypted_base(self):
        self.ok("create", "-q", "-f", "qcow2", *self.KEYS, "-o", self.LUKS + "s0", "base", "1M")
        self.ok("create", "-q", "-f", "qcow2", *self.KEYS, "-o", self.LUKS + "s1", "-b", "base", "-F", "qcow2", "top")
        base = "driver=qcow2,file.filename=base,encrypt.key-secret=s0"
        top = ("driver=qcow2,file.filename=top,encrypt.key-secret=s1,backing.driver=qcow2,backing.file.filename=base,"
               "backing.encrypt.key-secret=s0")
        written = subprocess.run(["qemu-io", *self.KEYS, "-c", "write -P 7 64k 64k", "--image-opts", top], cwd=self.dir,
                                 capture_output=True, text=True, check=False)
        self.assertEqual(written.returncode, 0, written.stdout + written.stderr)
        self.assertIn("Image committed.", self.ok("commit", *self.KEYS, "--image-opts", top))
        read = subprocess.run(["qemu-io", *self.KEYS, "-c", "read -P 7 64k 64k", "-c", "read -P 0 0 64k", "--image-opts",
                               base], cwd=self.dir, capture_output=True, text=True, check=False)
        self.assertNotIn("verification failed", read.stdout + read.stderr)

    def test_measure_counts_the_key_and_what_a_backing_file_may_hide(self):
        self.create("-f", "qcow2", "disk.qcow2", "64M")
        for options in (["-o", "backing_file=x"], ["-l", "snapshot.foo=bar"]):
            self.same_outcome("measure", *self.KEYS, *options, "-O", "qcow2", "-f", "qcow2", "disk.qcow2")
        # On some machines QEMU cannot count iterations for a key, so its figures are stated: 2 MiB of LUKS header.
        self.create("-f", "qcow2", "disk.qcow2", "1G")
        out = self.ok("measure", *self.KEYS, "-o", self.LUKS + "s0", "-O", "qcow2", "-f", "qcow2", "disk.qcow2")
        self.assertEqual(out, "required size: 2490368\nfully allocated size: 1076232192\nbitmaps size: 0\n")

    def test_measure_of_a_luks_volume_is_the_length_of_one(self):
        for more in ("", ",cipher-alg=aes-128", ",cipher-mode=cbc,hash-alg=sha512"):
            options = "key-secret=s0,iter-time=10" + more
            self.ok("create", "-q", "-f", "luks", *self.KEYS, "-o", options, "volume", "3M")
            bytes_ = os.path.getsize(self.path("volume"))
            self.assertEqual(self.ok("measure", *self.KEYS, "-O", "luks", "-o", options, "--size", "3M"),
                             f"required size: {bytes_}\nfully allocated size: {bytes_}\n")
        self.same_outcome("measure", "-O", "luks", "--size", "1M")
        self.same_outcome("measure", "-O", "luks", "-o", "key-secret=none", "--size", "1M")


class CompareTest(ImageTest):
    def test_compare_prints_and_ends_as_qemu_img(self):
        self.create("-f", "raw", "s.raw", "1M")
        self.create("-f", "raw", "s2.raw", "2M")
        qemu_io(self.dir, "s2.raw", "write -P 1 1536k 4k", form="raw")
        self.create("-f", "qcow2", "e.qcow2", "1M")
        self.create("-f", "qcow2", "e2.qcow2", "1M")
        qemu_io(self.dir, "e2.qcow2", "write -z 0 64k", "write -P 3 64k 64k")
        for words in ("", "a", "a b c", "e.qcow2 nofile", "-s s.raw s2.raw", "s.raw s2.raw", "s2.raw s.raw",
                      "-s s.raw e.qcow2", "s.raw e.qcow2", "e2.qcow2 e.qcow2", "-s e2.qcow2 e.qcow2",
                      "-q e2.qcow2 e.qcow2", "-T foo s.raw s.raw", "-U s.raw s.raw", "-p s.raw s2.raw",
                      "-f raw -F qcow2 s.raw s.raw", "-p s.raw e.qcow2", "-Z s s"):
            self.same_outcome("compare", *words.split())

    def test_strict_compare_knows_where_content_lies(self):
        self.create("-f", "raw", "base", "1M")
        self.create("-f", "qcow2", "-b", "base", "-F", "raw", "mid", "6422528")
        self.create("-f", "qcow2", "-b", "mid", "-F", "qcow2", "top")
        qemu_io(self.dir, "top", "discard 131072 2M")
        self.create("-f", "qcow2", "plain", "64k")
        self.create("-f", "qcow2", "packed", "64k")
        qemu_io(self.dir, "plain", "write 0 64k")
        qemu_io(self.dir, "packed", "write -c 0 64k")
        for words in ("top mid", "mid top", "mid mid", "plain packed", "packed packed", "plain plain"):
            self.same_outcome("compare", "-s", *words.split())


class DdTest(ImageTest):
    def test_dd_writes_what_qemu_img_writes(self):
        self.random_raw("s.raw", 2)
        for words in ("bs=64k count=2", "bs=1M skip=1", "bs=513 count=3 skip=5", "bs=1k skip=10000",
                      "-O qcow2 bs=1M skip=1", "-f raw bs=4k count=99999"):
            flags = [word for word in words.split() if "=" not in word]
            rest = [word for word in words.split() if "=" in word]
            contents = []
            for program in (theirs, ours):
                done = program(self.dir, "dd", *flags, "if=s.raw", "of=out", *rest)
                contents.append((done.returncode, done.stderr, self.content("out", "qcow2" if flags[:1] == ["-O"]
                                                                            else "raw")))
                os.unlink(self.path("out"))
            self.assertEqual(contents[0], contents[1], words)

    def test_dd_refusals_are_those_of_qemu_img(self):
        self.create("-f", "raw", "s.raw", "1M")
        for words in ("", "if=s.raw", "of=x", "if=s.raw of=x bs=foo", "if=s.raw of=x bs=0", "if=s.raw of=x bs=3G",
                      "if=s.raw of=x count=foo", "if=s.raw of=x foo=1", "foo", "if=nofile of=x",
                      "-O foo if=s.raw of=x", "if=s.raw of=/nodir/x", "-f foo if=s.raw of=x"):
            self.same_outcome("dd", *words.split())


class ChainTest(ImageTest):
    """base <- mid <- top, each with data of its own."""

    def build(self):
        for name in ("base", "other", "mid", "top"):
            if os.path.exists(self.path(name)):
                os.unlink(self.path(name))
        self.create("-f", "qcow2", "base", "4M")
        self.create("-f", "qcow2", "other", "6M")
        self.create("-f", "qcow2", "-b", "base", "-F", "qcow2", "mid")
        self.create("-f", "qcow2", "-b", "mid", "-F", "qcow2", "top")
        qemu_io(self.dir, "base", "write -P 5 0 2M")
        qemu_io(self.dir, "other", "write -P 9 1M 3M")
        qemu_io(self.dir, "mid", "write -P 6 1M 64k", "write -z 512k 64k")
        qemu_io(self.dir, "top", "write -P 7 3M 64k", "write -z 2M 128k")

    def test_rebase_keeps_what_the_image_shows(self):
        for words in ("-b other -F qcow2 mid", "-b base -F qcow2 top", "-b  mid", "-b other -F qcow2 top"):
            self.build()
            name = words.split()[-1]
            before = self.content(name)
            self.ok("rebase", *words.split(" "))
            self.assertEqual(self.content(name), before, words)
            self.check(name)

    def test_rebase_makes_zeroes_behind_the_old_backing_file_zero_clusters(self):
        for name, size in (("short", "128k"), ("long", "384k")):
            self.create("-f", "qcow2", name, size)
            qemu_io(self.dir, self.path(name), f"write -P 1 0 {size}")
        maps = []
        for rebase in (theirs, ours):
            self.create("-f", "qcow2", "-b", "short", "-F", "qcow2", "top.qcow2", "384k")
            done = rebase(self.dir, "rebase", "-b", "long", "-F", "qcow2", "top.qcow2")
            self.assertEqual(done.returncode, 0, done.stderr)
            maps.append([(one["start"], one["length"], one["zero"], one["data"]) for one in
                         json.loads(theirs(self.dir, "map", "--output=json", "top.qcow2").stdout)])
        self.assertEqual(maps[0], maps[1])

    def test_rebase_prints_and_ends_as_qemu_img(self):
        for words in ("", "mid", "-b other nofile", "-b nofile mid", "-b nofile -F qcow2 mid", "-u -b nofile mid",
                      "-u -b nofile -F qcow2 mid", "-b other mid", "-b other -F foo mid", "-u mid", "a b",
                      "-t foo -b x mid", "-T foo -b x mid", "-p -b other -F qcow2 mid", "-c mid"):
            self.same_outcome("rebase", *words.split(), prepare=self.build)

    def test_commit_moves_the_overlay_into_its_base(self):
        for words, name, base in (("top", "top", "mid"), ("-d top", "top", "mid"), ("-b base top", "top", "base"),
                                  ("mid", "mid", "base")):
            self.build()
            before = self.content(name)
            self.assertEqual(self.ok("commit", *words.split()), "Image committed.\n")
            self.assertEqual(self.content(base), before, words)
            self.check(base)
            self.check(name)

    def test_commit_finds_a_base_beside_the_file_below_a_filter(self):
        top = {"driver": "qcow2", "file": {"driver": "blkdebug", "image": {"driver": "file", "filename": "top"}}}
        self.build()
        before = self.content("top")
        self.assertEqual(self.ok("commit", "-b", "base", "json:" + json.dumps(top)), "Image committed.\n")
        self.assertEqual(self.content("base"), before)

    def test_commit_empties_the_overlay_unless_told_not_to(self):
        self.build()
        self.ok("commit", "-q", "top")
        self.assertNotIn('"depth": 0, "present": true',
                         theirs(self.dir, "map", "--output=json", "top").stdout)
        self.build()
        self.ok("commit", "-q", "-d", "top")
        self.assertIn('"depth": 0, "present": true', theirs(self.dir, "map", "--output=json", "top").stdout)

    def test_commit_of_zeroes_gives_back_the_space_of_the_base(self):
        self.create("-f", "qcow2", "low", "4M")
        qemu_io(self.dir, "low", "write -P 5 0 4M")
        self.create("-f", "qcow2", "-b", "low", "-F", "qcow2", "high")
        qemu_io(self.dir, "high", "write -z 1M 2M")
        self.ok("commit", "-q", "high")
        self.assertIn("32/64 = 50.00% allocated", theirs(self.dir, "check", "low").stdout)

    def test_commit_prints_and_ends_as_qemu_img(self):
        for words in ("", "nofile", "base", "-q mid", "-b nob top", "-b top top", "-r x mid", "-t foo mid", "a b"):
            self.same_outcome("commit", *words.split(), prepare=self.build)


class BenchTest(ImageTest):
    def test_bench_prints_as_qemu_img(self):
        self.create("-f", "qcow2", "a.qcow2", "4M")
        for words in ("", "-c x a.qcow2", "-d -1 a.qcow2", "-s 9G a.qcow2", "-o -1 a.qcow2", "--pattern=300 a.qcow2",
                      "--flush-interval=4 a.qcow2", "-w --flush-interval=4 -d 8 a.qcow2", "-i foo a.qcow2",
                      "-n a.qcow2", "-t foo a.qcow2", "nofile", "-S 5G a.qcow2"):
            self.same_outcome("bench", *words.split())
        for words in ("-c 10 -d 4", "-c 100 -w -d 8", "-c 20 -w --flush-interval=4 -d 2", "-c 20 -w -S 64k -s 8k",
                      "-c 20 -w --flush-interval=4 --no-drain -d 2", "-c 50 -t none -i io_uring"):
            outputs = []
            for program in (theirs, ours):
                done = program(self.dir, "bench", *words.split(), "a.qcow2")
                outputs.append((done.returncode, re.sub(r"[\d.]+ seconds", "T seconds", done.stdout), done.stderr))
            self.assertEqual(outputs[0], outputs[1], words)


class CompactTest(ImageTest):
    def build(self, *options, snapshots=False, compressed=False, mebibytes=24):
        """An image full of holes, zero clusters and leaks."""
        name = "c.qcow2"
        if os.path.exists(self.path(name)):
            os.unlink(self.path(name))
        self.create("-f", "qcow2", *options, name, f"{mebibytes * 2}M")
        size = mebibytes << 20
        qemu_io(self.dir, name, f"write -P 1 0 {size}")
        if compressed:
            qemu_io(self.dir, name, *(f"write -c -P {i} {size + i * 65536} 64k" for i in range(1, 60)))
        if snapshots:
            theirs(self.dir, "snapshot", "-c", "one", name)
            qemu_io(self.dir, name, "write -P 2 1M 3M")
            theirs(self.dir, "snapshot", "-c", "two", name)
            qemu_io(self.dir, name, f"write -P 3 {size // 2} 2M")
            theirs(self.dir, "snapshot", "-d", "one", name)
        chance = random.Random(7)
        places = chance.sample(range(size >> 16), (size >> 16) // 2)
        qemu_io(self.dir, name, *(f"discard {place << 16} 64k" for place in places[::2]))
        qemu_io(self.dir, name, *(f"write -P 0 {place << 16} 64k" for place in places[1::2]))
        return name

    def snapshot_contents(self, name, snapshots):
        contents = [self.content(name)]
        if snapshots:
            theirs(self.dir, "convert", "-l", "two", "-O", "raw", name, "snap.raw")
            contents.append(self.content("snap.raw", "raw"))
        return contents

    def test_compact_makes_the_file_smaller_and_keeps_the_disk(self):
        for options, snapshots, compressed in (([], False, False), (["-o", "cluster_size=4k"], False, False),
                                               (["-o", "compat=0.10"], False, False), ([], True, False),
                                               ([], False, True), ([], True, True),
                                               (["-o", "extended_l2=on"], False, False),
                                               (["-o", "refcount_bits=1"], False, False)):
            name = self.build(*options, snapshots=snapshots, compressed=compressed)
            before = self.snapshot_contents(name, snapshots)
            size = os.path.getsize(self.path(name))
            text = self.ok("compact", name)
            self.assertIn("Image compacted", text)
            what = (options, snapshots, compressed)
            self.check(name)
            self.assertEqual(self.snapshot_contents(name, snapshots), before, what)
            self.assertLess(os.path.getsize(self.path(name)), size * (0.95 if snapshots else 0.65), what)
            again = os.path.getsize(self.path(name))
            self.ok("compact", "-q", name)
            self.assertLessEqual(os.path.getsize(self.path(name)), again)
            self.check(name)

    def test_compact_dry_run_changes_nothing(self):
        name = self.build()
        with open(self.path(name), "rb") as file:
            before = file.read()
        text = self.ok("compact", "--dry-run", name)
        self.assertIn("Would be compacted", text)
        with open(self.path(name), "rb") as file:
            self.assertEqual(file.read(), before)

    def test_compact_refuses_what_is_no_qcow2(self):
        self.create("-f", "raw", "a.raw", "1M")
        done = ours(self.dir, "compact", "-f", "raw", "a.raw")
        self.assertEqual(done.returncode, 1)
        self.assertIn("only qcow2", done.stderr)

    def test_compact_killed_at_any_moment_loses_nothing(self):
        program = os.path.join(self.dir, "bin", "qemu-img")
        chance = random.Random(int(time.time()))
        for snapshots in (False, True):
            name = self.build(snapshots=snapshots, compressed=True)
            before = self.snapshot_contents(name, snapshots)
            shutil.copy(self.path(name), self.path("kept"))
            begin = time.monotonic()
            self.ok("compact", "-q", name)
            whole = time.monotonic() - begin
            for _ in range(12):
                shutil.copy(self.path("kept"), self.path(name))
                with subprocess.Popen([program, "compact", "-q", self.path(name)]) as process:
                    time.sleep(chance.random() * whole)
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                self.check(name, allow_leaks=True)
                self.assertEqual(self.snapshot_contents(name, snapshots), before)
                self.ok("compact", "-q", name)
                self.check(name)
                self.assertEqual(self.snapshot_contents(name, snapshots), before)


class NearlyFullDiskTest(ImageTest):
    """On a file system of its own, with less and less space on it."""

    def setUp(self):
        super().setUp()
        self.small = self.path("small")
        os.mkdir(self.small)
        with open(self.path("file-system"), "wb") as file:
            file.truncate(64 << 20)
        for command in (["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", self.path("file-system")],
                        ["mount", "-o", "loop", self.path("file-system"), self.small]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                shutil.rmtree(self.dir)
                self.skipTest(f"no ext4 can be mounted: {done.stderr}")

    def tearDown(self):
        subprocess.run(["umount", "-l", self.small], check=False)
        super().tearDown()

    def leave(self, free):
        """Fills all but so many bytes."""
        fill = os.path.join(self.small, "fill")
        with open(fill, "wb"):
            pass  # what filled it before
        space = os.statvfs(self.small)
        with open(fill, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_bsize - free)

    def test_convert_needs_no_more_space_than_the_image_has(self):
        size = 24 << 20
        with open(self.path("a.raw"), "wb") as file:
            file.write(random.Random(5).randbytes(size))
        for form in ("raw", "qcow2"):
            out = os.path.join(self.small, "out." + form)
            self.leave(size + (8 << 20))
            theirs(self.dir, "convert", "-O", form, "a.raw", out)
            length, blocks = os.stat(out).st_size, os.stat(out).st_blocks
            os.unlink(out)
            for mode in ("writeback", "none"):
                for spare in (8 << 20, 1 << 20, 64 << 10):
                    with self.subTest(form=form, mode=mode, spare=spare):
                        self.leave(blocks * 512 + spare)
                        self.ok("convert", "-t", mode, "-O", form, "a.raw", out)
                        self.assertEqual(os.stat(out).st_size, length)
                        self.assertLessEqual(os.stat(out).st_blocks, blocks + 16)
                        self.assertEqual(self.content(out, form), self.content("a.raw", "raw"))
                        os.unlink(out)
                with self.subTest(form=form, mode=mode, spare="too little"):
                    self.leave(size - (3 << 20))
                    done = ours(self.dir, "convert", "-t", mode, "-O", form, "a.raw", out)
                    self.assertEqual(done.returncode, 1)
                    self.assertIn("No space left on device", done.stderr)
                    self.assertEqual(sorted(os.listdir(self.small)), ["fill", "lost+found"])


if __name__ == "__main__":
    unittest.main()

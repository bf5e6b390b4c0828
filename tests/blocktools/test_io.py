#!/usr/bin/env python3
"""`whistler io` does what qemu-io does: same output, same complaints, same status, same image."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

WHISTLER = os.environ.get("WHISTLER", "build/dev/vmm/whistler")
SPEED = re.compile(r"(\d+ ops; )[0-9/:. sec]* \([0-9/.inf]* [EPTGMKiBbytes]*/sec and [0-9/.inf]* ops/sec\)")
COMMAS = re.compile(r"^(\d+,\d+),[0-9:.]*,[0-9.einf]*,[0-9.einf]*$", re.MULTILINE)


def without_times(text):
    return COMMAS.sub(r"\1,X", SPEED.sub(r"\1X", text))


@unittest.skipUnless(shutil.which("qemu-io") and shutil.which("qemu-img"), "compares with qemu-io")
class SameAsQemuIo(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.link = Path(self.folder.name) / "bin" / "qemu-io"
        self.link.parent.mkdir()
        self.link.symlink_to(Path(WHISTLER).resolve())

    def make_images(self, folder):
        def create(*words):
            subprocess.run(["qemu-img", "create", "-q", *words], cwd=folder, check=True)

        create("-f", "raw", "base.raw", "1M")
        subprocess.run(["qemu-io", "-f", "raw", "-c", "write -P 0x55 0 1M", "base.raw"], cwd=folder, check=True,
                       stdout=subprocess.DEVNULL)
        for event in ("cluster_alloc", "l2_alloc_write", "refblock_alloc", "vmstate_save", "cow_read"):
            Path(folder, f"{event}.conf").write_text(f'[inject-error]\nevent = "{event}"\nerrno = "28"\nonce = "on"\n')
        create("-f", "qcow2", "a.qcow2", "4M")
        create("-f", "qcow2", "-o", "compat=0.10", "v2.qcow2", "4M")
        create("-f", "qcow2", "-o", "extended_l2=on", "sub.qcow2", "4M")
        create("-f", "qcow2", "-o", "data_file=data.raw", "ext.qcow2", "4M")
        create("-f", "qcow2", "-b", "base.raw", "-F", "raw", "over.qcow2")

    def run_one(self, program, arguments, text):
        with tempfile.TemporaryDirectory() as folder:
            self.make_images(folder)
            done = subprocess.run([program, *arguments], cwd=folder, input=text, capture_output=True, text=True,
                                  timeout=60, check=False)
            image = arguments[-1] if arguments and arguments[-1].endswith(".qcow2") else None
            content = None
            if image and Path(folder, image).exists():
                subprocess.run(["qemu-img", "convert", "-O", "raw", image, "content"], cwd=folder, check=True)
                content = Path(folder, "content").read_bytes()
                check = subprocess.run(["qemu-img", "check", image], cwd=folder, capture_output=True, text=True,
                                       check=False)
                self.assertIn(check.returncode, (0, 3), check.stdout)
            return without_times(done.stdout), done.stderr, done.returncode, content

    def same(self, *arguments, text=""):
        # Through PATH-like names, so that both call themselves by the same name.
        theirs = self.run_one("qemu-io", arguments, text)
        ours = self.run_one(str(self.link), arguments, text)
        for what, one, other in zip(("output", "complaints", "status", "content"), theirs, ours):
            self.assertEqual(one, other, f"{what} of {arguments}")

    def commands(self, image, *commands, options=()):
        words = [word for command in commands for word in ("-c", command)]
        self.same(*options, "-f", "raw" if image.endswith(".raw") else "qcow2", *words, image)

    def test_reads_and_writes(self):
        self.commands("a.qcow2", "write -P 0x41 0 64k", "read -v 0 40", "read -C 0 1M", "read -P 0x41 -s 4 -l 3 0 8",
                      "writev -P 7 100k 512 1k 3", "readv -v 100k 4 4", "read -P 8 100k 512", "write -q 1M 64k",
                      "write -z 64k 64k", "write -zu 0 4k", "aio_write -P 9 2M 64k", "aio_flush",
                      "aio_read -P 9 2M 64k", "aio_flush", "flush")

    def test_requests_beyond_the_end(self):
        self.commands("a.qcow2", "read 4M 1", "read 3M 2M", "write 4M 1", "read 4M 0", "readv 5M 1", "writev 5M 1",
                      "discard 10M 64k")

    def test_numbers(self):
        for number in ("1.5k", "1.5", "1.", ".5k", "0x10", "0x10k", "1e3", "7E", "8E", "16E", "-1", "+1", "1kb", "1b"):
            self.commands("a.qcow2", f"read {number} 0", f"read 0 {number}")

    def test_usage_errors(self):
        self.commands("a.qcow2", "foo", "", "length 1", "truncate", "alloc 1 2 3", "help foo", "read -x 0 1",
                      "read 0", "write -u 0 1", "write -n 0 1", "write -bz 0 512", "write -fc 0 512",
                      "write -zP 1 0 512", "write -s nofile 0 512", "write -s /dev/null 0 512", "read -P 256 0 1",
                      "read -l 4 0 8", "read -P 1 -s 9 0 8", "readv 0 4G", "readv 0 1G 1G 1G", "discard 0 4G",
                      "sleep x", "sigraise x", "sigraise 1000", "aio_write -z 0 1 1", "aio_write -u 0 1",
                      "break a b", "resume a", "remove_break a")

    def test_help(self):
        self.commands("a.qcow2", "help", "help read", "help write", "help aio_write", "help map", "help sigraise")

    def test_map_alloc_and_info(self):
        for image in ("a.qcow2", "v2.qcow2", "sub.qcow2", "ext.qcow2", "over.qcow2"):
            with self.subTest(image=image):
                self.commands(image, "write -P 1 1000 3000", "map", "alloc 0", "alloc 100 1M", "length", "info",
                              "write -z 0 64k", "map", "discard 0 64k", "map")

    def test_compressed(self):
        self.commands("a.qcow2", "write -c -P 3 0 64k", "write -c 512 512", "write -c 0 512", "write -c 512 0",
                      "write 128k 512", "write -c 128k 64k", "read -P 3 0 64k", "map")

    def test_machine_state(self):
        self.commands("a.qcow2", "write -b 0 1", "write -b -P 3 0 64k", "read -b -P 3 0 64k", "read -b 0 128k",
                      "write -b 100G 512", "read -b -P 0xcd 100G 512")

    def test_truncate(self):
        self.commands("a.qcow2", "truncate -m foo 5M", "truncate 5M", "length", "truncate 1 2", "truncate 4M", "length")
        for image in ("a.qcow2", "base.raw"):
            for mode in ("metadata", "falloc", "full"):
                self.commands(image, f"truncate -m {mode} 512k", "length", f"truncate -m {mode} 5M", "length",
                              f"truncate -m {mode} 1000001", "length")

    def test_copy_on_read_and_snapshot(self):
        self.commands("over.qcow2", "read 0 4k", "map", "read -P 0x55 0 64k", "read 256k 128k", "map", options=["-C"])
        self.commands("over.qcow2", "write -P 1 0 4k", "read -P 1 0 4k", "read -P 0x55 4k 4k", "map", options=["-s"])
        self.commands("over.qcow2", "write -P 1 0 4k", "discard 0 64k", "read -P 0x55 4k 4k", options=["-r", "-s"])

    def test_filters(self):
        compress = "driver=compress,file.driver=qcow2,file.file.driver=file,file.file.filename="
        self.same("-c", "write -P 5 0 200k", "-c", "write -P 6 300000 70000", "-c", "write -P 7 4190208 4k", "-c",
                  "read -P 5 0 200k", "-c", "discard 0 64k", "-c", "write -z 64k 64k", "-c", "map", "--image-opts",
                  compress + "a.qcow2")
        for words in ("-o driver=copy-on-read,file.driver=qcow2 over.qcow2",
                      "-r -o driver=copy-on-read,file.driver=qcow2 over.qcow2",
                      "-o driver=compress,file.driver=raw base.raw", "-o driver=compress",
                      "-o driver=copy-on-read,file.driver=qcow2,foo=bar over.qcow2"):
            self.same("-c", "open " + words, "-c", "read -P 0x55 100 100k", "-c", "read -P 0 1M 4k", "-c", "read 0 0")
        self.same("-c", "open -o driver=copy-on-read,file.driver=qcow2 over.qcow2", "-c", "read 200k 1k", "-c", "close",
                  "-c", "open over.qcow2", "-c", "map", "over.qcow2")

    def test_writes_in_blocks_of_an_alignment(self):
        # Compressed clusters begin and end anywhere: the blocks around them are read before.
        for align in (512, 4096, 65536):
            self.same("-c", f"open -o driver=qcow2,file.align={align} blkdebug::a.qcow2", "-c", "write -c -P 1 0 64k",
                      "-c", "write -P 2 1M 100k", "-c", "write -P 3 3000k 1000", "-c", "write -c -P 4 128k 64k",
                      "-c", "write -z 2M 300k", "-c", "discard 1M 64k", "-c", "flush", "-c", "read -P 1 0 64k",
                      "-c", "read -P 4 128k 64k", "-c", "read -P 3 3000k 1000")

    def test_nodes_without_end(self):
        with tempfile.TemporaryDirectory() as folder:
            self.make_images(folder)
            for driver, child in (("raw", "file"), ("copy-on-read", "file"), ("blkdebug", "image")):
                for count, answer in ((100, "4 MiB"), (300, "More than 200 nodes"), (20000, "deeper than 1024")):
                    name = (f'{{"driver":"{driver}","{child}":' * count
                            + '{"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2"}}' + "}" * count)
                    done = subprocess.run([self.link], input=f"open json:{name}\nlength\n", cwd=folder, text=True,
                                          capture_output=True, timeout=60, check=False)
                    self.assertIn(answer, done.stdout + done.stderr, (driver, count))

    def test_host_devices(self):
        for driver in ("file", "host_device", "host_cdrom"):
            for name in ("/dev/null", "base.raw", ".", "nofile"):
                if (driver, name) == ("host_cdrom", "/dev/null"):
                    continue  # QEMU finds no medium in it
                self.same("-c", f"open -r -o driver={driver},filename={name},locking=off", "-c", "length")

    def test_read_only(self):
        self.commands("a.qcow2", "write 0 512", "truncate 1M", "discard 0 64k", "aio_write 0 512", "read 0 1",
                      options=["-r"])

    def test_prompt(self):
        self.same("a.qcow2", text="length\nfoo\n\nread 0 1\nquit\nlength\n")
        self.same("a.qcow2", text="length\nlength")

    def test_open_and_close(self):
        self.same("-c", "open a.qcow2", "-c", "length", "-c", "open a.qcow2", "-c", "close", "-c", "length")
        self.same("-c", "open -x a.qcow2", "-c", "open -t foo a.qcow2", "-c", "open nofile")

    def test_reopen(self):
        for option in ("node-name=x", "driver=raw", "driver=qcow2", "file.driver=file", "file.filename=x", "file.aio=native",
                       "foo=bar", "backing=x", "read-only=foo", "auto-read-only=x", "cache.direct=x", "cache.no-flush=x",
                       "cache.writeback=on", "discard=x", "detect-zeroes=x", "force-share=on",
                       "lazy-refcounts=42", "cache-size=x", "cache-size=16E", "l2-cache-size=-1",
                       "cache-size=1M,l2-cache-size=64k,refcount-cache-size=64k", "cache-size=1M,l2-cache-size=2M",
                       "cache-size=1M,refcount-cache-size=2M", "l2-cache-entry-size=33k", "l2-cache-entry-size=128k",
                       "refcount-cache-size=256T", "overlap-check=constant,overlap-check.template=all",
                       "overlap-check=x", "overlap-check.template=x", "overlap-check.active-l1=x", "overlap-check.x=on",
                       "cache-clean-interval=-1", "cache-clean-interval=x", "cache-clean-interval=99999999999999999999",
                       "discard-no-unref=on"):
            with self.subTest(option=option):
                self.commands("a.qcow2", f"reopen -o {option}", "write -P 5 0 64k", "read -P 5 0 64k")
                self.same("-c", f"open -o {option} a.qcow2", "-c", "length")
        self.commands("a.qcow2", "reopen -r -o read-only=on", "reopen -w -o read-only=on", "reopen -c none -o cache.direct=on",
                      "reopen -c directsync -o cache.no-flush=on", "reopen -r", "write 0 512", "reopen -w", "write 0 512",
                      "reopen -o overlap-check=none", "reopen -o overlap-check.template=all", "reopen -o cache-size=2M",
                      "reopen -o l2-cache-size=1M", "reopen -o refcount-cache-size=1M", "write 0 512")
        self.commands("v2.qcow2", "reopen -o lazy-refcounts=on", "write 0 512")

    def test_info_of_a_protocol(self):
        self.same("-f", "null-co", "-c", "reopen", "-c", "info", "json:{'driver': 'null-co', 'size': 65536}")
        self.same("-f", "file", "-c", "info", "base.raw")

    def test_faults_at_events_of_the_engine(self):
        for event in ("cluster_alloc", "l2_alloc_write", "refblock_alloc", "vmstate_save"):
            with self.subTest(event=event):
                vm = "-b " if event == "vmstate_save" else ""
                self.same("-c", f"write {vm}0 64k", f"blkdebug:{event}.conf:a.qcow2")
        self.same("-c", "write 512 512", "blkdebug:cow_read.conf:over.qcow2")

    def test_failed_reopen_keeps_breakpoints(self):
        self.same("-c", "break write_aio A", "-c", "reopen -o image.driver=raw", "-c", "aio_write 0 64k", "-c",
                  "wait_break A", "-c", "resume A", "-c", "aio_flush", "blkdebug::a.qcow2")

    def test_breakpoints(self):
        self.same("-c", "break write_aio A", "-c", "aio_write 0 64k", "-c", "wait_break A", "-c", "length", "-c",
                  "resume A", "-c", "aio_flush", "-c", "read -P 0xcd 0 64k", "blkdebug::a.qcow2")


if __name__ == "__main__":
    unittest.main()

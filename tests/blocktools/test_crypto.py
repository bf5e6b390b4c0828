#!/usr/bin/env python3
"""Encrypted images: ours and QEMU's read each other's, keys come and go, messages are the same.

The program is taken from WHISTLER; qemu-img, qemu-io and cryptsetup are the oracles.
"""

import itertools
import json
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

WHISTLER = os.environ.get("WHISTLER", "build/dev/vmm/whistler")
MEGABYTE = 1024 * 1024
SECRETS = {"s0": "hunter2", "s1": "correct horse", "s2": "another", "bad": "wrong"}
OBJECTS = [word for name, value in SECRETS.items() for word in ("--object", f"secret,id={name},data={value}")]

CIPHERS = ("aes-128", "aes-192", "aes-256", "serpent-128", "serpent-256", "twofish-128", "twofish-256", "cast5-128")
MODES = ("xts", "cbc", "ecb", "ctr")
HASHES = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160")
GENERATORS = ("plain", "plain64", "essiv")


def combinations():
    """Option lists of encryption; what QEMU itself cannot do is left out."""
    for cipher, mode in itertools.product(CIPHERS, MODES):
        if (cipher == "cast5-128" and mode == "xts") or ("192" in cipher and mode != "xts"):
            continue  # blocks of 8 bytes; QEMU stops at an assertion
        yield {"cipher-alg": cipher, "cipher-mode": mode}
    for hash_name, generator in itertools.product(HASHES, GENERATORS):
        yield {"cipher-mode": "cbc", "ivgen-alg": generator, "hash-alg": hash_name}
    yield {"cipher-mode": "cbc", "cipher-alg": "aes-128", "ivgen-alg": "essiv", "ivgen-hash-alg": "md5"}


class Tool:
    """One of the three tools: QEMU's or ours."""

    def __init__(self, ours):
        self.ours = ours

    def run(self, tool, *words):
        command = [WHISTLER, tool] if self.ours else [f"qemu-{tool}"]
        for _ in range(50):
            done = subprocess.run(command + list(words), capture_output=True, text=True, check=False, timeout=300)
            # QEMU times its key derivation by processor time, and may find none spent.
            if "Unable to get accurate CPU usage" not in done.stderr:
                break
        # Each names itself as it was called.
        text = done.stdout + done.stderr
        return done.returncode, text.replace(f"whistler {tool}:", f"qemu-{tool}:")


OURS = Tool(True)
QEMU = Tool(False)


def image_opts(driver, path, secret="s0", **more):
    prefix = "encrypt." if driver == "qcow2" else ""
    words = [f"driver={driver}", f"file.filename={path}"]
    if secret:
        words.append(f"{prefix}key-secret={secret}")
    words += [f"{key.replace('__', '.')}={value}" for key, value in more.items()]
    return ["--image-opts", ",".join(words)]


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="whistler-crypto-")
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return str(Path(self.folder.name) / name)

    def succeed(self, tool, *words):
        status, text = tool.run(*words)
        self.assertEqual(status, 0, f"{words}: {text}")
        return text

    def create(self, tool, driver, name, options=None, size="1M", extra=()):
        prefix = "encrypt." if driver == "qcow2" else ""
        options = {"key-secret": "s0", "iter-time": "10", **(options or {})}
        if driver == "qcow2":
            options.setdefault("format", "luks")
            if options["format"] == "aes":
                del options["iter-time"]
        words = ",".join([f"{prefix}{key}={value}" for key, value in options.items()] + list(extra))
        path = self.path(name)
        self.succeed(tool, "img", "create", "-q", *OBJECTS, "-f", driver, "-o", words, path, size)
        return path

    def io(self, tool, driver, path, *commands, secret="s0", **more):
        words = [word for command in commands for word in ("-c", command)]
        return tool.run("io", *OBJECTS, *words, *image_opts(driver, path, secret, **more))

    def both(self, *words, mask=None):
        """Runs the same with both, and wants the same."""
        ours, qemu = OURS.run(*words), QEMU.run(*words)
        self.assertEqual(ours, qemu, words)
        return ours


class Interoperation(Case):
    def exchange(self, driver, options, maker, reader):
        path = self.create(maker, driver, "image", options)
        writes = ("write -q -P 0x11 0 1M", "write -q -P 0x22 65024 1k", "write -q -P 0x33 200001 7")
        status, text = self.io(maker, driver, path, *writes)
        self.assertEqual((status, text), (0, ""), options)
        reads = ("read -q -P 0x11 0 65024", "read -q -P 0x22 65024 1k", "read -q -P 0x11 66048 133953",
                 "read -q -P 0x33 200001 7", "read -q -P 0x11 200008 848568", "write -q -P 0x44 4096 8k")
        status, text = self.io(reader, driver, path, *reads)
        self.assertEqual((status, text), (0, ""), options)
        status, text = self.io(maker, driver, path, "read -q -P 0x44 4096 8k", "read -q -P 0x11 0 4096")
        self.assertEqual((status, text), (0, ""), options)
        os.unlink(path)

    def test_every_cipher_and_hash_in_plain_luks_both_ways(self):
        for options in combinations():
            if options.get("ivgen-alg") == "essiv" or "cipher-alg" in options or "ivgen-alg" in options:
                with self.subTest(options):
                    self.exchange("luks", options, QEMU, OURS)
                    self.exchange("luks", options, OURS, QEMU)

    def test_ciphers_in_qcow2_both_ways(self):
        chosen = [{"cipher-alg": cipher} for cipher in ("aes-128", "aes-256", "serpent-256", "twofish-128")]
        chosen += [{"cipher-mode": "cbc", "ivgen-alg": "essiv"}, {"hash-alg": "ripemd160"}, {"format": "aes"}]
        for options in chosen:
            with self.subTest(options):
                self.exchange("qcow2", options, QEMU, OURS)
                self.exchange("qcow2", options, OURS, QEMU)

    def test_qcow2_layouts_are_clean_for_both_checks(self):
        for extra in (("cluster_size=512",), ("cluster_size=2M",), ("extended_l2=on",), ("compat=0.10",),
                      ("refcount_bits=1",), (f"data_file={self.path('data')}",)):
            for maker, reader in ((QEMU, OURS), (OURS, QEMU)):
                with self.subTest(extra=extra, maker="ours" if maker.ours else "qemu"):
                    path = self.create(maker, "qcow2", "image", extra=extra)
                    self.assertEqual(self.io(reader, "qcow2", path, "write -q -P 7 1000 100000"), (0, ""))
                    self.assertEqual(self.io(maker, "qcow2", path, "read -q -P 7 1000 100000"), (0, ""))
                    said = [tool.run("img", "check", *OBJECTS, *image_opts("qcow2", path)) for tool in (QEMU, OURS)]
                    self.assertTrue(said[0][1].startswith("No errors were found on the image."), said[0])
                    self.assertEqual(said[1], said[0])

    def test_overlay_on_an_encrypted_base(self):
        for driver_format in ("luks", "aes"):
            base = self.create(QEMU, "qcow2", "base", {"format": driver_format})
            self.assertEqual(self.io(QEMU, "qcow2", base, "write -q -P 1 0 1M"), (0, ""))
            path = self.path("top")
            options = f"encrypt.format={driver_format},encrypt.key-secret=s1,backing_fmt=qcow2,backing_file={base}"
            if driver_format == "luks":
                options += ",encrypt.iter-time=10"
            self.succeed(QEMU, "img", "create", "-q", *OBJECTS, "-u", "-f", "qcow2", "-o", options, path, "1M")
            more = {"backing__encrypt__key-secret": "s0"}
            for tool in (OURS, QEMU):
                self.assertEqual(self.io(tool, "qcow2", path, "write -q -P 2 1000 3000", secret="s1", **more), (0, ""))
                self.assertEqual(self.io(tool, "qcow2", path, "read -q -P 1 0 1000", "read -q -P 2 1000 3000",
                                         "read -q -P 1 4000 1044576", secret="s1", **more), (0, ""))

    @unittest.skipUnless(shutil.which("cryptsetup"), "needs cryptsetup")
    def test_cryptsetup_opens_our_volumes(self):
        key = self.path("key")
        Path(key).write_text(SECRETS["s0"])
        opened = 0
        for options in ({}, {"cipher-alg": "serpent-256"}, {"cipher-mode": "cbc", "ivgen-alg": "essiv"},
                        {"hash-alg": "sha512", "cipher-alg": "aes-128"}):
            said = []
            for maker in (QEMU, OURS):
                path = self.create(maker, "luks", f"volume-{'ours' if maker.ours else 'qemu'}", options)
                command = ["cryptsetup", "luksOpen", "--test-passphrase", "--key-file", key, path]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                said.append((done.returncode, done.stderr))
            self.assertEqual(said[1], said[0], options)  # this kernel may lack a cipher: then for both
            opened += said[1] == (0, "")
            dump = subprocess.run(["cryptsetup", "luksDump", path], capture_output=True, text=True, check=True).stdout
            self.assertIn("Payload offset:", dump)
        self.assertGreater(opened, 0)


class Messages(Case):
    def test_info_shows_the_volume(self):
        for driver in ("qcow2", "luks"):
            path = self.create(QEMU, driver, f"image.{driver}", {"cipher-mode": "cbc", "ivgen-alg": "essiv"})
            self.both("img", "info", path)
            status, text = self.both("img", "info", "--output=json", path)
            self.assertEqual(status, 0)
            self.assertTrue(json.loads(text)["encrypted"])
        self.both("img", "info", self.create(QEMU, "qcow2", "aes", {"format": "aes"}))

    def test_info_of_what_we_made_is_like_qemus(self):
        def shape(path):
            text = self.succeed(QEMU, "img", "info", "--output=json", path)
            data = json.loads(text)["format-specific"]["data"]
            data = data.get("encrypt", data)
            return {key: value for key, value in data.items() if key not in ("uuid", "master-key-iters", "slots")}
        for driver in ("qcow2", "luks"):
            self.assertEqual(shape(self.create(OURS, driver, "ours")), shape(self.create(QEMU, driver, "qemu")))

    def test_wrong_and_missing_passwords(self):
        for driver in ("qcow2", "luks"):
            path = self.create(QEMU, driver, f"image.{driver}")
            for secret in ("bad", "none", ""):
                for command in ("read 0 512", "write 0 512"):
                    words = ("io", *OBJECTS, "-c", command, *image_opts(driver, path, secret))
                    self.assertEqual(self.both(*words)[0], 1)
            self.both("img", "check", "-f", driver, path)
            self.both("io", "-c", "read 0 512", path)
        path = self.create(QEMU, "qcow2", "luks")
        self.both("io", *OBJECTS, "-c", "read 0 512", *image_opts("qcow2", path, encrypt__format="aes"))
        path = self.create(QEMU, "qcow2", "aes", {"format": "aes"})
        self.both("io", *OBJECTS, "-c", "read 0 512", *image_opts("qcow2", path, encrypt__format="luks"))
        self.succeed(QEMU, "img", "create", "-q", "-f", "qcow2", self.path("plain"), "1M")
        self.both("io", *OBJECTS, "-c", "read 0 512",
                  *image_opts("qcow2", self.path("plain"), encrypt__format="luks"))

    def test_create_refuses_as_qemu_does(self):
        for driver, options in (("luks", "key-secret=s0,cipher-mode=foo"), ("luks", "key-secret=none"),
                                ("luks", "iter-time=10"), ("luks", "key-secret=s0,cipher-alg=des,iter-time=10"),
                                ("luks", "key-secret=s0,cipher-alg=cast5-128,iter-time=10"),
                                ("luks", "key-secret=s0,ivgen-alg=essiv,ivgen-hash-alg=sha1,iter-time=10"),
                                ("qcow2", "encrypt.key-secret=s0"), ("qcow2", "encrypt.format=luks"),
                                ("qcow2", "encrypt.format=foo,encrypt.key-secret=s0"),
                                ("qcow2", "encrypt.format=aes,encrypt.key-secret=s0,encrypt.iter-time=10"),
                                ("qcow2", "encryption=on,encrypt.format=luks,encrypt.key-secret=s0")):
            with self.subTest(options):
                words = ("img", "create", *OBJECTS, "-f", driver, "-o", options, self.path("new"), "1M")
                self.assertEqual(self.both(*words)[0], 1)

    def test_compression_is_refused(self):
        source = self.path("raw")
        Path(source).write_bytes(b"x" * MEGABYTE)
        for tool in (OURS,):  # QEMU 7.2 ends with status 0, having written nothing of use
            target = self.create(tool, "qcow2", "target")
            status, _ = tool.run("img", "convert", "-c", "-n", *OBJECTS, "--target-image-opts", "-f", "raw", source,
                                 image_opts("qcow2", target)[1])
            self.assertEqual(status, 1)


class KeySlots(Case):
    def amend(self, tool, driver, path, options, *words, secret="s0"):
        prefix = "encrypt." if driver == "qcow2" else ""
        text = ",".join(f"{prefix}{option}" for option in options)
        return tool.run("img", "amend", *words, *OBJECTS, *image_opts(driver, path, secret), "-o", text)

    def opens(self, tool, driver, path):
        return [secret for secret in ("s0", "s1", "s2") if self.io(tool, driver, path, "read -q 0 512", secret=secret)[0] == 0]

    def test_keys_added_by_one_open_for_the_other(self):
        for driver, (first, second) in itertools.product(("qcow2", "luks"), ((OURS, QEMU), (QEMU, OURS))):
            with self.subTest(driver=driver, first="ours" if first.ours else "qemu"):
                path = self.create(first, driver, f"image.{driver}")
                add = ("state=active", "new-secret=s1", "iter-time=10")
                self.assertEqual(self.amend(second, driver, path, add), (0, ""))
                add = ("state=active", "new-secret=s2", "iter-time=10", "keyslot=5")
                self.assertEqual(self.amend(first, driver, path, add, secret="s1"), (0, ""))
                for tool in (first, second):
                    self.assertEqual(self.opens(tool, driver, path), ["s0", "s1", "s2"])
                self.assertEqual(self.amend(second, driver, path, ("state=inactive", "old-secret=s0"), secret="s1"), (0, ""))
                self.assertEqual(self.amend(first, driver, path, ("state=inactive", "keyslot=5"), secret="s1"), (0, ""))
                for tool in (first, second):
                    self.assertEqual(self.opens(tool, driver, path), ["s1"])

    def test_refusals_are_qemus(self):
        for driver in ("qcow2", "luks"):
            paths = {tool: self.create(QEMU, driver, name) for tool, name in ((OURS, "a"), (QEMU, "b"))}
            for options in (("state=active",), ("state=foo",), ("new-secret=s1",), ("state=inactive",),
                            ("state=active", "new-secret=s1", "old-secret=s0"),
                            ("state=active", "new-secret=none"),
                            ("state=active", "new-secret=s1", "keyslot=0", "iter-time=10"),
                            ("state=active", "new-secret=s1", "keyslot=8"),
                            ("state=inactive", "new-secret=s1", "keyslot=0"),
                            ("state=inactive", "keyslot=0"), ("state=inactive", "old-secret=s0"),
                            ("state=inactive", "old-secret=s1"), ("state=inactive", "keyslot=3"),
                            ("state=inactive", "keyslot=0", "old-secret=s1"),
                            ("state=inactive", "keyslot=0", "iter-time=10")):
                with self.subTest(driver=driver, options=options):
                    ours, qemu = (self.amend(tool, driver, paths[tool], options) for tool in (OURS, QEMU))
                    self.assertEqual(ours, qemu)
                    self.assertEqual(ours[0], 1)
            self.assertEqual(self.opens(OURS, driver, paths[OURS]), ["s0"])

    def test_last_key_goes_only_by_force(self):
        for tool in (OURS, QEMU):
            path = self.create(tool, "qcow2", "image")
            self.assertEqual(self.amend(tool, "qcow2", path, ("state=inactive", "keyslot=0"))[0], 1)
            self.assertEqual(self.amend(tool, "qcow2", path, ("state=inactive", "keyslot=0"), "--force"), (0, ""))
            self.assertEqual(self.opens(OURS, "qcow2", path), [])


if __name__ == "__main__":
    unittest.main()

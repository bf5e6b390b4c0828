"""Plans with media made from folders: what goes in, what comes out, and guests that write what no disk should hold."""

import os
import struct
import subprocess
import unittest

from cli_case import needs, needs_kvm, tool
from plans import BUSY, SELECT, PlanCase
from running import EXIT, say

SECTOR = 512
PARTITION = 2048  # sectors
SIZE = "32M"
SECTORS = (32 << 20) // SECTOR - PARTITION

STACK = "xor ax, ax\n mov ss, ax\n mov sp, 0x7000\n mov ds, ax\n mov es, ax\n cld\n"
# Looks for the sector that begins with WAIT and makes it begin with PASS.
ANSWER = STACK + f"""
    mov ebx, {PARTITION}
  search:
    mov bp, 0x20
    call select
    mov di, 0x8000
    rep insw
    inc ebx
    cmp dword [0x8000], "WAIT"
    jne search
    dec ebx
    mov dword [0x8000], "PASS"
    mov bp, 0x30
    call select
    mov si, 0x8000
    rep outsw
    call finish
""" + EXIT.format(1) + SELECT


def writing(sectors):
    """A guest that writes these sectors, {number: content}, and leaves."""
    code, data = STACK, ""
    for count, (number, content) in enumerate(sectors.items()):
        code += f"mov ebx, {number}\n mov si, data{count}\n call write\n"
        data += f"data{count}: db {','.join(map(str, content.ljust(SECTOR, bytes(1))))}\n"
    return code + EXIT.format(1) + """
  write:
    mov bp, 0x30
    call select
  word_out:
    cs lodsw
    out dx, ax
    loop word_out
    jmp finish
""" + SELECT + data


def entry(short, attributes=0x20, cluster=0, size=0, long=""):
    """What stands in a folder of a FAT disk for one file."""
    short = short.encode().ljust(11)
    result, text = b"", long.encode("utf-16le") + b"\0\0"
    text += b"\xff" * (-len(text) % 26)
    total = 0
    for byte in short:
        total = ((total & 1) << 7) + (total >> 1) + byte & 0xFF
    parts = [text[at:at + 26] for at in range(0, len(text), 26)] if long else []
    for number in reversed(range(len(parts))):
        part, last = parts[number], 0x40 if number == len(parts) - 1 else 0
        result += bytes([number + 1 | last]) + part[:10] + b"\x0f\0" + bytes([total]) + part[10:22] + b"\0\0" + part[22:26]
    return result + short + bytes([attributes]) + bytes(14) + struct.pack("<HI", cluster, size)


FOLDER = 0x10
CLUSTER_2 = b"\xf8\xff\xff\xff\xff\xff"  # a FAT in which that is all of a file


@needs_kvm
@needs("nasm", "xorriso", "mformat", "mcopy")
class FolderCase(PlanCase):
    def folder_of(self, name, **files):
        for file, content in files.items():
            path = self.path(name) / file.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return self.path(name)

    def folder_plan(self, code, *steps, folder=None, **more):
        folder = {"id": "data", "from": "in", "size": SIZE, **(folder or {})}
        return self.plan(code, *steps, folders=[{k: v for k, v in folder.items() if v is not None}], **more)

    def own_files(self):
        return {path: state for path, state in self.state_of_files().items() if "whistler-test-" not in path}

    def layout(self):
        """Where a disk of SIZE has its FATs, its first folder and its clusters, and how many sectors a cluster has."""
        image = self.path("layout.img")
        with open(image, "wb") as file:
            file.truncate(32 << 20)
        tool("mformat", "-i", f"{image}@@1M", "-T", SECTORS, "-h", 255, "-s", 63, "-H", PARTITION, "::")
        with open(image, "rb") as file:
            file.seek(PARTITION * SECTOR)
            boot = file.read(SECTOR)
        image.unlink()
        per_cluster, reserved, fats, root, _, _, fat_size = struct.unpack_from("<BHBHHBH", boot, 13)
        fat = PARTITION + reserved
        first = fat + fats * fat_size
        return (fat, fat + fat_size), first, first + root * 32 // SECTOR, per_cluster


END = {"wait_exit_value": 1}


class InAndOut(FolderCase):
    @needs("fsck.fat")
    def test_files_go_in_and_come_out_changed_by_the_guest(self):
        folder = self.folder_of("in", result_txt="WAIT" + "." * 600, sub__deep_txt="as it was", empty="")
        (folder / "Größe und mehr als acht.Zeichen").write_text("lang")
        plan = self.folder_plan(ANSWER, END, {"copy_out": {"drive": "data", "expect": {"RESULT.txt": r"\APASS", "sub/DEEP.TXT": "was"}}})
        self.assert_outcome(self.run_plans(plan, "--artifacts", "out"), 0)
        found = self.path("out/plan/files-data")
        self.assertEqual((found / "result.txt").read_text(), "PASS" + "." * 600)
        self.assertEqual((found / "sub/deep.txt").read_text(), "as it was")
        self.assertEqual((found / "Größe und mehr als acht.Zeichen").read_text(), "lang")
        self.assertEqual(len(list(found.rglob("*"))), 5)
        self.assertEqual((folder / "result.txt").read_text()[:4], "WAIT")

    @needs("fsck.fat")
    def test_what_was_expected_and_did_not_come(self):
        self.folder_of("in", result_txt="WAIT")
        for expect, words in (({"result.txt": "FAIL"}, 'does not say "FAIL", but "PASS"'), ({"other.txt": "x"}, "other.txt: is not there"),
                              ({"result.txt/x": "x"}, "is not there")):
            plan = self.folder_plan(ANSWER, END, {"copy_out": {"drive": "data", "expect": expect}})
            self.assert_outcome(self.run_plans(plan), 1, words)

    @needs("fsck.fat")
    def test_plans_that_go_on_see_what_was_written(self):
        self.folder_of("in", result_txt="WAIT")
        copy = {"copy_out": {"drive": "data", "expect": {"result.txt": "PASS"}}}
        # The second finds no sector with WAIT: it is stopped while it still searches.
        code = ANSWER.replace("mov ebx", 'mov al, "!"\n mov dx, 0x402\n out dx, al\n mov ebx', 1)
        plan = self.folder_plan(code, {"wait_debug": "!"}, END, copy, then=[{"name": "next", "steps": [{"wait_debug": "!"}, {"sleep": 1}]}])
        self.assert_outcome(self.run_plans(plan, "--artifacts", "out"), 0, "2 passed")

    @needs("fsck.fat")
    def test_files_of_a_guest_that_fails_are_kept(self):
        self.folder_of("in", log_txt="what it wrote")
        plan = self.folder_plan(say("up") + BUSY, {"wait_serial": "up"}, {"wait_serial": "never", "timeout": 1})
        self.assert_outcome(self.run_plans(plan, "--artifacts", "out"), 124)
        self.assertEqual(self.path("out/plan/files-data/log.txt").read_text(), "what it wrote")

    @needs("fsck.fat")
    def test_disks_of_each_kind_empty_and_full_of_names(self):
        self.folder_of("in", a_txt="x")
        for size, kind, count in ((None, "FAT16", 200), ("513M", "FAT32", 600)):
            for number in range(count):
                (self.path("in") / f"file{number}").touch()
            for folder in ("in", None):
                plan = self.folder_plan(EXIT.format(1), END, {"copy_out": "data"}, folder={"from": folder, "size": size})
                self.assert_outcome(self.run_plans(plan, "--artifacts", kind), 0)
                self.assertEqual(len(list(self.path(f"{kind}/plan/files-data").iterdir())), count + 1 if folder else 0)

    def test_disk_has_a_partition_that_others_know(self):
        self.folder_of("in", a_txt="x")
        for size, kind in (("32M", "0x0e|e W95"), ("600M", "0x0c|c W95")):
            image = self.image_of(self.folder_plan(say("up") + BUSY, {"wait_serial": "up"}, {"sleep": 60}, folder={"size": size}))
            table = image.read_bytes()[:SECTOR]
            self.assertEqual(table[510:], b"\x55\xaa")
            self.assertEqual(table[450], int(kind[:4], 16))
            start, count = struct.unpack_from("<II", table, 454)
            self.assertEqual((start + count) * SECTOR, image.stat().st_size)
            self.end_all()

    def image_of(self, plan):
        """The medium made for a plan that waits, while its machine runs."""
        self.process = self.start_test(plan)
        return self.until("the image", lambda: list(self.folder.glob("whistler-test-*/run-*/0/folder0.img")))[0]

    def end_all(self):
        self.process.terminate()
        self.process.wait(30)
        self.assert_nothing_left()

    def test_cd_has_long_names_of_both_kinds_and_links(self):
        folder = self.folder_of("in", sub__a_txt="text")
        long = "A name of more than eight letters, with an Ümlaut.text"
        (folder / long).write_text("x")
        (folder / "loop").symlink_to(".")
        image = self.image_of(self.folder_plan(say("up") + BUSY, {"wait_serial": "up"}, {"sleep": 60}, folder={"media": "cdrom", "size": None}))
        listed = subprocess.run(["xorriso", "-no_rc", "-indev", image, "-lsl", "/", "/sub"], capture_output=True, text=True, check=True,
                                env={**os.environ, "LC_ALL": "C.UTF-8"}).stdout
        self.assertIn(f"'{long}'", listed)
        self.assertIn("'loop' -> '.'", listed)
        self.assertIn("'a.txt'", listed)
        content = image.read_bytes()
        self.assertIn(long.encode("utf-16be"), content)  # Joliet
        self.assertIn(b"CD001", content)
        self.assertIn(b"DATA ", content)
        self.end_all()

    @needs("qemu-img")
    def test_cd_is_made_while_the_machine_runs(self):
        self.folder_of("second", a_txt="x")
        cd = {"id": "cd0", "bus": 1, "media": "cdrom", "file": str(self.raw_disk("one.iso")), "format": "raw"}
        insert = {"insert": {"drive": "cd0", "folder": "second", "force": True}}
        plan = self.plan(say("up") + BUSY, {"wait_serial": "up"}, insert, machine={"drives": [cd]})
        self.assert_outcome(self.run_plans(plan), 0)
        insert["insert"]["folder"] = "third"
        plan = self.plan(say("up") + BUSY, {"wait_serial": "up"}, insert, machine={"drives": [cd]})
        self.assert_outcome(self.run_plans(plan), 2, "third: is no folder")


class WrongFolders(FolderCase):
    def assert_wrong(self, words, folder=None, status=2):
        plan = self.folder_plan(BUSY, END, folder=folder)
        before = self.own_files()
        self.assert_outcome(self.run_plans(plan), status, words)
        self.assertEqual(self.own_files(), before)

    def test_folders(self):
        self.assert_wrong("data: " + str(self.path("in")) + ": is no folder")
        self.folder_of("in", file_txt="x")
        self.assert_wrong("in/file.txt: is no folder", {"from": "in/file.txt"})
        (self.path("in") / "loop").symlink_to(".")
        self.assert_wrong("in/loop: is a symbolic link")
        (self.path("in") / "loop").unlink()
        (self.path("in") / "a:b").write_text("x")
        self.assert_wrong("in/a:b: has a name that a FAT disk cannot hold")
        os.rename(self.path("in") / "a:b", self.path("in") / "new\nline")
        self.assert_wrong("control characters", {"media": "cdrom", "size": None})

    def test_more_than_fits(self):
        with open(self.folder_of("in", a_txt="x") / "big", "wb") as file:
            file.truncate(33 << 20)
        self.assert_wrong("in/big: does not fit: there is room for 32 MiB")
        os.truncate(self.path("in/big"), 31 << 20)
        self.assert_wrong("in: cannot be copied to a disk of 32 MiB: mcopy: ")
        self.path("in/big").unlink()
        for number in range(300):
            (self.path("in") / f"file{number}").touch()
        self.assert_wrong("more names than fit into the first folder")

    def test_program_that_is_missing_is_named_before_anything_starts(self):
        self.folder_of("in", a_txt="x")
        environment = {**self.environment(), "PATH": "/nowhere"}
        for folder, words in (({"media": "cdrom", "size": None}, "xorriso is not installed; it is in the Debian package xorriso"),
                              ({}, "mformat is not installed; it is in the Debian package mtools")):
            plan = self.folder_plan(BUSY, END, folder=folder)
            result = self.whistler("test", plan, env=environment)
            self.assert_refused(result, "plan.json", 'the folder "data"', words, status=3)
        self.assertEqual(self.whistler("test", self.plan(say("up") + BUSY, {"wait_serial": "up"}), env=environment).returncode, 0)


@needs("fsck.fat")
class HostileDisks(FolderCase):
    """The guest writes to its disk what a file system should not hold."""

    def assert_refused_disk(self, sectors, words):
        self.folder_of("in", a_txt="x")
        plan = self.folder_plan(writing(sectors), END, {"copy_out": "data"})
        before = set(self.own_files())
        result = self.run_plans(plan, "--artifacts", "out")
        self.assert_outcome(result, 1, words)
        self.assertLess(max(len(line) for line in result.stdout.splitlines()), 1000)
        self.assertEqual([path for path in set(self.own_files()) - before if not path.startswith(str(self.path("out")))], [])
        return self.path("out/plan")

    def test_no_file_system_at_all(self):
        old = self.path("out/plan/files-data")
        old.mkdir(parents=True)
        (old / "of the last time").touch()
        kept = self.assert_refused_disk({PARTITION: b""}, "data: its file system is not whole: ")
        self.assertIn("not whole", (kept / "files-data.txt").read_text())
        self.assertFalse((kept / "files-data").exists())

    def test_names_that_lead_elsewhere(self):
        fats, root, data, _ = self.layout()
        good = {**dict.fromkeys(fats, CLUSTER_2), data: b"evil"}
        for long in ("../../../escape.txt", str(self.path("escape.txt")), "a\\b", "..\\..\\x"):
            with self.subTest(long):
                self.assert_refused_disk({**good, root: entry("LONG    TXT", cluster=2, size=4, long=long)},
                                         "has a name that a FAT disk cannot hold")
        for short in ("..", ".", "A/B     TXT", "../../ESC"):
            with self.subTest(short):
                self.assert_refused_disk({**good, root: entry(short, cluster=2, size=4)}, "not whole: /")

    def test_folders_that_hold_themselves(self):
        fats, root, data, _ = self.layout()
        inside = entry(".", FOLDER, 2) + entry("..", FOLDER, 0) + entry("AGAIN", FOLDER, 2)
        self.assert_refused_disk({**dict.fromkeys(fats, CLUSTER_2), root: entry("AGAIN", FOLDER, 2), data: inside},
                                 "its file system is not whole: ")

    def test_folders_without_end(self):
        fats, root, data, per_cluster = self.layout()
        depth = 120
        sectors = {root: entry("ABCDEFGHIJK", FOLDER, 2)}
        table = b"\xf8\xff\xff\xff" + b"\xff\xff" * depth
        for at in range(0, len(table), SECTOR):
            sectors |= {fat + at // SECTOR: table[at:at + SECTOR] for fat in fats}
        for number in range(depth):
            inside = entry(".", FOLDER, number + 2) + entry("..", FOLDER, number + 1 if number else 0)
            sectors[data + number * per_cluster] = inside + (entry("ABCDEFGHIJK", FOLDER, number + 3) if number + 1 < depth else b"")
        self.assert_refused_disk(sectors, "its folders are nested too deeply")

    def test_files_that_share_what_they_hold(self):
        fats, root, data, _ = self.layout()
        entries = b"".join(entry(f"FILE{number:04}TXT", cluster=2, size=100) for number in range(16))
        self.assert_refused_disk({**dict.fromkeys(fats, CLUSTER_2), root: entries, data: b"x" * 100}, "share clusters")


if __name__ == "__main__":
    unittest.main()

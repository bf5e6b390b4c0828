"""Wrong descriptions, files and arguments: one line that names file, key and reason, status 2, nothing created."""

import itertools
import os
import socket
import struct
import subprocess
import threading
import unittest

from cli_case import NOBODY, CliCase, needs, needs_kvm, needs_root, tool, whistler


class Arguments(CliCase):
    def test_no_command(self):
        self.assert_refused(self.whistler(), "--help")

    def test_unknown_command_and_option(self):
        self.assert_refused(self.whistler("rum", "x.json"), "rum")
        self.assert_refused(self.whistler("run", self.machine(), "--tiemout", "5"), "--tiemout")

    def test_no_file_named(self):
        self.assert_refused(self.whistler("run"), "MACHINE.json")

    def test_help_teaches(self):
        for words, expected in ((["--help"], "configs/demo.json"), (["run", "--help"], "--set"), (["run", "--help"], "124"),
                                (["check", "--help"], "Exit status"), (["help"], "run")):
            result = self.whistler(*words)
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            self.assertIn(expected, result.stdout)

    def test_version(self):
        for words in (["version"], ["--version"]):
            self.assertRegex(self.whistler(*words).stdout, r"\Awhistler \d+\.\d+\.\d+\n\Z")

    def test_bad_timeout(self):
        for value in ("soon", "-1", "1.5", "99999999999999999999", ""):
            self.assert_refused(self.whistler("run", self.machine(), "--timeout", value), "--timeout")

    def test_bad_accel_and_qtest(self):
        self.assert_refused(self.whistler("run", self.machine(), "--accel", "tcg"), "--accel")
        self.assert_refused(self.whistler("run", self.machine(), "--accel", "qtest"), "--qtest")
        self.assert_refused(self.whistler("run", self.machine(), "--accel", "qtest", "--qtest", "tcp:1"), "--qtest", "unix:")
        self.assert_refused(self.whistler("run", self.machine(), "--accel", "qtest", "--qtest", "unix:/nowhere/s"), "/nowhere/s")

    def test_bad_set(self):
        machine = self.machine(drives=[])
        for change, *words in (("memory", "PATH=VALUE"), ("=5", "PATH=VALUE"), ("memory=lots", "memory", "lots"),
                               ("a..b=1", "empty part"), ("memory.x=1", "memory.x"), ("drives.7.id=a", "drives.7"),
                               ("drives.x.id=a", '"x"'), ("mmory=5M", "mmory", '"memory"'), ("memory=" + "[" * 9000, "memory"),
                               ("memory=" + "[" * 9000 + "]" * 9000, "memory", "deep"), ("." * 5000 + "=1", "empty part"),
                               ("a." * 5000 + "a=1", "a")):
            with self.subTest(change[:30]):
                self.assert_bad(machine, *words, arguments=["--set", change])

    def test_set_null_takes_a_key_away(self):
        machine = self.machine(nmae="x")
        self.assert_bad(machine, "nmae")
        self.assertEqual(self.whistler("check", machine, "--set", "nmae=null").returncode in (0, 3), True)


class Text(CliCase):
    """The description as a file and as JSON."""

    def test_files_that_are_no_description(self):
        os.mkfifo(self.path("fifo.json"))
        for path in ("missing.json", ".", "fifo.json", "/dev/zero", "/dev/null", "missing.json/x"):
            with self.subTest(path):
                self.assert_bad(path, path)
        self.assert_bad(self.file("empty.json", ""), "empty.json", "empty")
        self.assert_bad(self.file("huge.json", b" " * (2 << 20)), "huge.json", "64 KiB")
        self.assert_bad(self.file("binary.json", bytes(range(256))), "binary.json", "JSON")

    @needs_root
    def test_unreadable_description(self):
        machine = self.machine()
        machine.chmod(0)
        self.folder.chmod(0o755)
        result = self.whistler("run", machine, user=NOBODY, group=NOBODY, extra_groups=[])
        self.assert_refused(result, "machine.json", "read")

    def test_json_errors_name_the_place(self):
        self.assert_bad(self.file("m.json", '{\n  "memory": "16M",,\n}'), "m.json", "line 2")
        self.assert_bad(self.file("m.json", '{"memory": "16M"'), "m.json", "line 1")
        self.assert_bad(self.file("m.json", '{"memory": "16M"} {}'), "m.json", "line 1")
        self.assert_bad(self.file("m.json", b'{"memory": "\xff\xfe"}'), "m.json", "JSON")
        self.assert_bad(self.file("m.json", '{"memory": 1e999}'), "m.json")
        self.assert_bad(self.file("m.json", "\0" * 100), "m.json")
        self.assert_bad(self.file("m.json", "[1, 2]"), "m.json", "object")
        self.assert_bad(self.file("m.json", "null"), "m.json", "object")

    def test_deep_and_wide_json(self):
        self.assert_bad(self.file("m.json", "[" * 60_000), "m.json")
        self.assert_bad(self.file("m.json", '{"a":' * 10_000), "m.json")
        self.assert_bad(self.file("m.json", '{"memory": ' + "[" * 40 + "]" * 40 + "}"), "m.json", "deep")
        self.assert_bad(self.file("m.json", '{"memory": "16M", "drives": [' + "{}," * 20_000 + "{}]}"), "m.json: drives", "20001")
        keys = ",".join(f'"k{n}": 1' for n in range(4_000))
        self.assert_bad(self.file("m.json", '{"memory": "16M",' + keys + "}"), "m.json", "k0")

    def test_key_given_twice(self):
        self.assert_bad(self.file("m.json", '{"memory": "16M", "memory": "32M"}'), "m.json", "memory", "twice")
        self.assert_bad(self.file("m.json", '{"memory": "16M", "vnc": {"port": 1, "port": 2}}'), "m.json", "port", "twice")

    def test_control_characters_stay_in_one_line(self):
        self.assert_bad(self.machine(**{"a\nb\x1b[31m": 1}), "machine.json")
        self.assert_bad(self.machine(drives=[{"file": "no\nsuch\x1b[31m", "format": "raw"}]), "no\\x0asuch\\x1b")
        self.assert_bad("no\nsuch.json", "no\\x0asuch.json")


class Keys(CliCase):
    def test_unknown_keys_get_the_nearest(self):
        for changes, *words in (
                ({"mem": 1}, "mem", "memory"), ({"drive": []}, "drive:", '"drives"'), ({"vcn": {}}, "vcn", '"vnc"'),
                ({"cpu": {"core": 2}}, "cpu.core", '"cores"'), ({"cpu": {"features": {"pea": True}}}, "cpu.features.pea", '"pae"'),
                ({"boot": {"ordr": []}}, "boot.ordr", '"order"'), ({"vnc": {"prot": 1}}, "vnc.prot", '"port"'),
                ({"drives": [{"fiel": "a"}]}, "drives[0].fiel", '"file"'), ({"serial": [{"backned": "pty"}]}, "serial[0].backned"),
                ({"debug": {"exitport": 1}}, "debug.exitport", '"exit_port"'), ({"on": {"boot": "exit"}}, "on.boot"),
                ({"display": {"vgga": "std"}}, "display.vgga", '"vga"'), ({"x" * 5000: 1}, "is not a key")):
            with self.subTest(str(changes)[:60]):
                self.assert_bad(self.machine(**changes), "machine.json", *words, commands=["check"])

    def test_missing_keys(self):
        self.assert_bad(self.machine(memory=None), "machine.json: memory: is missing")
        self.assert_bad(self.machine(drives=[{}]), "drives[0].file", "missing")
        self.assert_bad(self.machine(drives=[{"file": "a"}]), "drives[0].format", "missing")
        self.assert_bad(self.machine(serial=[{}]), "serial[0].backend", "missing")
        self.assert_bad(self.machine(serial=[{"backend": "file"}]), "serial[0].path", "missing")

    def test_mistyped_values(self):
        for changes, *words in (
                ({"memory": True}, "memory", "true"), ({"memory": [1]}, "memory", "array"), ({"memory": 1.5}, "memory"),
                ({"memory": "16 apples"}, "memory", "16 apples"), ({"name": 5}, "name", "string"), ({"cpu": 2}, "cpu", "object"),
                ({"drives": {}}, "drives", "array"), ({"drives": ["a.raw"]}, "drives[0]", "object"),
                ({"vnc": {"port": "5900"}}, "vnc.port", "number"), ({"vnc": None, "uuid": "x"}, "uuid"),
                ({"boot": {"order": "disk"}}, "boot.order", "array"), ({"boot": {"order": ["tape"]}}, "boot.order[0]", "disk"),
                ({"boot": {"menu": 1}}, "boot.menu", "true or false"), ({"machine": {"type": "q35"}}, "machine.type", "pc-i440fx"),
                ({"clock": {"base": "mars"}}, "clock.base", "utc"), ({"serial": [{"backend": "tcp"}]}, "serial[0].backend", "pty"),
                ({"debug": {"console": "tcp:1"}}, "debug.console", "file:PATH"), ({"debug": {"exit_port": "0xg"}}, "debug.exit_port"),
                ({"on": {"reboot": "maybe"}}, "on.reboot", "reset"), ({"name": "a" * 5000}, "name"),
                ({"on": {"poweroff": "reset"}}, "on.poweroff", "exit"), ({"cpu": {"features": {"pae": 1}}}, "cpu.features.pae"),
                ({"network": {}}, "network", "array"), ({"network": [{"model": 1}]}, "network[0].model"),
                ({"boot": {"cmdline": "quiet"}}, "boot.cmdline", "boot.kernel"), ({"vnc": {"websocket": 1}}, "vnc.websocket")):
            with self.subTest(str(changes)[:60]):
                self.assert_bad(self.machine(**changes), "machine.json", *words, commands=["check"])

    def test_absurd_sizes(self):
        for changes, *words in (
                ({"memory": 0}, "memory"), ({"memory": -1}, "memory"), ({"memory": "1"}, "memory"), ({"memory": "1025G"}, "memory"),
                ({"memory": 2**64 - 1}, "memory"), ({"memory": 2**64}, "memory"), ({"memory": "99999999999999999999G"}, "memory"),
                ({"memory": "16777217"}, "memory", "MiB"), ({"cpu": {"cores": 0}}, "cpu.cores", "8"),
                ({"cpu": {"cores": 9}}, "cpu.cores", "8"), ({"cpu": {"cores": 2**63}}, "cpu.cores"),
                ({"display": {"vram": "3M"}}, "display.vram"), ({"display": {"vram": "1T"}}, "display.vram"),
                ({"vnc": {"port": 65536}}, "vnc.port"), ({"vnc": {"port": -2}}, "vnc.port"),
                ({"clock": {"start": -1}}, "clock.start"), ({"clock": {"start": 2**62}}, "clock.start"),
                ({"debug": {"exit_port": 0}}, "debug.exit_port"), ({"debug": {"exit_port": 65536}}, "debug.exit_port"),
                ({"boot": {"menu_timeout": 70000}}, "boot.menu_timeout"), ({"serial": [{"backend": "none"}] * 3}, "serial")):
            with self.subTest(str(changes)):
                self.assert_bad(self.machine(**changes), "machine.json", *words, commands=["check"])

    def test_exit_port_of_another_device(self):
        self.assert_bad(self.machine(debug={"exit_port": "0x1f0"}), "machine.json", "exit_port")


class Drives(CliCase):
    def drive(self, file, format="raw", **more):
        return self.machine(drives=[{"id": "hda", "file": str(file), "format": format, **more}])

    def test_files_that_are_no_disk(self):
        os.mkdir(self.path("folder"))
        os.mkfifo(self.path("fifo"))
        os.symlink("loop", self.path("loop"))
        for file in ("missing.raw", "folder", "fifo", "/dev/zero", "/dev/null", "/dev/tty", "loop", "x" * 300, "folder/../none"):
            for format in ("raw", "qcow2"):
                with self.subTest(file=file[:20], format=format):
                    self.assert_bad(self.drive(file, format), "machine.json", "hda", os.path.basename(file)[:20])

    def test_encrypted_image_needs_its_password(self):
        self.file("right", "open sesame\n")
        self.file("wrong", "sesame\n")
        self.file("empty", "\n")
        made = self.whistler("img", "create", "-f", "qcow2", "--object", "secret,id=s,data=open sesame", "-o",
                             "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", "e.qcow2", "1M")
        self.assertEqual(made.returncode, 0, made.stderr)
        self.assert_bad(self.drive("e.qcow2", "qcow2"), "hda", "e.qcow2", "password")
        os.mkfifo(self.path("fifo"))
        self.file("huge", "x" * 100_000)
        for file in ("wrong", "empty", "gone", ".", "fifo", "huge", "/dev/zero"):
            with self.subTest(file):
                self.assert_bad(self.drive("e.qcow2", "qcow2", password_file=file), "hda")

    def test_hostile_luks_headers(self):
        secret = ("--object", "secret,id=s,data=open sesame")
        made = self.whistler("img", "create", "-q", "-f", "qcow2", *secret, "-o",
                             "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", "e.qcow2", "1M")
        self.assertEqual(made.returncode, 0, made.stderr)
        self.file("right", "open sesame\n")
        good = self.path("e.qcow2").read_bytes()
        luks = good.index(b"LUKS\xba\xbe")
        slot, huge = 208, b"\xff" * 4  # of the first key; the fields are big-endian
        for name, changes, word in (
                ("iterations", {164: huge}, "iteration"), ("no iterations", {164: bytes(4)}, "iteration"),
                ("of a key", {slot + 4: huge}, "iteration"), ("no stripes", {slot + 44: bytes(4)}, "stripes"),
                ("stripes", {slot + 44: huge}, "stripes"), ("material", {slot + 40: huge}, "overlapping"),
                ("beyond the end", {104: huge, slot + 40: b"\x7f\xff\xff\xff"}, "needs"), ("cipher", {8: b"rot13\0"}, "rot13"),
                ("mode", {40: b"xyz-plain64\0"}, "xyz"), ("hash", {72: b"crc32\0"}, "crc32"), ("key", {108: huge}, "overlapping"),
                ("version", {6: b"\x00\x63"}, "version"), ("other salt", {slot + 8: huge}, "password")):
            bad = bytearray(good)
            for at, value in changes.items():
                bad[luks + at:luks + at + len(value)] = value
            self.file("e.qcow2", bytes(bad))
            with self.subTest(name):
                self.assert_bad(self.drive("e.qcow2", "qcow2", password_file="right"), "hda", "e.qcow2", word)
                result = self.whistler("img", "convert", "-O", "raw", *secret, "--image-opts",
                                       "driver=qcow2,file.filename=e.qcow2,encrypt.key-secret=s", "out")
                self.assertEqual(result.returncode, 1, result.stderr)
                self.assertIn(word, result.stderr)
                self.assertFalse(self.path("out").exists())

    def test_empty_and_odd_sizes(self):
        self.assert_bad(self.drive(self.raw_disk("empty.raw", 0)), "hda", "empty.raw")
        self.assert_bad(self.drive(self.file("short.qcow2", b"QFI\xfb"), "qcow2"), "hda", "short.qcow2")

    @needs_root
    def test_files_without_permission(self):
        disk = self.raw_disk()
        disk.chmod(0o444)
        self.folder.chmod(0o755)
        machine = self.drive(disk)
        for command in ("run", "check"):
            result = self.whistler(command, machine, user=NOBODY, group=NOBODY, extra_groups=[])
            self.assert_refused(result, "machine.json", "hda", "disk.raw", "ermission")

    @needs("qemu-img")
    def test_wrong_format(self):
        self.assert_bad(self.drive(self.raw_disk(), "qcow2"), "hda", "disk.raw")
        self.assert_bad(self.drive(self.raw_disk(), "vmdk"), "drives[0].format", "qcow2")

    def patched(self, name, *changes):
        path = self.qcow2(name)
        with open(path, "r+b") as file:
            for offset, layout, value in changes:
                file.seek(offset)
                file.write(struct.pack(layout, value))
        return path

    @needs("qemu-img")
    def test_hostile_qcow2_headers(self):
        hostile = {
            "magic": [(0, ">I", 0)], "version": [(4, ">I", 4)], "version-0": [(4, ">I", 0)], "incompatible": [(72, ">Q", 1 << 40)],
            "corrupt-bit": [(72, ">Q", 2)], "cluster-bits-0": [(20, ">I", 0)], "cluster-bits-63": [(20, ">I", 63)],
            "size-0": [(24, ">Q", 0)], "size-max": [(24, ">Q", 2**64 - 1)], "size-2^60": [(24, ">Q", 2**60)],
            "l1-size-0": [(36, ">I", 0)], "l1-size-max": [(36, ">I", 2**32 - 1)], "l1-offset-max": [(40, ">Q", 2**64 - 1)],
            "l1-offset-odd": [(40, ">Q", 513)], "l1-offset-0": [(40, ">Q", 0)], "refcount-offset-max": [(48, ">Q", 2**63)],
            "refcount-offset-odd": [(48, ">Q", 77)], "refcount-clusters-max": [(56, ">I", 2**32 - 1)],
            "snapshots-max": [(60, ">I", 2**32 - 1), (64, ">Q", 65536)], "refcount-order": [(96, ">I", 200)],
            "header-length": [(100, ">I", 2**32 - 8)], "header-length-4": [(100, ">I", 4)], "encrypted": [(32, ">I", 2)],
            "backing-name": [(8, ">Q", 2**63), (16, ">I", 1023)], "backing-name-long": [(8, ">Q", 512), (16, ">I", 2**31)],
            "extension": [(112, ">I", 0x6803f857), (116, ">I", 2**32 - 1)], "data-file": [(72, ">Q", 4)],
        }
        for name, changes in hostile.items():
            # What only keeps an image from being written to is no news to a check, which reads.
            commands = ["run"] if name == "corrupt-bit" else ["run", "check"]
            with self.subTest(name):
                self.assert_bad(self.drive(self.patched(f"{name}.qcow2", *changes), "qcow2"), "machine.json", "hda", f"{name}.qcow2",
                                commands=commands)

    @needs("qemu-img")
    def test_backing_files(self):
        def overlay(name, backing, format="raw"):
            tool("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", format, self.path(name), "1M")
            return self.path(name)
        self.assert_bad(self.drive(overlay("a.qcow2", "gone.raw"), "qcow2"), "hda", "gone.raw", "a.qcow2")
        self.assert_bad(self.drive(overlay("self.qcow2", "self.qcow2", "qcow2"), "qcow2"), "hda", "self.qcow2", "own backing")
        overlay("one.qcow2", "two.qcow2", "qcow2")
        self.assert_bad(self.drive(overlay("two.qcow2", "one.qcow2", "qcow2"), "qcow2"), "hda", "own backing")
        os.mkfifo(self.path("fifo"))
        self.assert_bad(self.drive(overlay("f.qcow2", "fifo"), "qcow2"), "hda", "fifo")
        self.assert_bad(self.drive(overlay("z.qcow2", "/dev/zero"), "qcow2"), "hda", "/dev/zero")
        self.assert_bad(self.drive(overlay("j.qcow2", "json:{}"), "qcow2"), "hda", "json:")
        self.assert_bad(self.drive(overlay("n.qcow2", "nbd://localhost/"), "qcow2"), "hda", "nbd:")

    @needs("qemu-img")
    def test_very_long_chain(self):
        tool("qemu-img", "create", "-q", "-f", "raw", self.path("0.raw"), "1M")
        for n in range(1, 300):
            below, format = (f"{n - 1}.qcow2", "qcow2") if n > 1 else ("0.raw", "raw")
            if n == 1:
                tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", format, self.path(f"{n}.qcow2"))
                template = self.path("1.qcow2").read_bytes()
            else:
                name = below.encode()
                at = template.index(b"0.raw")
                # The name, its length, and a format extension that says qcow2.
                image = bytearray(template)
                image[at:at + len(name)] = name
                image[16:20] = struct.pack(">I", len(name))
                extension = image.index(struct.pack(">I", 0xe2792aca))
                image[extension:extension + 16] = struct.pack(">II8s", 0xe2792aca, 5, b"qcow2")
                self.path(f"{n}.qcow2").write_bytes(bytes(image))
        result = self.whistler("check", self.drive("299.qcow2", "qcow2"))
        self.assertIn(result.returncode, (0, 2, 3), result.stderr)
        self.assertLessEqual(result.stderr.count("\n"), 1)

    def test_two_drives_in_one_place(self):
        self.raw_disk("a.raw")
        self.raw_disk("b.raw")
        drive = {"file": "a.raw", "format": "raw"}
        self.assert_bad(self.machine(drives=[drive, {**drive, "file": "b.raw"}]), "drives[1]", "taken")
        self.assert_bad(self.machine(drives=[{**drive, "id": "x"}, {**drive, "file": "b.raw", "unit": 1, "id": "x"}]), "drives[1].id")
        self.assert_bad(self.machine(drives=[drive, {**drive, "unit": 1}]), "a.raw", commands=["run"])
        self.assert_bad(self.machine(drives=[{**drive, "bus": 2}]), "drives[0].bus")
        self.assert_bad(self.machine(drives=[{**drive, "unit": -1}]), "drives[0].unit")
        self.assert_bad(self.machine(drives=[{**drive, "interface": "scsi"}]), "drives[0].interface")
        self.assert_bad(self.machine(drives=[drive] * 7), "drives", "7")

    def test_identity_that_does_not_fit(self):
        self.raw_disk()
        for key, value in (("serial", "x" * 21), ("model", "x" * 41), ("serial", "Größe"), ("model", "a\nb"),
                           ("geometry", {"heads": 17}), ("geometry", {"cylinders": 0}), ("geometry", [1, 2, 3])):
            with self.subTest(key=key, value=str(value)):
                self.assert_bad(self.drive("disk.raw", **{key: value}), f"drives[0].{key}")

    def test_cdrom_that_is_writable_or_missing(self):
        self.raw_disk("cd.iso")
        self.assert_bad(self.drive("cd.iso", media="cdrom", read_only=False), "drives[0].read_only")
        self.assert_bad(self.drive("gone.iso", media="cdrom"), "hda", "gone.iso")


class Files(CliCase):
    """Firmware, kernels, passwords, outputs."""

    def test_bios_of_wrong_size(self):
        for size in (0, 1, 65535, 65537, 17 << 20):
            with self.subTest(size):
                bios = self.raw_disk("bios.bin", size)
                self.assert_bad(self.machine(firmware={"bios": str(bios)}), "firmware.bios", "bios.bin", size)
        os.mkfifo(self.path("fifo"))
        for file in ("gone.bin", ".", "fifo", "/dev/zero"):
            with self.subTest(file):
                self.assert_bad(self.machine(firmware={"bios": file}), "firmware.bios")
                self.assert_bad(self.machine(firmware={"vga_bios": file}, display={"vga": "std"}), "firmware.vga_bios")
        rom = self.file("rom.bin", b"\0" * 4096)
        self.assert_bad(self.machine(firmware={"vga_bios": str(rom)}, display={"vga": "std"}), "firmware.vga_bios", "55 AA")

    def test_bad_kernels(self):
        os.mkfifo(self.path("fifo"))
        elf = bytearray(b"\x7fELF\x01\x01\x01" + bytes(57))
        for name, content in (("empty", b""), ("text", b"hello\n" * 1000), ("zeros", bytes(1 << 20)), ("elf", bytes(elf)),
                              ("elf-wild", bytes(elf[:28]) + b"\xff" * 2000), ("bz", bytes(0x1fe) + b"\x55\xaa" + b"HdrS" + b"\xff" * 2000)):
            with self.subTest(name):
                kernel = self.file(name, content)
                self.assert_bad(self.machine(boot={"kernel": str(kernel)}), "boot.kernel", name)
        for file in ("gone", ".", "fifo", "/dev/zero"):
            self.assert_bad(self.machine(boot={"kernel": file}), "boot.kernel")
        self.assert_bad(self.machine(boot={"initrd": "x"}), "boot.initrd", "boot.kernel")

    def test_bad_password_files(self):
        os.mkfifo(self.path("fifo"))
        self.file("empty", "\n")
        self.file("long", "123456789\n")
        self.file("huge", "x" * 100_000)
        for file in ("gone", ".", "fifo", "/dev/zero", "empty", "long", "huge"):
            with self.subTest(file):
                self.assert_bad(self.machine(display={"vga": "std"}, vnc={"password_file": file}), "machine.json", "vnc")

    def test_password_file_that_changes_while_it_is_read(self):
        self.file("right", "secret\n")
        machine = self.machine(display={"vga": "std"}, vnc={"password_file": "changing"})
        end = threading.Event()

        def change():
            for content in itertools.cycle(("", "secret\n", "x" * 5000, "\n", None)):
                if end.is_set():
                    return
                if content is None:
                    self.path("changing").unlink(missing_ok=True)
                else:
                    self.path("changing").write_text(content)
        changer = threading.Thread(target=change)
        changer.start()
        try:
            for _ in range(20):
                result = self.whistler("check", machine)
                self.assertIn(result.returncode, (0, 2), result.stderr)
                if result.returncode == 2:
                    self.assert_refused(result, "vnc.password_file")
        finally:
            end.set()
            changer.join()

    def test_vnc_addresses(self):
        for listen in ("300.1.1.1", "nosuchhost.invalid", "", "203.0.113.7"):
            with self.subTest(listen):
                self.assert_bad(self.machine(display={"vga": "std"}, vnc={"listen": listen}), "vnc")

    @needs_kvm
    def test_vnc_sockets(self):
        for listen in ("unix:/nowhere/at/all", "unix:" + "x" * 200):
            with self.subTest(listen[:20]):
                self.assert_bad(self.machine(display={"vga": "std"}, vnc={"listen": listen}), "vnc", commands=["run"])

    @needs_kvm
    def test_busy_vnc_port(self):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            machine = self.machine(display={"vga": "std"}, vnc={"port": port}, serial=[{"backend": "file", "path": "serial.txt"}],
                                   debug={"console": "file:debug.txt"})
            self.assert_bad(machine, "vnc", port, commands=["run"])

    def test_outputs_that_cannot_be(self):
        os.mkdir(self.path("folder"))
        self.file("plain", "keep me")
        for file in ("folder", "gone/x", "plain/x"):
            with self.subTest(file):
                self.assert_bad(self.machine(serial=[{"backend": "file", "path": file}]), "serial[0].path", file)
                self.assert_bad(self.machine(debug={"console": f"file:{file}"}), "debug.console", file)
        for file in ("folder", "gone/x", "plain", "x" * 120):
            with self.subTest(file[:20]):
                self.assert_bad(self.machine(serial=[{"backend": "unix", "path": file}]), "serial[0].path", file[:20])
        self.assert_bad(self.machine(serial=[{"backend": "stdio"}] * 2), "serial[1].backend")

    def test_outputs_never_overwrite_inputs(self):
        self.raw_disk()
        os.link(self.path("disk.raw"), self.path("link.raw"))
        drives = [{"file": "disk.raw", "format": "raw"}]
        for file, *words in (("disk.raw", "image"), ("link.raw", "image"), ("machine.json", "description")):
            with self.subTest(file):
                self.assert_bad(self.machine(drives=drives, serial=[{"backend": "file", "path": file}]), "serial[0].path", *words)
                self.assert_bad(self.machine(drives=drives, debug={"console": f"file:{file}"}), "debug.console", *words)
        outputs = [{"backend": "file", "path": "a.txt"}] * 2
        self.assert_bad(self.machine(serial=outputs), "serial[1].path", "serial[0].path")

    @needs_kvm
    def test_socket_in_use(self):
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(self.path("s")))
            other.listen()
            self.assert_bad(self.machine(serial=[{"backend": "unix", "path": "s"}, {"backend": "file", "path": "log"}]),
                            "serial[0].path", commands=["run"])


@needs_kvm
@needs("qemu-io", "nasm")
class SecondWriter(CliCase):
    """Whistler and QEMU's tools keep each other from an image in use."""

    def setUp(self):
        super().setUp()
        self.qcow2()
        self.rom("forever: hlt\n jmp forever")
        self.description = self.machine(firmware={"bios": "rom.bin"}, drives=[{"id": "hda", "file": "disk.qcow2", "format": "qcow2"}],
                                        debug={"console": "file:started"})

    def started(self):
        process = self.start("run", self.description, "--timeout", "120")
        self.until("the first machine", lambda: self.path("started").exists() or process.poll() is not None)
        self.assertIsNone(process.poll())
        return process

    def test_two_whistlers(self):
        self.started()
        other = self.machine("other.json", drives=[{"id": "hda", "file": "disk.qcow2", "format": "qcow2"}])
        self.assert_bad(other, "other.json", "hda", "disk.qcow2", commands=["run"])
        log = self.machine("log.json", serial=[{"backend": "file", "path": "disk.qcow2"}])
        self.assert_bad(log, "log.json", "serial[0].path", "disk.qcow2")

    def test_check_works_while_it_runs(self):
        self.started()
        before = self.state_of_files()
        result = self.whistler("check", self.description)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn("disk.qcow2", result.stdout)
        self.assertEqual(self.state_of_files(), before)

    def test_qemu_io_is_kept_out(self):
        self.started()
        result = subprocess.run(["qemu-io", "-c", "write 0 512", str(self.path("disk.qcow2"))], capture_output=True, text=True,
                                timeout=60, check=False)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("lock", result.stderr)

    def test_kept_out_by_qemu_io(self):
        qemu_io = subprocess.Popen(["qemu-io", str(self.path("disk.qcow2"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True)
        self.addCleanup(self.end, qemu_io)
        qemu_io.stdin.write("length\n")
        qemu_io.stdin.flush()
        self.assertIn("1 MiB", qemu_io.stdout.readline())
        self.assert_bad(self.description, "machine.json", "hda", "disk.qcow2", commands=["run"])
        self.assertEqual(self.whistler("check", self.description).returncode, 0)


@needs_root
@needs("unshare", "mount", "nasm")
class Host(CliCase):
    """A host that cannot run it: status 3. What is wrong with the description goes first."""

    def without_kvm(self, prepare, *arguments, **options):
        script = f"{prepare} && exec setpriv --reuid=$0 --regid=$0 --clear-groups \"$@\""
        return subprocess.run(["unshare", "-m", "sh", "-c", script, *arguments], cwd=self.folder, text=True, timeout=60,
                              capture_output=True, stdin=subprocess.DEVNULL, check=False, **options)

    def test_without_kvm(self):
        self.rom("hlt")
        self.folder.chmod(0o777)
        machine = self.machine(firmware={"bios": "rom.bin"}, debug={"console": "file:log"})
        bad = self.machine("bad.json", mmory=1)
        program = whistler()
        if not os.path.exists("/dev/kvm"):
            self.assert_refused(self.whistler("run", machine), "/dev/kvm", "kvm_intel", status=3)
            return
        for prepare, user, word in (("mount --bind /dev/null /dev/kvm", "0", "/dev/kvm"),
                                    ("mount -t tmpfs none /dev", "0", "kvm_intel"),
                                    ("mount --bind /dev/kvm /dev/kvm && true", str(NOBODY), "group kvm")):
            for command in ("run", "check"):
                with self.subTest(prepare=prepare, command=command):
                    before = self.state_of_files()
                    self.assert_refused(self.without_kvm(prepare, user, program, command, str(machine)), word, status=3)
                    self.assert_refused(self.without_kvm(prepare, user, program, command, str(bad)), "mmory", status=2)
                    self.assertEqual(self.state_of_files(), before)


if __name__ == "__main__":
    unittest.main()

"""whistler import: libvirt domains and QEMU command lines become machine descriptions, wrong ones one line and status 2."""

import json
import os
import subprocess
import unittest
from pathlib import Path

from cli_case import QUICK, ROOT, CliCase, needs, whistler
from described import jsonschema, schema

DOMAINS = Path(__file__).resolve().parent / "domains"
SMALL = "<domain type='kvm'>\n<name>small</name>\n<memory unit='MiB'>64</memory>\n{}</domain>\n"


class Importing(CliCase):
    def imported(self, *arguments, **options):
        """The description on standard output, which the program takes, and the lines of notes."""
        result = self.whistler("import", *arguments, **options)
        self.assertEqual(result.returncode, 0, result.stderr)
        for line in result.stderr.splitlines():
            self.assertRegex(line, r"\Awhistler: warning: .+: .+")
        description = json.loads(result.stdout)
        if jsonschema:
            jsonschema.validate(description, schema())
        return description, result.stderr.splitlines()

    def assert_import_refused(self, *words, arguments):
        before = self.state_of_files()
        self.assert_refused(self.whistler("import", *arguments), *words)
        self.assertEqual(self.state_of_files(), before, "files were created or changed")

    def domain(self, inside, name="domain.xml"):
        return self.file(name, SMALL.format(inside))


class Domains(Importing):
    def test_the_xp_domain_is_the_shipped_machine(self):
        description, notes = self.imported(DOMAINS / "winxp.xml")
        shipped = json.loads((ROOT / "configs" / "winxp.json").read_text())
        self.assertEqual(notes, [])
        # What a domain does not say, or says otherwise: names, identity, paths, where VNC listens, a CD for installing.
        for key in ("$schema", "uuid", "name"):
            shipped.pop(key)
        self.assertEqual(description.pop("name"), "WinXP-Guest")
        shipped["drives"] = [drive for drive in shipped["drives"] if drive["media"] == "disk"]
        shipped["drives"][0].pop("serial")
        self.assertEqual(Path(description["drives"][0].pop("file")).name, shipped["drives"][0].pop("file"))
        self.assertEqual(description["vnc"].pop("listen"), "0.0.0.0")
        shipped["vnc"].pop("listen")
        self.assertEqual(description, shipped)

    def test_what_import_writes_check_takes(self):
        disk = self.raw_disk()
        domain = self.domain(f"<devices><disk type='file'><driver type='raw'/><source file='{disk}'/><target dev='hda'/></disk></devices>")
        self.imported(domain, "-o", "/dev/stdout")
        self.assertEqual(self.whistler("import", domain, "-o", "m.json").stdout, "")
        checked = self.whistler("check", "m.json")
        self.assertIn(checked.returncode, (0, 3), checked.stderr)

    def test_a_dumped_domain_names_what_stays_behind(self):
        description, notes = self.imported(DOMAINS / "dumped.xml")
        self.assertEqual([drive["id"] for drive in description["drives"]], ["hda", "vda", "hdc", "fda"])
        self.assertEqual(description["network"], [{"model": "rtl8139", "backend": "user", "mac": "52:54:00:12:34:56"}])
        said = "\n".join(notes)
        for words in ("line 93: interface: network[0]", "line 118: sound: ", "line 112: input: ", "disk fda: ", "vnc: the password"):
            self.assertIn(words, said)
        self.assertNotIn("secret", said + json.dumps(description))

    def test_order_and_layout_stay_the_same(self):
        text = self.whistler("import", DOMAINS / "dumped.xml").stdout
        self.assertEqual(text, self.whistler("import", DOMAINS / "dumped.xml").stdout)
        keys = list(json.loads(text))
        self.assertEqual(keys[:6], ["name", "uuid", "machine", "cpu", "memory", "clock"])
        self.assertLessEqual(max(map(len, text.splitlines())), 130)

    def test_from_standard_input(self):
        result = self.whistler("import", "-", stdin=None, input=SMALL.format("<vcpu>99</vcpu>"))
        self.assert_refused(result, "standard input: line 4: vcpu")
        result = self.whistler("import", "-", stdin=None, input=SMALL.format(""))
        self.assertEqual(json.loads(result.stdout)["memory"], "64M")

    def test_a_description_elsewhere_has_whole_paths(self):
        os.mkdir(self.path("there"))
        self.assertEqual(self.whistler("import", "-o", "there/m.json", "--qemu", "--", "qemu", "-hda", "a.qcow2").returncode, 0)
        self.assertEqual(json.loads(self.path("there/m.json").read_text())["drives"][0]["file"], str(self.path("a.qcow2")))


class Hostile(Importing):
    def test_entities_and_external_files(self):
        for name, text in (("bomb.xml", "<!DOCTYPE d [<!ENTITY a 'ha'><!ENTITY b '&a;&a;'>]>\n<domain><name>&b;</name></domain>"),
                           ("outside.xml", "<!DOCTYPE d SYSTEM 'file:///etc/passwd'>\n<domain/>"),
                           ("inside.xml", "<!DOCTYPE d [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>\n<domain><name>&x;</name></domain>")):
            with self.subTest(name):
                self.assert_import_refused(name, "line 1", "DOCTYPE", "take it out", arguments=[self.file(name, text), "-o", "m.json"])

    def test_too_large_and_too_deep(self):
        large = self.file("large.xml", SMALL.format("<!-- " + "x" * (4 << 20) + " -->"))
        self.assert_import_refused("large.xml", "4 MiB", arguments=[large])
        self.assert_import_refused("/dev/zero", "4 MiB", arguments=["/dev/zero"])
        deep = self.file("deep.xml", "<domain>" + "<a>" * 100000 + "</a>" * 100000 + "</domain>")
        self.assert_import_refused("deep.xml", "line 1: a: ", "64", arguments=[deep])

    def test_wide(self):
        wide = self.domain("<devices>" + "<sound model='ac97'/>" * 100000 + "</devices>")
        _, notes = self.imported(wide)
        self.assertEqual(len(notes), 101)
        self.assertIn("99900 more", notes[-1])

    def test_rubbish(self):
        for content, *words in ((b"\x7fELF\x02\x01\x01\0", "not UTF-8 text"), (bytes(range(256)) * 16, "not UTF-8 text"), (b"", "is empty"),
                                ("<domain>".encode("utf-16"), "not UTF-8 text"), (b"{}", "is not XML"),
                                (b"<domain>\n<name>x\n", "line", "is not XML"),
                                (b"<domain>\n<memory", "line 2", "is not XML"), (b"<network/>", "line 1: network", "dumpxml")):
            with self.subTest(content[:20]):
                self.assert_import_refused("m.xml", *words, arguments=[self.file("m.xml", content), "-o", "m.json"])

    def test_sizes_out_of_range(self):
        for inside, *words in (("<memory>1</memory>", "line 1"), ("<vcpu>0</vcpu>", "line 4: vcpu", '"0"'), ("<vcpu>-1</vcpu>", "vcpu"),
                               ("<vcpu>99999999999999999999999</vcpu>", "vcpu", "1 to 8"), ("<uuid>\nx</uuid>", "line 4: uuid"),
                               ("<devices>\n<graphics type='vnc' port='65536'/></devices>", "line 5: graphics", "65535"),
                               ("<os>\n<bootmenu enable='yes' timeout='70000'/></os>", "line 5: bootmenu", "65535")):
            with self.subTest(inside):
                text = f"<domain>{inside}</domain>" if "<memory" in inside else SMALL.format(inside)
                self.assert_import_refused("m.xml", *words, arguments=[self.file("m.xml", text), "-o", "m.json"])

    def test_names_stay_on_their_line(self):
        for name in ("a&#10;b", "a&#27;[2Jb", "n" * 5000):
            with self.subTest(name[:10]):
                domain = self.domain(f"<devices><disk type='volume'><source volume='{name}'/><target dev='{name}'/></disk></devices>")
                result = self.whistler("import", domain)
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertNotIn("\x1b", result.stderr)
                self.assertTrue(all(line.startswith("whistler: ") for line in result.stderr.splitlines()), result.stderr)


class CommandLines(Importing):
    LINE = ("qemu-system-i386 -enable-kvm -m 512 -cpu host,+pae -hda 'My Disk.qcow2' -cdrom xp.iso -boot d -rtc base=localtime "
            "-vnc 127.0.0.1:1 -net nic,model=rtl8139 -net user -usb -soundhw ac97 -frobnicate 7")

    def test_one_string_and_words_are_the_same(self):
        one, one_notes = self.imported("--qemu", self.LINE)
        words, words_notes = self.imported("--qemu", "--", *self.LINE.replace("'My Disk.qcow2'", "My~Disk.qcow2").replace(" ", "\0")
                                           .replace("~", " ").split("\0"))
        self.assertEqual((one, one_notes), (words, words_notes))
        self.assertEqual(one["memory"], "512M")
        self.assertEqual([drive.get("file") for drive in one["drives"]], ["My Disk.qcow2", "xp.iso"])
        self.assertEqual(one["boot"]["order"], ["cdrom"])
        self.assertEqual(one["vnc"], {"listen": "127.0.0.1", "port": 5901})
        said = "\n".join(one_notes)
        for words in ("-hda: no format", "-net: network[0]", "-usb: ", "-soundhw: ", '-frobnicate: is not known to this version'):
            self.assertIn(words, said)

    def test_a_format_that_is_not_given_is_looked_at(self):
        self.file("a.img", b"QFI\xfb" + bytes(100))
        self.file("b.img", bytes(512))
        self.file("c.img", b"KDMV" + bytes(100))
        description, notes = self.imported("--qemu", "qemu -hda a.img -hdb b.img -hdc c.img -hdd none.img")
        self.assertEqual([(drive["file"], drive["format"]) for drive in description["drives"] if "file" in drive],
                         [("a.img", "qcow2"), ("b.img", "raw"), ("none.img", "raw")])
        for words in ("-hda: no format is given: qcow2 by its first bytes", "-hdb: no format is given: raw by its first bytes",
                      "whistler img convert -O qcow2 c.img", "-hdd: no format is given: raw by its name"):
            self.assertIn(words, "\n".join(notes))

    def test_mistakes(self):
        for line, *words in (("", "is empty"), ("vim x.c", '"vim" is not QEMU'), ("qemu-system-arm -m 5", "qemu-system-arm"),
                             ("qemu -m", "-m: needs an argument"), ("qemu -m lots", '-m: "lots"'), ("qemu -m 0", "-m: is 0 bytes"),
                             ("qemu -hda $HOME/x", "character 11", "after --"), ("qemu | tee", "character 6"), ("qemu 'x", "never closed"),
                             ("qemu -smp 400", "-smp", "1 to 8"), ("qemu -device ide-hd,drive=zz", '"zz"'),
                             ("qemu -device {", "-device: has JSON"), ("qemu " + "x" * 5000 + "=1 -m", "-m: needs")):
            with self.subTest(line[:40]):
                self.assert_import_refused("--qemu", *words, arguments=["-o", "m.json", "--qemu", line])

    def test_words_and_string_at_once(self):
        self.assert_import_refused("--qemu", "not both", arguments=["--qemu=qemu -m 5", "--", "qemu"])
        self.assert_import_refused("qemu", arguments=["--qemu", "qemu -m 5", "--", "qemu"])
        self.assert_import_refused("b.xml", "one domain", arguments=["a.xml", "b.xml"])
        self.assert_import_refused("domain.xml", "--help", arguments=[])


class Output(Importing):
    def setUp(self):
        super().setUp()
        self.source = self.domain("")

    def test_an_existing_file_stays(self):
        self.file("m.json", "mine")
        self.assert_import_refused("m.json: exists", "--force", arguments=[self.source, "-o", "m.json"])
        self.assertEqual(self.whistler("import", self.source, "-o", "m.json", "--force").returncode, 0)
        self.assertEqual(json.loads(self.path("m.json").read_text())["name"], "small")

    def test_an_existing_file_stays_where_the_source_is_wrong(self):
        self.file("m.json", "mine")
        bad = self.domain("<vcpu>99</vcpu>", "bad.xml")
        self.assert_import_refused("bad.xml", "vcpu", arguments=[bad, "-o", "m.json", "--force"])

    def test_nothing_else_is_overwritten(self):
        disk = self.raw_disk()
        with_disk = self.domain(f"<devices><disk type='file'><driver type='raw'/><source file='{disk}'/><target dev='hda'/></disk></devices>",
                                "disk.xml")
        self.assert_import_refused("is the domain itself", arguments=[self.source, "-o", self.source, "--force"])
        self.assert_import_refused("is the image of a drive", arguments=[with_disk, "-o", disk, "--force"])
        self.assert_import_refused(str(self.folder), "directory", arguments=[self.source, "-o", self.folder])
        os.symlink("nowhere", self.path("link.json"))
        self.assert_import_refused("link.json: exists", arguments=[self.source, "-o", "link.json"])

    def test_impossible_places(self):
        self.assert_import_refused("/nowhere/m.json", "cannot be created", arguments=[self.source, "-o", "/nowhere/m.json"])
        self.assert_import_refused("/dev/full", "No space", arguments=[self.source, "-o", "/dev/full"])
        self.assert_import_refused("nothing.xml", "No such file", arguments=["nothing.xml"])
        self.assert_import_refused("directory", arguments=[self.folder])
        with open("/dev/full", "wb") as full:
            done = subprocess.run([whistler(), "import", str(self.source)], stdout=full, stderr=subprocess.PIPE, timeout=QUICK, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"standard output", done.stderr)

    @needs("qemu-img")
    def test_an_open_image_is_not_overwritten(self):
        image = self.qcow2()
        machine = subprocess.Popen([whistler(), "io", str(image)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(machine.wait)
        self.addCleanup(machine.stdin.close)
        self.addCleanup(machine.stdout.close)
        machine.stdout.read(1)  # the prompt: it is open
        self.assert_import_refused("disk.qcow2", "in use", arguments=[self.source, "-o", image, "--force"])

    def test_help_teaches(self):
        result = self.whistler("import", "--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        for words in ("virsh dumpxml", "--qemu", "--force", "Examples:", "Exit status"):
            self.assertIn(words, result.stdout)


if __name__ == "__main__":
    unittest.main()

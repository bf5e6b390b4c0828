"""Whistler as a service: what the manager is told, levels for the journal, completion, the unit, man pages."""

import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import unittest

from cli_case import QUICK, ROOT, CliCase, needs, needs_kvm, tool, whistler

HANG = "hang: cli\n hlt\n jmp hang"


class Manager(CliCase):
    @needs_kvm
    def test_it_is_told_when_the_machine_runs_and_when_it_stops(self):
        path = self.path("notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(path))
            manager.settimeout(QUICK)
            self.rom(HANG)
            machine = self.start("run", self.machine(firmware={"bios": "rom.bin"}, vnc=None),
                                 env={**os.environ, "NOTIFY_SOCKET": str(path)})
            self.assertIn("READY=1\n", manager.recv(4096).decode())
            machine.send_signal(signal.SIGTERM)
            self.assertEqual(manager.recv(4096).decode(), "STOPPING=1\n")
            machine.wait(QUICK)


@needs_kvm
@needs("nasm", "qemu-img")
class Metrics(CliCase):
    def test_prometheus_reads_them_over_http(self):
        self.rom(HANG)
        disk = {"id": "hda", "file": "disk.qcow2", "format": "qcow2"}
        self.qcow2()
        self.start("run", self.machine(firmware={"bios": "rom.bin"}, name="m1", drives=[disk], metrics={"socket": "prom"}))
        self.until("the socket", lambda: self.path("prom").exists())
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(QUICK)
            client.connect(str(self.path("prom")))
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: m1\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(65536), b"")).decode()
        head, _, body = answer.partition("\r\n\r\n")
        self.assertTrue(head.startswith("HTTP/1.0 200 OK"), head)
        self.assertIn(f"Content-Length: {len(body)}", head)
        for line in ('whistler_machine{name="m1"} 1', "whistler_running 1", "whistler_vcpus 1",
                     'whistler_drive_requests_total{drive="hda",kind="write"} 0'):
            self.assertIn(line + "\n", body)

    def test_clients_that_dawdle_or_never_read_are_in_nobodys_way(self):
        self.rom(HANG)
        process = self.start("run", self.machine(firmware={"bios": "rom.bin"}, name="m1", metrics={"socket": "prom"}))
        self.until("the socket", lambda: self.path("prom").exists())

        def connect(text=b""):
            client = socket.socket(socket.AF_UNIX)
            self.addCleanup(client.close)
            client.settimeout(QUICK)
            while client.connect_ex(str(self.path("prom"))) == errno.EAGAIN:
                time.sleep(0.01)  # more wait already than it lets wait
            try:
                client.sendall(text)
            except (BrokenPipeError, ConnectionResetError):
                pass  # dropped already
            return client

        def scrape():
            client = connect(b"GET /metrics HTTP/1.1\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(65536), b""))
            client.close()
            self.assertIn(b"\nwhistler_running 1\n", answer)

        for text in (b"", b"G", b"GET /metrics HTTP/1.1\r\n", b"GET /metrics HTTP/1.1\r\n\r\n", b"\0" * 100_000, b"POST / HTTP/1.0\n\n"):
            for _ in range(100):
                connect(text)
            scrape()
        slow = connect()
        for byte in b"GET / HTTP/1.0\r\n\r\n":
            slow.sendall(bytes([byte]))
            scrape()
        self.assertIn(b"200 OK", slow.recv(100))
        self.assertLess(len(os.listdir(f"/proc/{process.pid}/fd")), 80)
        self.assertIsNone(process.poll())


class Completion(CliCase):
    """Each shell, asked as a person asks it: by Tab, or by what it has for tests of completions."""

    def setUp(self):
        super().setUp()
        os.symlink(whistler(), self.path("whistler"))
        self.file("winxp.json", "{}")
        self.environment = {**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}", "HOME": str(self.folder),
                            "XDG_RUNTIME_DIR": str(self.folder), "TERM": "dumb"}

    def shell(self, *command):
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, env=self.environment, timeout=QUICK)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def assert_completes(self, complete):
        for line, wanted in (("ru", "run"), ("run --time", "--timeout"), ("img conv", "convert"), ("ctl winxp screen", "screenshot"),
                             ("ctl li", "list"), ("check winx", "winxp.json"), ("run -- winx", "winxp.json")):
            self.assertEqual(complete(f"whistler {line}"), [wanted], line)

    def test_the_program_itself(self):
        self.assertEqual(self.shell("whistler", "complete", "img", "re").split(), ["rebase", "resize"])
        self.assertIn("test", self.shell("whistler", "complete", "").split())
        self.assertEqual(self.shell("whistler", "complete", "check", "-").split(), ["--help", "--set", "-h"])
        self.assertNotIn("-img", self.shell("whistler", "complete", "img", "-").split())  # of qemu-img
        self.assertEqual(self.shell("whistler", "complete", "nosuch", "-"), "")
        self.assertEqual(self.shell("whistler", "complete", "run", "winx"), "")
        self.assertNotIn("complete", self.shell("whistler", "--help"))

    @needs("bash")
    def test_bash(self):
        def complete(line):
            words = line.split()
            script = (f"source {ROOT}/packaging/whistler.bash; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _whistler; "
                      f"[[ ${{#COMPREPLY[@]}} -gt 0 ]] || COMPREPLY=($(compgen -f -- {words[-1]})); printf '%s\\n' \"${{COMPREPLY[@]}}\"")
            return self.shell("bash", "-c", script).split()
        self.assert_completes(complete)
        registered = self.shell("bash", "-c", f"source {ROOT}/packaging/whistler.bash; complete -p whistler")
        self.assertEqual(registered, "complete -o default -F _whistler whistler\n")

    @needs("zsh")
    def test_zsh(self):
        functions = self.path("functions")
        functions.mkdir()
        os.symlink(ROOT / "packaging" / "whistler.zsh", functions / "_whistler")
        # An interactive zsh on a terminal of its own, in which Tab is pressed; the line it makes is then printed.
        self.file("init", "PS1=; fpath=($PWD/functions $fpath); autoload -U compinit; compinit -u -D; unsetopt beep\n"
                          "show() { print -r -- '<<'$BUFFER'>>'; BUFFER=; }; zle -N show; bindkey '^X' show; print re''ady\n")
        script = """
            zmodload zsh/zpty
            zpty -b shell zsh -f -i
            zpty -w shell ". ./init"
            zpty -r shell text '*ready*'
            zpty -w -n shell "$1"$'\\t\\x18'
            zpty -r shell text '*>>*'
            print -r -- "$text"
        """

        def complete(line):
            found = re.findall("<<(.*?)>>", self.shell("zsh", "-f", "-c", script, "test", line))
            return [found[-1].strip().rpartition(" ")[2]]
        self.assert_completes(complete)

    @needs("fish")
    def test_fish(self):
        def complete(line):
            script = f"source {ROOT}/packaging/whistler.fish; complete --do-complete='{line}'"
            return [found.partition("\t")[0] for found in self.shell("fish", "--no-config", "-c", script).splitlines()]
        self.assert_completes(complete)


class Pages(CliCase):
    @needs("help2man", "man")
    def test_every_command_has_a_man_page_of_its_help(self):
        for command, word in (("run", "--timeout"), ("check", "--set"), ("ctl", "screenshot"), ("import", "--qemu"),
                              ("test", "--junit"), ("img", "convert"), ("io", "--image-opts"), ("nbd", "--socket")):
            page = self.file(f"{command}.1", tool(ROOT / "packaging" / "make_man", whistler(), command, "what it is",
                                                  "1.0").stdout)
            shown = tool("man", "--warnings", "-l", page, env={**os.environ, "MANWIDTH": "100", "LC_ALL": "C.UTF-8"})
            self.assertEqual(shown.stderr, b"", command)
            text = shown.stdout.decode()
            self.assertIn(f"whistler-{command} - what it is", text)
            self.assertIn(word, text.replace("\u2010", "-"), command)


class Unit(CliCase):
    @unittest.skipUnless(shutil.which("systemd-analyze"), "needs systemd-analyze")
    def test_unit_is_one_that_systemd_understands(self):
        text = (ROOT / "packaging" / "whistler@.service.in").read_text()
        unit = self.file("whistler@.service", text.replace("@bindir@/whistler", "/bin/true"))
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False,
                              timeout=QUICK)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

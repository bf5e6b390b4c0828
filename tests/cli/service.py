"""Whistler as a service: what the manager is told, levels for the journal, completion, the unit, man pages."""

import errno
import os
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


@needs("bash")
class Completion(CliCase):
    def complete(self, *words):
        script = (f"source {ROOT}/packaging/whistler.bash; compopt() {{ :; }}; COMP_WORDS=({' '.join(words)}); "
                  f"COMP_CWORD={len(words) - 1}; _whistler; printf '%s\\n' \"${{COMPREPLY[@]}}\"")
        done = subprocess.run(["bash", "-c", script], cwd=self.folder, capture_output=True, text=True, check=True,
                              env={**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}"}, timeout=QUICK)
        self.assertEqual(done.stderr, "")
        return done.stdout.split()

    def test_commands_options_and_files(self):
        os.symlink(whistler(), self.path("whistler"))
        self.assertEqual(self.complete("whistler", "ru"), ["run"])
        self.assertEqual(self.complete("whistler", "run", "--time"), ["--timeout"])
        self.assertEqual(self.complete("whistler", "img", "conv"), ["convert"])
        self.assertEqual(self.complete("whistler", "ctl", "winxp", "screen"), ["screenshot"])
        self.file("winxp.json", "{}")
        self.assertEqual(self.complete("whistler", "check", "winx"), ["winxp.json"])


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

"""Snapshots and jobs on the disks of a machine whose guest writes all the time."""

import json
import os
import signal
import socket
import time

import monitor
from cli_case import needs, needs_kvm
from running import HANG, RomCase

SECTORS = 16384  # 8 MiB
# Writes sector (n * 37) % SECTORS full of the number n, flushes, and tells n on the debug port: n = 1, 2, 3...
WRITER = """
    xor bx, bx
  next:
    inc bx
    mov dx, 0x1f6
    mov al, 0xe0
    out dx, al
    mov dx, 0x1f2
    mov al, 1
    out dx, al
    imul ax, bx, 37
    and ax, 0x3fff
    inc dx
    out dx, al
    inc dx
    mov al, ah
    out dx, al
    inc dx
    xor al, al
    out dx, al
    mov dx, 0x1f7
    mov al, 0x30
    out dx, al
  ask: in al, dx
    test al, 0x80
    jnz ask
    test al, 8
    jz ask
    mov dx, 0x1f0
    mov cx, 256
    mov ax, bx
  word_of_it: out dx, ax
    loop word_of_it
    mov dx, 0x1f7
  written: in al, dx
    test al, 0x80
    jnz written
    mov al, 0xe7
    out dx, al
  flushed: in al, dx
    test al, 0x80
    jnz flushed
    mov dx, 0x402
    mov ax, bx
    out dx, al
    mov al, ah
    out dx, al
    cmp bx, 0xffff
    jne next
  done: hlt
    jmp done
"""


class Disk(RomCase):
    """A machine with one qcow2 disk and a monitor."""

    def image(self, name, *options, size="8M"):
        result = self.whistler("img", "create", "-q", "-f", "qcow2", *options, self.path(name), size)
        self.assertEqual(result.returncode, 0, result.stderr)
        return str(self.path(name))

    def run_disk(self, code=WRITER, disk="disk", others=(), image=None, **changes):
        drive = {"id": "hda", "interface": "ide", "bus": 0, "unit": 0, "media": "disk", "file": str(self.path(disk)),
                 "format": "qcow2", **(image or {})}
        machine = self.machine_of(code, drives=[drive, *others], name="little",
                                  debug={"exit_port": "0xf4", "console": "file:numbers"}, **changes)
        process = self.start("run", machine, "--qmp", f"unix:{self.path('qmp')},server")
        self.until("the monitor", lambda: self.path("qmp").exists() or process.poll() is not None)
        return process

    def client(self):
        client = monitor.Qmp(self.path("qmp"))
        self.addCleanup(client.close)
        self.assertEqual(client.ask("qmp_capabilities"), {"return": {}})
        return client

    def ok(self, client, command, **arguments):
        self.assertEqual(client.ask(command, **arguments), {"return": {}})

    def numbers(self):
        """How many numbers the guest has told: those sectors are flushed."""
        return self.path("numbers").stat().st_size // 2 if self.path("numbers").exists() else 0

    def wait_for_numbers(self, more=20):
        goal = self.numbers() + more
        self.until("the guest's writes", lambda: self.numbers() >= goal)

    def content(self, name):
        """What the chain that begins with this image shows."""
        result = self.whistler("img", "convert", "-U", "-f", "qcow2", "-O", "raw", self.path(name), self.path("content"))
        self.assertEqual(result.returncode, 0, result.stderr)
        return self.path("content").read_bytes()

    def assert_sound(self, name, told):
        """No damage, and every sector is as it was flushed, or newer."""
        check = self.whistler("img", "check", "-f", "qcow2", self.path(name))
        self.assertIn(check.returncode, (0, 3), check.stdout + check.stderr)  # 3: leaks, at the worst
        content = self.content(name)
        newest = {n * 37 % SECTORS: n for n in range(1, told + 1)}
        for sector, n in newest.items():
            words = content[sector * 512:sector * 512 + 512]
            found = int.from_bytes(words[:2], "little")
            self.assertGreaterEqual(found, n, f"sector {sector}")
            self.assertEqual(found * 37 % SECTORS, sector)
            self.assertEqual(words, words[:2] * 256, f"sector {sector} is torn")


@needs_kvm
@needs("nasm")
class Jobs(Disk):
    def test_backup_is_of_its_moment_while_the_guest_writes(self):
        self.image("disk")
        self.run_disk()
        client = self.client()
        self.wait_for_numbers()
        self.ok(client, "stop")
        # What the guest has written and not flushed is part of the moment, but need not show in the host's file yet.
        self.ok(client, "drive-backup", device="hda", target=str(self.path("still")), format="qcow2", sync="full")
        self.assertNotIn("error", client.event("BLOCK_JOB_COMPLETED")["data"])
        self.until("the end of the job", lambda: not client.ask("query-jobs")["return"])
        client.events.clear()
        before = self.content("still")
        self.ok(client, "drive-backup", device="hda", target=str(self.path("copy")), format="qcow2", sync="full", speed=8 << 20)
        self.ok(client, "cont")
        completed = client.event("BLOCK_JOB_COMPLETED")["data"]
        self.assertNotIn("error", completed)
        self.assertEqual(completed["offset"], 8 << 20)
        self.wait_for_numbers()
        self.assertEqual(self.content("copy"), before)
        self.assertNotEqual(self.content("disk"), before)

    def test_chain_of_snapshots_is_committed_and_streamed_under_the_guest(self):
        self.image("disk")
        process = self.run_disk()
        client = self.client()
        for name in ("one", "two", "three"):
            self.wait_for_numbers()
            self.ok(client, "blockdev-snapshot-sync", device="hda", **{"snapshot-file": str(self.path(name))})
        self.ok(client, "block-commit", device="hda", top=str(self.path("two")), base=str(self.path("one")))
        client.event("BLOCK_JOB_COMPLETED")
        client.events.clear()
        self.until("the end of the job", lambda: not client.ask("query-jobs")["return"])
        self.ok(client, "block-stream", device="hda", base=str(self.path("disk")))
        self.assertNotIn("error", client.event("BLOCK_JOB_COMPLETED")["data"])
        client.events.clear()
        self.until("the end of the job", lambda: not client.ask("query-jobs")["return"])
        self.ok(client, "block-commit", device="hda")
        client.event("BLOCK_JOB_READY")
        self.wait_for_numbers()
        self.ok(client, "block-job-complete", device="hda")
        self.assertNotIn("error", client.event("BLOCK_JOB_COMPLETED")["data"])
        self.wait_for_numbers()
        block = client.ask("query-block")["return"][0]["inserted"]
        self.assertEqual((block["file"], block["backing_file_depth"]), (str(self.path("disk")), 0))
        stats = client.ask("query-blockstats")["return"][0]["stats"]
        told = self.numbers()
        self.assertGreaterEqual(stats["flush_operations"] + 1, told - 5)
        client.ask("quit")
        self.assertEqual(process.wait(30), 0)
        self.assert_sound("disk", told)
        self.assert_sound("three", told)  # empty, and stands on the other

    def test_monitor_and_guest_go_on_beside_a_job(self):
        self.image("disk")
        self.run_disk()
        client = self.client()
        self.ok(client, "drive-backup", device="hda", target=str(self.path("copy")), format="raw", sync="full", speed=65536)
        self.wait_for_numbers()
        begin = time.monotonic()
        for _ in range(20):
            self.assertEqual(client.ask("query-status")["return"]["status"], "running")
        self.assertLess(time.monotonic() - begin, 5)
        self.assertEqual(client.ask("query-block-jobs")["return"][0]["status"], "running")

    def test_medium_that_never_comes_holds_up_nobody_else(self):
        self.image("disk")
        cdrom = {"id": "cd0", "interface": "ide", "bus": 1, "unit": 0, "media": "cdrom", "format": "raw"}
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(self.path("silent")))
            silent.listen()
            process = self.run_disk(others=[cdrom])
            waiting, other = self.client(), self.client()
            disc = f"nbd+unix:///?socket={self.path('silent')}"
            waiting.send(json.dumps({"execute": "blockdev-change-medium", "arguments": {"device": "cd0", "filename": disc}}))
            self.wait_for_numbers()
            for _ in range(20):
                self.assertEqual(other.ask("query-status")["return"]["status"], "running")
            self.ok(other, "blockdev-snapshot-sync", device="hda", **{"snapshot-file": str(self.path("over"))})
            self.wait_for_numbers()
            begin = time.monotonic()
            self.ok(other, "quit")
            self.assertEqual(waiting.answer()["error"]["desc"], f"Could not open '{disc}': the machine ends")
            self.assertEqual(process.wait(30), 0)
            self.assertLess(time.monotonic() - begin, 10)

    def test_quit_while_the_server_of_a_disk_is_silent(self):
        self.raw_disk("far.raw", 8 << 20)
        server = self.start("nbd", "-f", "raw", "-t", "-k", self.path("far"), self.path("far.raw"))
        self.until("the server", self.path("far").exists)
        process = self.run_disk(image={"file": f"nbd+unix:///?socket={self.path('far')}", "format": "raw"})
        client = self.client()
        self.wait_for_numbers(5)
        server.send_signal(signal.SIGSTOP)
        time.sleep(0.5)  # a write of the guest is on its way now, and stays there
        self.assertEqual(client.ask("query-status")["return"]["status"], "running")
        self.ok(client, "quit")
        self.assertEqual(process.wait(40), 0)
        self.assertIn("given up", process.stderr.read())

    def test_quit_in_the_middle_of_a_job(self):
        self.image("disk")
        process = self.run_disk()
        client = self.client()
        self.wait_for_numbers()
        self.ok(client, "blockdev-snapshot-sync", device="hda", **{"snapshot-file": str(self.path("over"))})
        self.ok(client, "block-stream", device="hda", speed=65536)
        self.wait_for_numbers()
        told = self.numbers()
        client.ask("quit")
        self.assertEqual(process.wait(30), 0)
        self.assertEqual(process.stderr.read(), "")
        self.assertEqual(self.whistler("img", "check", "-f", "qcow2", self.path("over")).returncode, 0)
        self.assert_sound("over", told)

    def killed_in(self, begin, entrances):
        """kill -9 at moments all over a job's life; `begin` starts it and gives the image to look into."""
        for delay in (0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5):
            for name in ("disk", "over", "numbers", "copy", "qmp"):
                self.path(name).unlink(missing_ok=True)
            self.image("disk")
            process = self.run_disk()
            client = self.client()
            self.wait_for_numbers()
            self.ok(client, "blockdev-snapshot-sync", device="hda", **{"snapshot-file": str(self.path("over"))})
            self.wait_for_numbers()
            begin(client)
            time.sleep(delay)
            told = self.numbers()
            process.send_signal(signal.SIGKILL)
            process.wait(30)
            with self.subTest(delay=delay):
                for name in entrances:
                    self.assert_sound(name, told)
            client.close()

    def test_started_again_the_moment_it_was_killed(self):
        self.image("disk")
        for _ in range(8):
            process = self.run_disk()
            self.wait_for_numbers(5)
            process.send_signal(signal.SIGKILL)
            process.wait(30)
            self.path("qmp").unlink()
            self.path("numbers").unlink()
        self.assertIsNone(self.run_disk().poll())
        self.client()

    def test_killed_in_stream(self):
        self.killed_in(lambda client: self.ok(client, "block-stream", device="hda", speed=8 << 20), ["over"])

    def test_killed_in_commit(self):
        def begin(client):
            self.ok(client, "block-commit", device="hda", speed=32 << 20)
            if not hasattr(self, "slow"):
                self.slow = True  # the first time nothing is waited for
                return
            client.event("BLOCK_JOB_READY")
            self.ok(client, "block-job-complete", device="hda")
        self.killed_in(begin, ["over"])

    def test_killed_in_backup(self):
        self.killed_in(lambda client: self.ok(client, "drive-backup", device="hda", target=str(self.path("copy")),
                                              format="qcow2", sync="full", speed=8 << 20), ["over"])

    def test_killed_beside_a_snapshot(self):
        def begin(client):
            client.send(json.dumps({"execute": "blockdev-snapshot-sync",
                                    "arguments": {"device": "hda", "snapshot-file": str(self.path("copy"))}}))
        for delay in (0, 0.001, 0.003, 0.01, 0.1):
            for name in ("disk", "numbers", "copy", "qmp"):
                self.path(name).unlink(missing_ok=True)
            self.image("disk")
            process = self.run_disk()
            client = self.client()
            self.wait_for_numbers()
            begin(client)
            time.sleep(delay)
            told = self.numbers()
            process.send_signal(signal.SIGKILL)
            process.wait(30)
            with self.subTest(delay=delay):
                # Before the answer either is the machine's disk; the new one shows everything as soon as it is whole.
                made = self.path("copy").exists() and self.whistler("img", "info", "-U", "-f", "qcow2", self.path("copy")).returncode == 0
                self.assert_sound("copy" if made else "disk", told)
            client.close()


@needs_kvm
@needs("nasm")
class JobsByCtl(Disk):
    ctl = monitor.Monitor.ctl

    def test_snapshot_backup_and_jobs(self):
        self.image("disk")
        os.environ["XDG_RUNTIME_DIR"] = str(self.folder)
        self.addCleanup(os.environ.pop, "XDG_RUNTIME_DIR")
        self.run_disk(HANG)
        self.until("the entry", lambda: "little" in self.ctl("list"))
        self.assertIn("from now on", self.ctl("little", "snapshot-disk", "over.qcow2"))
        self.ctl("little", "backup", "--device", "hda", "copy.qcow2")
        self.assertEqual(self.content("copy.qcow2"), bytes(8 << 20))
        self.assertRegex(self.ctl("little", "jobs"), r"\AJOB +KIND +STATUS")
        self.assertEqual(json.loads(self.ctl("little", "jobs", "--json")), [])
        self.ctl("little", "backup", "--device", "nodisk", "x", status=1)
        self.ctl("little", "cancel", "nojob", status=1)
        self.assertEqual(json.loads(self.ctl("little", "snapshot-disk", "--json", "third.qcow2")), {})

"""The monitor over QMP, as scripts use it."""

import json
import os
import socket
import struct
from pathlib import Path

from cli_case import CliCase, needs, needs_kvm
from running import EXIT, HANG, RomCase

# Text mode as the VGA comes up is blank; the ROM of these tests only waits, or answers keys. The controller
# passes on the keyboard's own set 2 until somebody, otherwise the BIOS, switches its translation to set 1 on.
KEYBOARD = """
    mov al, 0x60
    out 0x64, al
    mov al, 0x40
    out 0x60, al
  next:
    in al, 0x64
    test al, 1
    jz next
    in al, 0x60
    mov dx, 0x402
    out dx, al
    jmp next
"""

TRIPLE_FAULT = """
    lidt [cs:nothing]
    int 3
  nothing: dw 0
    dd 0
"""
# 02:00 becomes 03:00, with the clock held meanwhile.
SET_HOUR = """
    mov al, 0x0b
    out 0x70, al
    mov al, 0x82
    out 0x71, al
    mov al, 4
    out 0x70, al
    mov al, 3
    out 0x71, al
    mov al, 0x0b
    out 0x70, al
    mov al, 2
    out 0x71, al
  done: hlt
    jmp done
"""


class Qmp:
    """A client that knows the protocol and nothing else."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rw", encoding="utf-8")
        self.greeting = self.receive()
        self.events = []

    def receive(self):
        line = self.file.readline()
        if not line:
            raise EOFError
        return json.loads(line)

    def send(self, text):
        self.file.write(text)
        self.file.flush()

    def answer(self):
        while "event" in (message := self.receive()):
            self.events.append(message)
        return message

    def ask(self, command, **arguments):
        self.send(json.dumps({"execute": command, "arguments": arguments}))
        return self.answer()

    def event(self, name):
        while not any(event["event"] == name for event in self.events):
            self.events.append(self.receive())
        return next(event for event in self.events if event["event"] == name)

    def close(self):
        self.file.close()
        self.socket.close()


@needs_kvm
@needs("nasm")
class Monitor(RomCase):
    def run_with(self, code=HANG, *arguments, **changes):
        changes.setdefault("display", {"vga": "std"})
        process = self.start("run", self.machine_of(code, **changes), "--qmp", f"unix:{self.path('qmp')},server", *arguments)
        self.until("the monitor", lambda: self.path("qmp").exists() or process.poll() is not None)
        return process

    def client(self, ready=True, path="qmp"):
        client = Qmp(self.path(path))
        self.addCleanup(client.close)
        if ready:
            self.assertEqual(client.ask("qmp_capabilities"), {"return": {}})
        return client

    def test_greeting_and_negotiation(self):
        self.run_with()
        client = self.client(ready=False)
        self.assertEqual(set(client.greeting["QMP"]), {"version", "capabilities"})
        self.assertEqual(client.ask("query-status")["error"]["class"], "CommandNotFound")
        self.assertEqual(client.ask("qmp_capabilities"), {"return": {}})
        self.assertEqual(client.ask("query-status"),
                         {"return": {"running": True, "singlestep": False, "status": "running"}})

    def test_stop_and_cont_are_told_to_every_client(self):
        self.run_with()
        one, other = self.client(), self.client()
        self.assertEqual(one.ask("stop"), {"return": {}})
        self.assertIn("seconds", other.event("STOP")["timestamp"])
        self.assertEqual(other.ask("query-status")["return"]["status"], "paused")
        self.assertEqual(other.ask("cont"), {"return": {}})
        one.event("RESUME")

    def test_quit_ends_with_status_0_and_removes_the_socket(self):
        process = self.run_with()
        client = self.client()
        self.assertEqual(client.ask("quit"), {"return": {}})
        self.assertEqual(client.event("SHUTDOWN")["data"], {"guest": False, "reason": "host-qmp-quit"})
        self.assertEqual(process.wait(30), 0)
        self.assertFalse(self.path("qmp").exists())

    def test_reset_is_told(self):
        self.run_with()
        client = self.client()
        self.assertEqual(client.ask("system_reset"), {"return": {}})
        client.event("RESET")

    def test_powerdown_is_told(self):
        self.run_with()
        client = self.client()
        self.assertEqual(client.ask("system_powerdown"), {"return": {}})
        client.event("POWERDOWN")

    def test_exit_port_is_the_guests_own_shutdown(self):
        for value in (1, 62, 70):  # statuses 3, 125 and 141, which could be the host's too
            process = self.run_with(EXIT.format(value), "--paused")
            client = self.client()
            self.assertEqual(client.ask("cont"), {"return": {}})
            self.assertEqual(client.event("SHUTDOWN")["data"], {"guest": True, "reason": "guest-shutdown"})
            self.assertEqual(process.wait(30), 2 * value + 1)

    def test_socket_of_the_description(self):
        process = self.start("run", self.machine_of(HANG, monitor={"socket": "described"}))
        self.until("the monitor", lambda: self.path("described").exists() or process.poll() is not None)
        client = self.client(path="described")
        self.assertEqual(client.ask("query-name")["return"], {"name": "machine"})

    def test_screendump_ppm_and_png(self):
        self.run_with()
        client = self.client()
        self.assertEqual(client.ask("screendump", filename=str(self.path("a.ppm"))), {"return": {}})
        self.assertRegex(self.path("a.ppm").read_bytes(), rb"\AP6\n\d+ \d+\n255\n")
        self.assertEqual(client.ask("screendump", filename=str(self.path("a.png")), format="png"), {"return": {}})
        png = self.path("a.png").read_bytes()
        self.assertEqual(png[:8], b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", png[16:24])
        self.assertGreater(width * height, 0)
        error = client.ask("screendump", filename="/nowhere/at/all.ppm")["error"]
        self.assertIn("/nowhere/at/all.ppm", error["desc"])

    def test_keys_reach_the_guest_in_order(self):
        self.run_with(KEYBOARD, debug={"exit_port": "0xf4", "console": "file:keys"})
        client = self.client()
        keys = [{"type": "qcode", "data": "shift"}, {"type": "qcode", "data": "a"}]
        self.assertEqual(client.ask("send-key", keys=keys), {"return": {}})
        wanted = bytes([0x2a, 0x1e, 0x9e, 0xaa])
        self.until("the keys", lambda: wanted in self.path("keys").read_bytes())
        event = {"type": "key", "data": {"down": True, "key": {"type": "qcode", "data": "b"}}}
        self.assertEqual(client.ask("input-send-event", events=[event]), {"return": {}})
        self.until("the key", lambda: bytes([0x30]) in self.path("keys").read_bytes())

    def test_input_events_are_taken_or_refused_whole(self):
        self.run_with(KEYBOARD, debug={"exit_port": "0xf4", "console": "file:keys"})
        client = self.client()
        good = {"type": "key", "data": {"down": True, "key": {"type": "qcode", "data": "c"}}}
        self.assertIn("error", client.ask("input-send-event", events=[good, {"type": "jump", "data": {}}]))
        for bad in ({}, {"type": "key"}, {"type": 5, "data": 6}, {"type": "rel", "data": {"axis": "x", "value": "far"}},
                    {"type": "btn", "data": {"button": 1, "down": 1}}, 7, None):
            self.assertIn("error", client.ask("input-send-event", events=[bad]), bad)
        self.assertNotIn(bytes([0x2e]), self.path("keys").read_bytes())

    def test_bad_messages_are_answered_and_nothing_else_suffers(self):
        self.run_with()
        client = self.client()
        for bad in ("{]\n", "[1,2]", '{"execute": 5}', '{"execute": "no-such-command"}', '{"arguments": {}}', "word\n",
                    '{"execute": "stop", "arguments": []}', '{"execute": "stop", "arguments": {"x": 1}}',
                    '{"execute": "screendump"}', '{"execute": "send-key", "arguments": {"keys": [1]}}',
                    '{"execute": "send-key", "arguments": {"keys": [{"type": "qcode", "data": "nokey"}]}}'):
            client.send(bad)
            self.assertIn("error", client.answer(), bad)
        self.assertEqual(client.ask("query-status")["return"]["status"], "running")

    def test_media_change_is_told_and_shown(self):
        for name in ("one.iso", "two.iso"):
            self.raw_disk(name)
        drive = {"id": "cd0", "interface": "ide", "bus": 1, "unit": 0, "media": "cdrom", "file": "one.iso", "format": "raw"}
        self.run_with(drives=[drive])
        client = self.client()
        self.assertEqual(client.ask("eject", device="cd0"), {"return": {}})
        self.assertEqual(client.event("DEVICE_TRAY_MOVED")["data"], {"device": "cd0", "id": "cd0", "tray-open": True})
        self.assertNotIn("inserted", client.ask("query-block")["return"][0])
        two = str(self.path("two.iso"))
        self.assertEqual(client.ask("blockdev-change-medium", device="cd0", filename=two), {"return": {}})
        self.assertEqual(client.ask("query-block")["return"][0]["inserted"]["file"], two)

    def test_processors_are_named_and_take_nmis(self):
        process = self.run_with(cpu={"cores": 2})
        client = self.client()
        threads = [cpu["thread-id"] for cpu in client.ask("query-cpus-fast")["return"]]
        self.assertEqual(len(set(threads)), 2)
        for thread in threads:
            self.assertTrue(Path(f"/proc/{process.pid}/task/{thread}").exists())
        self.assertEqual(client.ask("inject-nmi"), {"return": {}})
        self.assertEqual(client.ask("memsave", val=0xf0000, size=16, filename=str(self.path("rom"))), {"return": {}})
        self.assertEqual(len(self.path("rom").read_bytes()), 16)
        self.assertIn("RIP", client.ask("human-monitor-command", **{"command-line": "info registers"})["return"].upper())

    def ctl(self, *arguments, status=0):
        result = self.whistler("ctl", *arguments, env={**os.environ, "XDG_RUNTIME_DIR": str(self.folder)})
        self.assertEqual(result.returncode, status, result.stderr)
        return result.stdout

    def test_ctl_finds_a_machine_by_name_and_drives_it(self):
        self.raw_disk("one.iso")
        drive = {"id": "cd0", "interface": "ide", "bus": 1, "unit": 0, "media": "cdrom", "format": "raw"}
        os.environ["XDG_RUNTIME_DIR"] = str(self.folder)
        self.addCleanup(os.environ.pop, "XDG_RUNTIME_DIR")
        process = self.run_with(name="little", drives=[drive])
        self.until("the entry", lambda: "little" in self.ctl("list"))
        self.assertEqual(self.ctl("little", "status"), "running\n")
        self.assertEqual(json.loads(self.ctl("list", "--json"))[0]["process"], process.pid)
        self.ctl("little", "stop")
        self.assertEqual(json.loads(self.ctl(self.path("qmp"), "status", "--json"))["status"], "paused")
        self.ctl(self.path("machine.json"), "cont")
        self.ctl("little", "insert", "cd0", self.path("one.iso"))
        self.assertIn("cd0", self.ctl("little", "stats"))
        self.ctl("little", "eject", "cd0")
        self.ctl("little", "eject", "nodrive", status=1)
        self.ctl("little", "type", "a<enter>")
        self.ctl("little", "key", "ctrl-alt-delete")
        self.ctl("little", "text")
        self.ctl("little", "screenshot", "now.png")
        self.assertEqual(self.path("now.png").read_bytes()[1:4], b"PNG")
        self.ctl("little", "quit")
        self.assertEqual(process.wait(30), 0)
        self.assertNotIn("little", self.ctl("list"))

    def test_clients_that_vanish_harm_nobody(self):
        self.run_with()
        other = self.client()
        for text in ("", '{"execute": "qmp_capabilities"}', '{"execute": "query-', '{"execute": "qmp_capabilities"}{"execute": "stop"}'):
            client = self.client(ready=False)
            client.send(text)
            client.close()
        self.until("the stop", lambda: other.ask("query-status")["return"]["status"] == "paused")
        self.assertEqual(other.ask("cont"), {"return": {}})

    def test_processors_are_held_again_the_moment_they_are_let_go(self):
        self.run_with()
        client = self.client()
        for _ in range(500):
            client.send('{"execute": "x-query-halted"}' * 50)
            self.assertEqual([client.answer() for _ in range(50)], [{"return": {"for-good": True}}] * 50)

    def test_id_comes_back(self):
        self.run_with()
        client = self.client()
        client.send('{"execute": "query-kvm", "id": {"a": [1]}}')
        self.assertEqual(client.answer(), {"return": {"enabled": True, "present": True}, "id": {"a": [1]}})

    def test_floods_cost_the_client_its_connection_and_nobody_else(self):
        self.run_with()
        other = self.client()
        for flood in ("[" * 4096, '{"execute": "' + "x" * (2 << 20)):
            client = self.client()
            with self.assertRaises((EOFError, OSError)):
                client.send(flood)
                while True:
                    client.answer()
        self.assertEqual(other.ask("query-status")["return"]["status"], "running")

    def test_client_that_never_reads_is_dropped_before_it_costs_much(self):
        process = self.run_with()
        other = self.client()

        def resident():
            return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        before = resident()
        client = self.client()
        client.socket.settimeout(10)
        with self.assertRaises((BrokenPipeError, ConnectionResetError)):
            for _ in range(200):
                client.socket.sendall(b'{"execute": "query-commands"}' * 1000)
        self.assertEqual(other.ask("query-status")["return"]["status"], "running")
        # All answers together are twice this; a sanitizer keeps 256 MiB of what was freed.
        self.assertLess(resident() - before, 400 << 20)

    def test_events_of_a_client_that_never_reads_are_bounded(self):
        process = self.run_with()
        deaf, other = self.client(), self.client()
        for _ in range(400):  # 6 MB of events
            other.send('{"execute": "system_powerdown"}' * 200)
            for _ in range(200):
                self.assertEqual(other.answer(), {"return": {}})
            other.events.clear()
        self.assertIsNone(process.poll())
        with self.assertRaises((EOFError, ValueError)):  # its last line is cut
            while True:
                deaf.receive()

    def test_every_listed_command_is_there(self):
        self.run_with()
        client = self.client()
        names = [entry["name"] for entry in client.ask("query-commands")["return"]]
        self.assertIn("query-commands", names)
        for name in names:
            if name.startswith("query-"):
                self.assertIn("return", client.ask(name), name)

    def test_crash_is_told(self):
        process = self.run_with(TRIPLE_FAULT, "--paused")
        client = self.client()
        client.ask("cont")
        self.assertEqual(client.event("GUEST_PANICKED")["data"], {"action": "poweroff"})
        self.assertEqual(client.event("SHUTDOWN")["data"], {"guest": True, "reason": "guest-panic"})
        self.assertEqual(process.wait(30), 4)

    def test_clock_set_by_the_guest_is_told(self):
        self.run_with(SET_HOUR, "--paused", clock={"base": "utc", "start": 1296612000})
        client = self.client()
        client.ask("cont")
        self.assertAlmostEqual(client.event("RTC_CHANGE")["data"]["offset"], 3600, delta=2)

    def test_vnc_clients_are_told(self):
        self.run_with(vnc={"listen": "127.0.0.1", "port": -1})
        client = self.client()
        server = client.ask("query-vnc")["return"]
        self.assertEqual((server["enabled"], server["auth"], server["clients"]), (True, "none", []))
        with socket.create_connection(("127.0.0.1", int(server["service"]))) as viewer, viewer.makefile("rwb", 0) as rfb:
            rfb.write(rfb.read(12))
            rfb.read(rfb.read(1)[0])
            rfb.write(b"\x01")
            rfb.read(4)
            rfb.write(b"\x01")
            told = client.event("VNC_INITIALIZED")["data"]
            self.assertEqual(told["client"]["service"], str(viewer.getsockname()[1]))
            self.assertEqual(told["server"]["auth"], "none")
            self.assertEqual(len(client.ask("query-vnc")["return"]["clients"]), 1)
        client.event("VNC_CONNECTED")
        client.event("VNC_DISCONNECTED")

    def test_connects_to_a_listener(self):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.path("mine")))
            listener.listen()
            listener.settimeout(60)
            self.start("run", self.machine_of(HANG), "--qmp", f"unix:{self.path('mine')}")
            with listener.accept()[0] as connection, connection.makefile(encoding="utf-8") as lines:
                self.assertIn("QMP", json.loads(lines.readline()))

    def test_bad_addresses_are_refused(self):
        machine = self.machine_of(HANG)
        for address, words in (("tcp:1.2.3.4:5", "--qmp"), ("unix:", "--qmp"), ("unix:x,sarver", "'sarver'"),
                               ("unix:" + "x" * 200 + ",server", "monitor"), ("unix:/nowhere/at/all", "monitor")):
            self.assert_refused(self.whistler("run", machine, "--qmp", address), words)


class Ctl(CliCase):
    def test_mistakes_are_named_in_one_line(self):
        self.assert_refused(self.whistler("ctl", "nowhere", "status"), "nowhere", "ctl list")
        self.assert_refused(self.whistler("ctl", "nowhere", "dance"), "dance")
        self.assert_refused(self.whistler("ctl", "nowhere", "eject"), "DRIVE")
        self.assert_refused(self.whistler("ctl", "nowhere"), "--help")
        self.assert_refused(self.whistler("ctl", self.machine(), "status"), "monitor")

    def test_help_teaches(self):
        text = self.whistler("ctl", "--help").stdout
        for word in ("screenshot", "insert", "Example", "--qmp"):
            self.assertIn(word, text)

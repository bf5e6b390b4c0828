"""whistler test: plans that pass, fail and are stopped; and what is left then, which is nothing."""

import json
import os
import signal
import struct
import time
import unittest
import xml.etree.ElementTree as ElementTree
import zlib

from cli_case import CliCase, needs, needs_kvm
from running import ECHO, EXIT, HANG, PROTECTED_MODE, say

BUSY = "again: jmp again"
# Passes the make codes of keys on to the debug console, where a test can read them as text.
KEYBOARD = """
    mov al, 0x60
    out 0x64, al
    mov al, 0x41  ; as a BIOS does it: translation to set 1
    out 0x60, al
""" + say("ready") + """
  next:
    in al, 0x64
    test al, 1
    jz next
    in al, 0x60
    test al, 0x80
    jnz next
    mov dx, 0x402
    out dx, al
    cmp al, 1
    jne next
    mov al, 1
    out 0xf4, al
"""

# The same for the packets of the mouse.
MOUSE = """
    mov al, 0xa8  ; enable it
    out 0x64, al
    mov al, 0xd4
    out 0x64, al
    mov al, 0xf4  ; let it report
    out 0x60, al
  answer:
    in al, 0x64
    test al, 1
    jz answer
    in al, 0x60
""" + say("ready") + """
  next:
    in al, 0x64
    and al, 0x21
    cmp al, 0x21
    jne next
    in al, 0x60
    mov dx, 0x402
    out dx, al
    jmp next
"""


def read_line(label):
    return f"""
  {label}:
    mov dx, 0x3fd
    in al, dx
    test al, 1
    jz {label}
    mov dx, 0x3f8
    in al, dx
    cmp al, 10
    jne {label}
"""


RESET_ONCE = """
    mov al, 0x40
    out 0x70, al
    in al, 0x71
    cmp al, 7
    je second
    mov al, 0x40
    out 0x70, al
    mov al, 7
    out 0x71, al
    mov dx, 0xcf9
    mov al, 2
    out dx, al
    mov al, 6
    out dx, al
  second:
""" + say("second") + BUSY


# Asks the first disk by the command in bp for sector ebx, whose words then go through port dx; cx says how many.
SELECT = """
  select:
    mov dx, 0x1f6
    mov al, 0xe0
    out dx, al
    mov dx, 0x1f2
    mov al, 1
    out dx, al
    inc dx
    mov al, bl
    out dx, al
    inc dx
    mov al, bh
    out dx, al
    inc dx
    mov eax, ebx
    shr eax, 16
    out dx, al
    mov dx, 0x1f7
    mov ax, bp
    out dx, al
  not_yet:
    in al, dx
    test al, 8
    jz not_yet
    mov dx, 0x1f0
    mov cx, 256
    ret
  finish:
    mov dx, 0x1f7
  still_busy:
    in al, dx
    test al, 0x88
    jnz still_busy
    ret
"""
# Says whether the first sector of the disk has something in it, and else writes it.
WRITE_ONCE = """
    xor ebx, ebx
    mov bp, 0x20  ; read
    call select
    xor si, si
  word_in:
    in ax, dx
    or si, ax
    loop word_in
    or si, si
    jnz found
    mov bp, 0x30  ; write
    call select
    mov ax, 0x4141
  word_out:
    out dx, ax
    loop word_out
    call finish
""" + say("written") + """
    jmp again
  found:
""" + say("found") + BUSY + SELECT


def png(width, height, colour):
    """A picture of one colour."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = (b"\0" + bytes(colour) * width) * height
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


class PlanCase(CliCase):
    def plan(self, code, *steps, called="plan.json", machine=None, **more):
        rom = called.replace(".json", ".bin")
        self.rom(code, rom)
        description = {"memory": "16M", "firmware": {"bios": rom}, "debug": {"exit_port": "0xf4"}, "display": {"vga": "none"},
                       **(machine or {})}
        return self.file(called, json.dumps({"machine": description, "steps": steps, **more}))

    def environment(self):
        return {**os.environ, "TMPDIR": str(self.folder)}

    def run_plans(self, *arguments, **options):
        return self.whistler("test", *arguments, env=self.environment(), **options)

    def assert_outcome(self, result, status, *words):
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        for word in words:
            self.assertIn(word, result.stdout)
        self.assert_nothing_left()

    def runs(self):
        return list(self.folder.glob("whistler-test-*/run-*"))

    def assert_nothing_left(self):
        self.assertEqual(self.runs(), [])

    def children(self, process):
        """Machines that a runner has started: not the guard of its folder."""
        found = []
        for name in os.listdir("/proc"):
            try:
                with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
            except (OSError, ValueError):
                continue
            if parent == process.pid and b"run" in words:
                found.append(int(name))
        return found

    def processes(self):
        """All that runs in this test's environment: runners, guards and machines."""
        found = []
        for name in os.listdir("/proc"):
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if f"TMPDIR={self.folder}".encode() in file.read().split(b"\0"):
                        found.append(int(name))
            except OSError:
                continue
        return found

    def start_test(self, *arguments):
        process = self.start("test", *arguments, env=self.environment())
        self.until("the machine", lambda: self.children(process) or process.poll() is not None)
        return process


@needs_kvm
@needs("nasm")
class Passing(PlanCase):
    def test_text_and_exit_value(self):
        plan = self.plan(say("hello, all") + EXIT.format(3), {"wait_serial": "hello, (all|some)"}, {"wait_exit_value": 3})
        self.assert_outcome(self.run_plans(plan), 0, "1 passed, 0 failed", "passed after")

    def test_a_machine_that_still_runs_is_stopped(self):
        self.assert_outcome(self.run_plans(self.plan(say("up") + BUSY, {"wait_serial": "up"})), 0, "1 passed")

    def test_serial_line_both_ways(self):
        plan = self.plan(ECHO, {"send_serial": "abc"}, {"wait_serial": "abc"}, {"send_serial": "dq"}, {"wait_serial": "^d$|d"},
                         {"wait_exit_value": 3})
        self.assert_outcome(self.run_plans(plan), 0)

    def test_login_by_name_and_password(self):
        guest = say("box login: ") + read_line("first") + say("Password: ") + read_line("second")
        login = {"login": {"user": "me", "password": "secret"}}
        plan = self.plan(guest + say("\r\nhello\r\nme@box:~$ ") + BUSY, login, {"sleep": 1})
        self.assert_outcome(self.run_plans(plan), 0)
        plan = self.plan(guest + say("\r\nLogin incorrect\r\nbox login: ") + BUSY, login)
        self.assert_outcome(self.run_plans(plan), 1, "the guest refuses the login")

    @needs("qemu-img")
    def test_media_are_changed(self):
        cd = {"id": "cd0", "interface": "ide", "bus": 1, "unit": 0, "media": "cdrom", "file": str(self.raw_disk("one.iso")), "format": "raw"}
        self.raw_disk("two.iso")
        machine = {"drives": [cd, {"id": "hd0", "file": str(self.qcow2()), "format": "qcow2"}]}
        up = {"wait_serial": "up"}
        plan = self.plan(say("up") + BUSY, up, {"eject": "cd0"}, {"insert": {"drive": "cd0", "file": "${where}/two.iso"}},
                         {"eject": {"drive": "cd0", "force": True}}, machine=machine)
        self.assert_outcome(self.run_plans(plan, "--var", f"where={self.folder}"), 0)
        for step, words in (({"eject": "cd1"}, "Device 'cd1' not found"), ({"eject": "hd0"}, "is not removable"),
                            ({"insert": {"drive": "cd0", "file": "three.iso"}}, "three.iso")):
            self.assert_outcome(self.run_plans(self.plan(say("up") + BUSY, up, step, machine=machine)), 1, words)

    def test_keys_arrive_whole_and_in_order(self):
        wanted = "\x2a\x1e\x02\x2a\x03\x1c\x1d\x2e"  # A 1 @ Enter Ctrl-C
        plan = self.plan(KEYBOARD, {"wait_serial": "ready"}, {"type": "A1@<wait100ms><enter><leftCtrlOn>c<leftCtrlOff>"},
                         {"wait_debug": "".join(f"\\x{ord(c):02x}" for c in wanted)}, {"keys": "esc"}, {"wait_exit_value": 1})
        self.assert_outcome(self.run_plans(plan), 0)

    def test_many_keys_and_none_lost(self):
        plan = self.plan(KEYBOARD, {"wait_serial": "ready"}, {"type": "ab" * 1000 + "<esc>"}, {"wait_debug": r"\A(\x1e\x30){1000}\x01\z"},
                         {"wait_exit_value": 1}, type_interval=0)
        self.assert_outcome(self.run_plans(plan, timeout=200), 0)

    def test_pointer_moves_and_clicks(self):
        def packets(*all_of_them):
            return {"wait_debug": "".join(f"\\x{byte:02x}" for packet in all_of_them for byte in packet) + r"\z"}
        still, moved = (8, 0, 0), (8, 10, 5)  # upwards is positive for a mouse
        left, right, middle = (9, 0, 0), (10, 0, 0), (12, 0, 0)
        steps = [{"wait_serial": "ready"}]
        for step, sent in (({"move": [10, -5]}, [moved]), ({"click": "left", "clicks": 2}, [left, still, left, still]),
                           ({"click": "right"}, [right, still]), ({"move": [10, -5], "click": "middle"}, [moved, middle, still])):
            steps += [{"pointer": step}, packets(*sent)]
        self.assert_outcome(self.run_plans(self.plan(MOUSE, *steps, step_timeout=5)), 0)

    def test_reset_that_is_waited_for(self):
        plan = self.plan(RESET_ONCE, {"wait_event": "RESET"}, {"wait_serial": "second"}, fail_on={"reset": True})
        self.assert_outcome(self.run_plans(plan), 0)

    def test_power_button_and_reset_button(self):
        plan = self.plan(say("up") + BUSY, {"wait_serial": "up"}, {"power_button": True}, {"wait_event": "POWERDOWN"},
                         {"reset_button": True}, {"wait_serial": "up"})
        self.assert_outcome(self.run_plans(plan), 0)

    def test_still_screen_and_picture(self):
        self.file("black.png", png(8, 8, (0, 0, 0)))
        plan = self.plan(BUSY, {"wait_still": 1}, {"wait_image": {"file": "black.png", "x": 3, "y": 5}},
                         machine={"display": {"vga": "std"}})
        self.assert_outcome(self.run_plans(plan), 0)

    def test_matrix_in_parallel(self):
        plan = self.plan(say("up") + EXIT.format(1), {"wait_serial": "up"}, {"wait_exit_value": 1},
                         matrix={"memory": ["2M", "16M", "64M"], "cpu.features.pae": [True, False]})
        self.assert_outcome(self.run_plans(plan, "--jobs", "3", timeout=120), 0, "6 passed, 0 failed",
                            "plan [cpu.features.pae=true, memory=64M]")

    @needs("qemu-img")
    def test_disks_are_whole_and_stay_as_they_were(self):
        disks = [self.raw_disk(), self.qcow2()]
        before = [disk.read_bytes() for disk in disks]
        drives = [{"file": str(disk), "format": disk.suffix[1:], "unit": unit} for unit, disk in enumerate(disks)]
        plan = self.plan(say("up") + BUSY, {"wait_serial": "up"}, machine={"drives": drives})
        self.assert_outcome(self.run_plans(plan), 0, "the machine ends with its disks whole: passed")
        self.assertEqual([disk.read_bytes() for disk in disks], before)

    @needs("qemu-img")
    def test_disks_of_many_machines_that_start_at_once(self):
        disk = {"file": str(self.qcow2()), "format": "qcow2"}
        plan = self.plan(say("up") + BUSY, {"wait_serial": "up"}, machine={"drives": [disk]},
                         matrix={"memory": [f"{size}M" for size in range(16, 40)]})
        self.assert_outcome(self.run_plans(plan, "--jobs", "6", timeout=120), 0, "24 passed, 0 failed")

    def test_plans_that_go_on_from_a_state(self):
        self.path("zero.raw").write_bytes(bytes(1 << 20))
        drives = [{"file": "zero.raw", "format": "raw"}]
        code = "xor ax, ax\n mov ss, ax\n mov sp, 0x7000\n" + WRITE_ONCE
        found = {"wait_serial": "found"}
        then = [{"name": name, "steps": [found]} for name in "abcd"]
        plan = self.plan(code, {"wait_serial": "written"}, machine={"drives": drives}, then=then)
        self.assert_outcome(self.run_plans(plan, "--jobs", "3", "--junit", "j.xml"), 0, "5 passed, 0 failed", "plan > d: PASSED")
        self.assertEqual(self.path("zero.raw").read_bytes(), bytes(1 << 20))
        self.assertEqual(len(ElementTree.parse(self.path("j.xml")).getroot().findall("testsuite")), 5)
        plan = self.plan(code, {"wait_serial": "never", "timeout": 1}, machine={"drives": drives}, then=then)
        self.assert_outcome(self.run_plans(plan, "--jobs", "3"), 124, "0 passed, 5 failed", "plan > a: not run: plan did not pass")

    def test_variables(self):
        plan = self.plan(say("up") + BUSY, {"wait_serial": "up"}, set={"memory": "${size}"})
        self.assert_outcome(self.run_plans(plan, "--var", "size=2M"), 0)

    def test_reports_and_no_artifacts(self):
        plan = self.plan(say("up") + BUSY, {"wait_serial": "up"})
        self.assert_outcome(self.run_plans(plan, "--junit", "j.xml", "--tap", "t.tap", "--artifacts", "out"), 0)
        suites = ElementTree.parse(self.path("j.xml")).getroot()
        self.assertEqual((suites.get("tests"), suites.get("failures"), suites.get("errors")), ("3", "0", "0"))
        self.assertEqual(self.path("t.tap").read_text(), "TAP version 13\n1..1\nok 1 - plan\n")
        self.assertEqual(list(self.path("out").iterdir()), [])


@needs_kvm
@needs("nasm")
class Failing(PlanCase):
    def assert_fails(self, plan, *words, status=1, within=30):
        start = time.monotonic()
        self.assert_outcome(self.run_plans(plan), status, *words)
        self.assertLess(time.monotonic() - start, within)

    def test_time_limit_of_a_step(self):
        plan = self.plan(say("just this") + BUSY, {"wait_serial": "other", "timeout": 2}, step_timeout=100)
        self.assert_fails(plan, "did not come within 2 s", 'ends with "just this"', status=124)

    def test_time_limit_of_the_plan(self):
        plan = self.plan(BUSY, {"sleep": 100}, {"wait_serial": "x"}, timeout=3)
        self.assert_fails(plan, "the plan's time limit of 3 s", status=124)

    def test_keys_that_nobody_reads(self):
        plan = self.plan(BUSY, {"type": "abc", "timeout": 2}, {"wait_serial": "x"})
        self.assert_fails(plan, "the guest has not read 6 of 6 presses and releases", status=124)

    def test_halt_for_good(self):
        self.assert_fails(self.plan(HANG, {"wait_serial": "x"}), "every processor halts with interrupts off")

    def test_halt_can_be_let_pass(self):
        plan = self.plan(say("done") + HANG, {"sleep": 5}, {"wait_serial": "done"}, fail_on={"halt": False})
        self.assert_fails(plan, status=0)

    def test_hang(self):
        plan = self.plan(BUSY, {"wait_serial": "x"}, fail_on={"hang": 4})
        self.assert_fails(plan, "the guest hangs: no exit, no output")

    def test_triple_fault(self):
        plan = self.plan(PROTECTED_MODE.format("lidt [0xf0000 + no_idt]\n ud2"), {"wait_serial": "x"})
        start = self.run_plans(plan, "--artifacts", "out")
        self.assert_outcome(start, 1, "the guest crashed: triple fault")
        self.assertIn("rax", self.path("out/plan/reason.txt").read_text())

    def test_panic_and_other_texts(self):
        for text, words in (("[1.0] Kernel panic - not syncing: no root", "Linux has panicked: [1.0] Kernel panic - not syncing: no root"),
                            ("*** STOP: 0x0000007B", "blue screen: *** STOP: 0x0000007B"), ("No bootable device.", "nothing to boot"),
                            ("Oops: 5", "fail_on.text names")):
            with self.subTest(text):
                plan = self.plan(say(text + "\r\n") + BUSY, {"wait_serial": "login:"}, fail_on={"text": ["Oops: [0-9]"]})
                self.assert_fails(plan, words)

    def test_panic_whose_line_comes_slowly_is_told_whole(self):
        slowly = "mov cx, 0xffff\n loop $\n" * 4
        code = say("Kernel panic - not syncing: ") + slowly + say("no root") + slowly + say(" at all\r\n") + BUSY
        self.assert_fails(self.plan(code, {"wait_serial": "login:"}), "not syncing: no root at all (serial line)")

    def test_end_too_soon(self):
        self.assert_fails(self.plan(EXIT.format(5), {"wait_serial": "x"}), "ended too soon, with status 11 (exit port: 5)")

    def test_other_end_than_the_one_waited_for(self):
        self.assert_fails(self.plan(EXIT.format(5), {"wait_exit_value": 6}), "ended with status 11, not 13")
        self.assert_fails(self.plan(EXIT.format(5), {"wait_power_off": True}), "ended too soon")

    def test_reset_is_no_power_off(self):
        code = "in al, 0x92\n or al, 1\n out 0x92, al\n" + BUSY
        plan = self.plan(code, {"wait_power_off": True}, machine={"on": {"reboot": "exit"}})
        self.assert_fails(plan, "the guest has reset")

    def test_reset_that_nothing_waits_for(self):
        plan = self.plan(RESET_ONCE, {"wait_serial": "second"}, {"sleep": 1}, {"wait_serial": "third"}, fail_on={"reset": True})
        self.assert_fails(plan, "the guest has reset, and no step waits for that")

    def test_picture_that_is_another(self):
        self.file("white.png", png(8, 8, (255, 255, 255)))
        plan = self.plan(BUSY, {"wait_image": {"file": "white.png"}, "timeout": 3}, machine={"display": {"vga": "std"}})
        self.assert_fails(plan, "100.00 % of its pixels were different", status=124)

    def test_screen_that_is_not_there(self):
        self.assert_fails(self.plan(BUSY, {"wait_screen": "x"}), "has no screen")

    def test_machine_that_is_killed(self):
        process = self.start_test(self.plan(BUSY, {"wait_serial": "x"}))
        os.kill(self.children(process)[0], signal.SIGKILL)
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1, output)
        self.assertIn("killed by signal 9", output)
        self.assert_nothing_left()

    def test_artifacts_and_reports(self):
        disk = self.qcow2()
        plan = self.plan(say("before <it>\x1b[1m") + BUSY, {"wait_serial": "before"}, {"wait_serial": "after", "timeout": 2},
                         {"sleep": 1}, name="some plan",
                         machine={"display": {"vga": "std"}, "drives": [{"file": str(disk), "format": "qcow2"}]})
        result = self.run_plans(plan, "--artifacts", "out", "--junit", "j.xml", "--tap", "t.tap")
        self.assert_outcome(result, 124, "artifacts are in")
        kept = self.path("out/some_plan")
        self.assertIn("before <it>", kept.joinpath("serial.txt").read_text())
        self.assertIn("rip", kept.joinpath("reason.txt").read_text())
        self.assertEqual(kept.joinpath("screen.png").read_bytes()[:4], b"\x89PNG")
        self.assertEqual(kept.joinpath("screen-animated.png").read_bytes()[:4], b"\x89PNG")
        marked = json.loads(kept.joinpath("plan.json").read_text())
        self.assertIn("did not come", marked["steps"][1]["<<< FAILED"])
        self.assertNotIn("<<< FAILED", marked["steps"][0])
        self.assertEqual(len(list(kept.glob("check-*.txt"))), 1)
        cases = ElementTree.parse(self.path("j.xml")).getroot().findall(".//testcase")
        self.assertEqual([len(case) for case in cases], [0, 0, 1, 1, 1])
        self.assertIn("did not come", cases[2].find("failure").get("message"))
        self.assertIsNotNone(cases[3].find("skipped"))
        self.assertIn("not ok 1 - some plan\n  ---\n  message: ", self.path("t.tap").read_text())

    def test_file_that_is_missing_is_a_wrong_plan(self):
        plan = self.plan(BUSY, {"wait_serial": "x"}, machine={"drives": [{"file": "none.raw", "format": "raw"}]})
        self.assert_fails(plan, "none.raw", status=2)

    def test_one_failing_plan_among_others(self):
        good = self.plan(say("up") + BUSY, {"wait_serial": "up"}, called="good.json")
        bad = self.plan(EXIT.format(1), {"wait_serial": "x"}, called="bad.json")
        self.assert_outcome(self.run_plans(good, bad), 1, "1 passed, 1 failed")


@needs_kvm
@needs("nasm")
class Stopping(PlanCase):
    def test_signals_kill_the_machines_and_write_reports(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.start_test(self.plan(BUSY, {"wait_serial": "x"}), "--junit", "j.xml")
            machines = self.children(process)
            process.send_signal(number)
            output, _ = process.communicate(timeout=30)
            self.assertEqual(process.returncode, 128 + number, output)
            self.assertIn("interrupted by signal", output)
            self.assertEqual([pid for pid in machines if os.path.exists(f"/proc/{pid}")], [])
            ElementTree.parse(self.path("j.xml"))
            self.assert_nothing_left()

    def test_killed_runner_leaves_nothing(self):
        process = self.start_test(self.plan(BUSY, {"wait_serial": "x"}, matrix={"memory": ["16M", "17M"]}), "--jobs", "2")
        machines = self.until("two machines", lambda: len(self.children(process)) == 2 and self.children(process))
        self.assertEqual(len(self.runs()), 1)
        process.kill()
        process.communicate()
        self.until("the machines' end", lambda: not any(os.path.exists(f"/proc/{pid}") for pid in machines))
        self.until("the folder's end", lambda: not self.runs())

    def four_with_disks(self):
        disk = {"file": str(self.qcow2()), "format": "qcow2"}
        return self.plan(BUSY, {"wait_serial": "x"}, matrix={"memory": ["16M", "17M", "18M", "19M"]}, machine={"drives": [disk]})

    @needs("qemu-img")
    def test_runner_of_four_leaves_nothing_whenever_it_is_killed(self):
        plan = self.four_with_disks()
        for delay in (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1):
            process = self.start("test", plan, "--jobs", "4", env=self.environment())
            time.sleep(delay)
            process.kill()
            process.communicate()
            self.until("the end of all its processes", lambda: not self.processes())
            self.assert_nothing_left()

    @needs("qemu-img")
    def test_runner_killed_with_its_guard_is_swept_by_the_next_run(self):
        process = self.start("test", self.four_with_disks(), "--jobs", "4", env=self.environment())
        self.until("four machines", lambda: len(self.children(process)) == 4)
        self.assertEqual(len(list(self.runs()[0].glob("*/disk1.qcow2"))), 4)
        process.send_signal(signal.SIGSTOP)  # so that it starts nothing more
        guards = [pid for pid in self.processes() if pid != process.pid and pid not in self.children(process)]
        self.assertEqual(len(guards), 1)
        os.kill(guards[0], signal.SIGKILL)
        process.kill()
        process.communicate()
        self.until("the end of all its processes", lambda: not self.processes())
        self.assertEqual(len(self.runs()), 1)
        self.assert_outcome(self.run_plans(self.plan(say("up") + BUSY, {"wait_serial": "up"}, called="next.json")), 0)

    def test_folder_is_private(self):
        self.start_test(self.plan(BUSY, {"wait_serial": "x"}))
        for folder in (*self.runs(), self.runs()[0].parent):
            self.assertEqual(folder.stat().st_mode & 0o777, 0o700)


if __name__ == "__main__":
    unittest.main()

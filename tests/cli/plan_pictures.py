"""Plans and graphics: text that tesseract reads off the screen, sizes, and the moving picture that a failure leaves."""

import unittest

from cli_case import needs, needs_kvm
from plans import BUSY, PlanCase
from running import say

try:
    from PIL import Image, ImageDraw, ImageFont
except ImportError:
    Image = None

WIDTH, ROWS = 320, 60


def vbe(width, height, bits):
    """A mode of so many pixels, by the registers of Bochs' adapter, and the picture on."""
    lit = "mov dx, 0x3ba\n in al, dx\n mov dx, 0x3da\n in al, dx\n mov dx, 0x3c0\n mov al, 0x20\n out dx, al\n"
    return lit + "".join(f"mov dx, 0x1ce\n mov ax, {index}\n out dx, ax\n inc dx\n mov ax, {value}\n out dx, ax\n"
                   for index, value in ((4, 0), (1, width), (2, height), (3, bits), (4, 1)))


def seconds_pass(count, label):
    """Waits until the clock's seconds have changed so often."""
    return f"""
    mov cx, {count}
  {label}:
    xor al, al
    out 0x70, al
    in al, 0x71
    mov bl, al
  {label}_same:
    xor al, al
    out 0x70, al
    in al, 0x71
    cmp al, bl
    je {label}_same
    loop {label}
"""


def showing(text):
    """A guest that shows the text in a graphics mode, in the small letters of an old screen."""
    picture = Image.new("1", (WIDTH, ROWS), 1)
    ImageDraw.Draw(picture).multiline_text((10, 5), text, font=ImageFont.load_default(), fill=0, spacing=6)
    data = ",".join(map(str, picture.tobytes()))
    return vbe(WIDTH, 200, 8) + f"""
    mov dx, 0x3c8
    xor al, al
    out dx, al
    inc dx
    times 3 out dx, al  ; colour 0 is black
    mov al, 63
    times 3 out dx, al  ; colour 1 is white
    mov ax, 0xa000
    mov es, ax
    xor di, di
    mov si, picture
    cld
  next_byte:
    cs lodsb
    mov ah, al
    mov cx, 8
  next_bit:
    xor al, al
    shl ah, 1
    rcl al, 1
    stosb
    loop next_bit
    cmp si, picture_end
    jb next_byte
""" + say("shown") + BUSY + f"""
  picture: db {data}
  picture_end:
"""


STD = {"display": {"vga": "std"}}


@needs_kvm
@needs("nasm")
class Graphics(PlanCase):
    def test_size_of_the_screen(self):
        plan = self.plan(vbe(640, 480, 32) + say("set") + BUSY, {"wait_serial": "set"}, {"wait_size": [640, 480]}, machine=STD)
        self.assert_outcome(self.run_plans(plan), 0)
        plan = self.plan(vbe(640, 480, 32) + BUSY, {"wait_size": [640, 400], "timeout": 2}, machine=STD)
        self.assert_outcome(self.run_plans(plan), 124, "the screen shows graphics of 640x480")

    @unittest.skipIf(Image is None, "needs python3-pil")
    def test_a_failure_leaves_a_moving_picture_that_others_can_read(self):
        code = vbe(320, 200, 32) + seconds_pass(4, "first") + vbe(400, 300, 32) + seconds_pass(4, "second") + vbe(320, 240, 32)
        plan = self.plan(code + say("done") + BUSY, {"wait_serial": "done"}, {"wait_size": [320, 240]},
                         {"wait_serial": "more", "timeout": 1}, machine=STD)
        self.assert_outcome(self.run_plans(plan, "--artifacts", "out"), 124)
        kept = self.path("out/plan")
        single = [*sorted(kept.glob("screen-before-*.png")), kept / "screen.png"]
        self.assertGreaterEqual(len(single), 3)
        sizes = []
        for path in single:
            with Image.open(path) as one:
                sizes.append(one.size)
        self.assertIn((400, 300), sizes)
        with Image.open(kept / "screen-animated.png") as moving:
            self.assertEqual((moving.n_frames, moving.size), (len(single), tuple(map(max, zip(*sizes)))))
            for number, path in enumerate(single):
                moving.seek(number)
                with Image.open(path) as one:
                    part = moving.convert("RGB").crop((0, 0, *one.size))
                    self.assertEqual(part.tobytes(), one.convert("RGB").tobytes(), path.name)
            self.assertEqual(moving.info["duration"], 2000)


@needs_kvm
@needs("nasm", "tesseract")
@unittest.skipIf(Image is None, "needs python3-pil")
class Reading(PlanCase):
    TEXT = "Welcome to the Setup Program\nPlease wait while Windows restarts"

    def test_text_is_read_off_a_graphics_screen(self):
        plan = self.plan(showing(self.TEXT), {"wait_serial": "shown"}, {"wait_ocr": "Welcome to the Setup"},
                         {"wait_ocr": {"text": "(?i)windows restarts", "language": "eng"}}, machine=STD)
        self.assert_outcome(self.run_plans(plan), 0)

    def test_other_text_than_the_one_waited_for(self):
        plan = self.plan(showing(self.TEXT), {"wait_serial": "shown"}, {"wait_ocr": "Goodbye", "timeout": 5}, machine=STD)
        self.assert_outcome(self.run_plans(plan, "--artifacts", "out"), 124, "what was read off the screen ends with", "restarts")
        self.assertIn("Setup", self.path("out/plan/ocr.txt").read_text())

    def test_language_that_is_not_installed(self):
        plan = self.plan(showing("x"), {"wait_ocr": {"text": "x", "language": "xyz"}}, machine=STD)
        self.assert_outcome(self.run_plans(plan), 3, "tesseract: ", "xyz")


@needs_kvm
@needs("nasm")
class Without(PlanCase):
    def test_tesseract_that_is_missing_is_named_before_anything_starts(self):
        plan = self.plan(BUSY, {"wait_ocr": "x"}, machine=STD)
        result = self.whistler("test", plan, env={**self.environment(), "PATH": "/nowhere"})
        self.assert_refused(result, "wait_ocr", "tesseract is not installed; it is in the Debian package tesseract-ocr", status=3)


if __name__ == "__main__":
    unittest.main()

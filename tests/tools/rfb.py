#!/usr/bin/env python3
"""A small VNC client for tests: looks at a guest's screen and types to it.

As a program:   rfb.py HOST:PORT|unix:PATH [--password P] COMMAND [ARGUMENT]... [COMMAND ...]
                screenshot FILE.png     type TEXT     key NAME...     click X Y [BUTTON]     move X Y
                wait-still [SECONDS]    wait SECONDS  size
                key NAME is a name of KEYS or a character, joined with "-": ctrl-alt-delete
As a module:    with Rfb("127.0.0.1:5900") as screen: screen.type("root\\n"); screen.save("a.png")

RFB 3.8 (RFC 6143), Raw and DesktopSize, security None and VncAuth. Python's standard library only.
"""

import argparse
import socket
import struct
import sys
import time
import zlib

KEYS = {
    "backspace": 0xFF08, "tab": 0xFF09, "enter": 0xFF0D, "return": 0xFF0D, "pause": 0xFF13, "scroll_lock": 0xFF14,
    "sysrq": 0xFF15, "esc": 0xFF1B, "escape": 0xFF1B, "home": 0xFF50, "left": 0xFF51, "up": 0xFF52, "right": 0xFF53,
    "down": 0xFF54, "page_up": 0xFF55, "page_down": 0xFF56, "end": 0xFF57, "print": 0xFF61, "insert": 0xFF63,
    "menu": 0xFF67, "num_lock": 0xFF7F, "kp_enter": 0xFF8D, "shift": 0xFFE1, "right_shift": 0xFFE2, "ctrl": 0xFFE3,
    "right_ctrl": 0xFFE4, "caps_lock": 0xFFE5, "alt": 0xFFE9, "right_alt": 0xFFEA, "windows": 0xFFEB,
    "delete": 0xFFFF, "space": 0x20, "minus": 0x2D,
    **{f"f{n}": 0xFFBD + n for n in range(1, 25)},
}

ENCODING_RAW = 0
ENCODING_DESKTOP_SIZE = -223


class RfbError(Exception):
    """The server hung up, refused or said something that is not RFB."""


class Rfb:
    """One connection. `pixels` is the screen as RGB bytes, `width` * `height` of them, as of the last update."""

    def __init__(self, address, password=None, timeout=30.0):
        self.width = self.height = 0
        self.pixels = bytearray()
        self.name = ""
        self._asked = False
        if address.startswith("unix:"):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(timeout)
            self._socket.connect(address[len("unix:"):])
        else:
            host, _, port = address.rpartition(":")
            self._socket = socket.create_connection((host.strip("[]") or "127.0.0.1", int(port)), timeout)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._timeout = timeout
        self._handshake(password)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._socket.close()

    # --- looking ---

    def refresh(self):
        """Fetches the whole screen as it is now."""
        self._request(incremental=False)
        self._receive_update()

    def wait_change(self, seconds):
        """Waits for a change of the screen; false if there was none in that time."""
        if not self._asked:
            self._request(incremental=True)
        self._socket.settimeout(seconds)
        try:
            first = self._socket.recv(1)
        except socket.timeout:
            return False
        finally:
            self._socket.settimeout(self._timeout)
        if not first:
            raise RfbError("the server hung up")
        return self._receive_update(first)

    def wait_still(self, seconds=2.0, timeout=120.0, tolerance=64):
        """Waits until the screen has stayed the same for `seconds`; changes of up to `tolerance` pixels, a blinking
        cursor, do not count. False if that did not happen within `timeout`."""
        self.refresh()
        still = bytes(self.pixels)
        since = time.monotonic()
        end = since + timeout
        while time.monotonic() < end:
            left = since + seconds - time.monotonic()
            if left <= 0:
                return True
            if self.wait_change(left) and _differing_pixels(still, self.pixels, tolerance) > tolerance:
                still = bytes(self.pixels)
                since = time.monotonic()
        return False

    def save(self, path):
        """Writes the screen of now as a PNG file."""
        self.refresh()
        write_png(path, self.width, self.height, self.pixels)

    # --- typing and pointing ---

    def key_event(self, keysym, down):
        self._socket.sendall(struct.pack(">BBxxI", 4, down, keysym))

    def key(self, *names):
        """Presses and releases keys or combinations: "enter", "ctrl-alt-delete", "a"."""
        for name in names:
            keysyms = [_keysym(part) for part in (name.split("-") if len(name) > 1 else [name])]
            for keysym in keysyms:
                self.key_event(keysym, True)
            for keysym in reversed(keysyms):
                self.key_event(keysym, False)

    def type(self, text, pause=0.0):
        """Types characters as themselves, without Shift: that is the server's work."""
        for character in text:
            keysym = {"\n": KEYS["enter"], "\t": KEYS["tab"], "\b": KEYS["backspace"]}.get(character)
            if keysym is None:
                keysym = ord(character) if ord(character) < 0x100 else 0x01000000 + ord(character)
            self.key_event(keysym, True)
            self.key_event(keysym, False)
            if pause:
                time.sleep(pause)

    def pointer(self, x, y, mask=0):
        self._socket.sendall(struct.pack(">BBHH", 5, mask, x, y))

    def click(self, x, y, button=1):
        self.pointer(x, y)
        self.pointer(x, y, 1 << (button - 1))
        self.pointer(x, y)

    # --- the protocol ---

    def _receive(self, size):
        data = bytearray()
        while len(data) < size:
            part = self._socket.recv(min(size - len(data), 1 << 20))
            if not part:
                raise RfbError("the server hung up")
            data += part
        return bytes(data)

    def _unpack(self, layout):
        return struct.unpack(layout, self._receive(struct.calcsize(layout)))

    def _text(self):
        return self._receive(self._unpack(">I")[0]).decode("latin-1")

    def _handshake(self, password):
        greeting = self._receive(12)
        if not greeting.startswith(b"RFB 003."):
            raise RfbError(f"not an RFB 3 server: {greeting!r}")
        self._socket.sendall(b"RFB 003.008\n")
        types = self._receive(self._unpack("B")[0])
        if not types:
            raise RfbError("refused: " + self._text())
        if password is None and 1 in types:
            self._socket.sendall(b"\x01")
        elif password is not None and 2 in types:
            self._socket.sendall(b"\x02")
            self._socket.sendall(vnc_answer(self._receive(16), password))
        else:
            raise RfbError(f"no security type in common: the server has {list(types)}, 2 needs a password")
        if self._unpack(">I")[0] != 0:
            raise RfbError("refused: " + self._text())
        self._socket.sendall(b"\x01")  # shared
        width, height = self._unpack(">HH16x")
        self.name = self._text()
        self._resize(width, height)
        # 32 bits a pixel, little-endian 0x00RRGGBB.
        self._socket.sendall(struct.pack(">BxxxBBBBHHHBBBxxx", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0))
        self._socket.sendall(struct.pack(">BxHii", 2, 2, ENCODING_RAW, ENCODING_DESKTOP_SIZE))

    def _resize(self, width, height):
        self.width, self.height = width, height
        self.pixels = bytearray(3 * width * height)

    def _request(self, incremental):
        self._socket.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, self.width, self.height))
        self._asked = True

    def _receive_update(self, first=b""):
        """Takes messages up to an update with pixels; asks again after a change of size. True if there were any."""
        while True:
            kind = (first or self._receive(1))[0]
            first = b""
            if kind == 0:
                self._asked = False
                (count,) = self._unpack(">xH")
                drawn = [self._receive_rectangle() for _ in range(count)]
                if any(drawn):
                    return True
                self._request(incremental=False)
            elif kind == 1:  # colour map
                self._receive(6 * self._unpack(">xHH")[1])
            elif kind == 3:  # cut text
                self._unpack("3x")
                self._text()
            elif kind != 2:  # bell
                raise RfbError(f"unknown message {kind}")

    def _receive_rectangle(self):
        x, y, width, height, encoding = self._unpack(">HHHHi")
        if encoding == ENCODING_DESKTOP_SIZE:
            self._resize(width, height)
            return False
        if encoding != ENCODING_RAW:
            raise RfbError(f"unknown encoding {encoding}")
        data = self._receive(4 * width * height)
        if x + width > self.width or y + height > self.height:
            raise RfbError("a rectangle outside the screen")
        rgb = bytearray(3 * width * height)
        rgb[0::3], rgb[1::3], rgb[2::3] = data[2::4], data[1::4], data[0::4]
        for row in range(height):
            at = 3 * ((y + row) * self.width + x)
            self.pixels[at:at + 3 * width] = rgb[3 * width * row:3 * width * (row + 1)]
        return True


def _keysym(name):
    if len(name) == 1:
        return ord(name)
    try:
        return KEYS[name.lower()]
    except KeyError:
        raise RfbError(f"unknown key {name!r}; known: {' '.join(sorted(KEYS))}") from None


def _differing_pixels(before, after, enough):
    """How many pixels differ, counted until there are more than `enough`."""
    if len(before) != len(after):
        return enough + 1
    count = 0
    step = 3 * 256
    for at in range(0, len(before), step):
        if before[at:at + step] != after[at:at + step]:
            end = min(at + step, len(before))
            count += sum(before[i:i + 3] != after[i:i + 3] for i in range(at, end, 3))
            if count > enough:
                break
    return count


def write_png(path, width, height, rgb):
    """An 8-bit RGB PNG file (PNG specification, sections 5 and 11)."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + rgb[3 * width * y:3 * width * (y + 1)] for y in range(height))
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.write(chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
        file.write(chunk(b"IDAT", zlib.compress(bytes(rows), 6)))
        file.write(chunk(b"IEND", b""))


# --- DES (FIPS 46-3), which VncAuth uses with the bits of each key byte reversed ---

_IP = [58 - 8 * (i % 8) + 2 * (i // 8) if i < 32 else 57 - 8 * (i % 8) + 2 * (i // 8 - 4) for i in range(64)]
_FP = [_IP.index(i + 1) + 1 for i in range(64)]
_E = [(4 * (i // 6) + i % 6 - 1) % 32 + 1 for i in range(48)]
_P = [16, 7, 20, 21, 29, 12, 28, 17, 1, 15, 23, 26, 5, 18, 31, 10, 2, 8, 24, 14, 32, 27, 3, 9, 19, 13, 30, 6, 22, 11, 4, 25]
_PC1 = [57, 49, 41, 33, 25, 17, 9, 1, 58, 50, 42, 34, 26, 18, 10, 2, 59, 51, 43, 35, 27, 19, 11, 3, 60, 52, 44, 36,
        63, 55, 47, 39, 31, 23, 15, 7, 62, 54, 46, 38, 30, 22, 14, 6, 61, 53, 45, 37, 29, 21, 13, 5, 28, 20, 12, 4]
_PC2 = [14, 17, 11, 24, 1, 5, 3, 28, 15, 6, 21, 10, 23, 19, 12, 4, 26, 8, 16, 7, 27, 20, 13, 2,
        41, 52, 31, 37, 47, 55, 30, 40, 51, 45, 33, 48, 44, 49, 39, 56, 34, 53, 46, 42, 50, 36, 29, 32]
_SHIFTS = [1, 1, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1]
# The eight S-boxes, four rows of 16 each, a hexadecimal digit an entry.
_S = [
    "e4d12fb83a6c5907 0f74e2d1a6cb9538 41e8d62bfc973a50 fc8249175b3ea06d",
    "f18e6b34972dc05a 3d47f28ec01a69b5 0e7ba4d158c6932f d8a13f42b67c05e9",
    "a09e63f51dc7b428 d709346a285ecbf1 d6498f30b12c5ae7 1ad069874fe3b52c",
    "7de3069a1285bc4f d8b56f03472c1ae9 a690cb7df13e5284 3f06a1d8945bc72e",
    "2c417ab6853fd0e9 eb2c47d150fa3986 421bad78f9c5630e b8c71e2d6f09a453",
    "c1af92680d34e75b af427c9561de0b38 9ef528c3704a1db6 432c95fabe17608d",
    "4b2ef08d3c975a61 d0b7491ae35c2f86 14bdc37eaf680592 6bd814a7950fe23c",
    "d2846fb1a93e50c7 1fd8a374c56b0e92 7b419ce206adf358 21e74a8dfc90356b",
]
_S = [[int(digit, 16) for digit in box.replace(" ", "")] for box in _S]


def _permute(value, bits, table):
    result = 0
    for position in table:
        result = result << 1 | (value >> (bits - position) & 1)
    return result


def _des(key, block):
    halves = _permute(int.from_bytes(key, "big"), 64, _PC1)
    c, d = halves >> 28, halves & 0xFFFFFFF
    value = _permute(int.from_bytes(block, "big"), 64, _IP)
    left, right = value >> 32, value & 0xFFFFFFFF
    for shift in _SHIFTS:
        c = (c << shift | c >> (28 - shift)) & 0xFFFFFFF
        d = (d << shift | d >> (28 - shift)) & 0xFFFFFFF
        mixed = _permute(right, 32, _E) ^ _permute(c << 28 | d, 56, _PC2)
        chosen = 0
        for i in range(8):
            six = mixed >> (42 - 6 * i) & 63
            chosen = chosen << 4 | _S[i][(six >> 4 & 2 | six & 1) * 16 + (six >> 1 & 15)]
        left, right = right, left ^ _permute(chosen, 32, _P)
    return _permute(right << 32 | left, 64, _FP).to_bytes(8, "big")


def vnc_answer(challenge, password):
    """VncAuth's answer to a 16-byte challenge (RFC 6143, section 7.2.2)."""
    key = password.encode("latin-1")[:8].ljust(8, b"\0")
    key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in key)
    return _des(key, challenge[:8]) + _des(key, challenge[8:])


def _run(screen, words):
    commands = {"screenshot", "type", "key", "click", "move", "wait-still", "wait", "size"}
    while words:
        command = words.pop(0)
        if command not in commands:
            raise RfbError(f"unknown command {command!r}; known: {' '.join(sorted(commands))}")
        arguments = [words.pop(0)] if command in ("screenshot", "type", "wait") and words else []
        while command not in ("screenshot", "type", "wait") and words and words[0] not in commands:
            arguments.append(words.pop(0))
        try:
            if command == "screenshot":
                screen.save(arguments[0])
            elif command == "type":
                screen.type(arguments[0].encode().decode("unicode_escape"))
            elif command == "key":
                screen.key(*arguments)
            elif command == "click":
                screen.click(*map(int, arguments))
            elif command == "move":
                screen.pointer(*map(int, arguments))
            elif command == "wait-still":
                if not screen.wait_still(*map(float, arguments)):
                    raise RfbError("the screen did not become still")
            elif command == "wait":
                time.sleep(float(arguments[0]))
            else:
                print(f"{screen.width}x{screen.height} {screen.name}")
        except (IndexError, TypeError, ValueError) as error:
            raise RfbError(f"{command}: bad or missing argument ({error})") from None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--password")
    parser.add_argument("--timeout", type=float, default=30.0)
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    try:
        with Rfb(arguments.address, arguments.password, arguments.timeout) as screen:
            _run(screen, arguments.command)
    except (RfbError, OSError) as error:
        print(f"rfb.py: {arguments.address}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

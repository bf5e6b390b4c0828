"""Reads the text of a VGA text screen from its picture.

The glyphs are those of the VGA BIOS that every guest starts with, so the letters are found by comparing bits, not by
guessing. A cell is 9 (or 8) pixels wide and 16 high; its two colours may be any.
"""
VGA_BIOS = "/usr/share/seabios/vgabios-stdvga.bin"
CELL_HEIGHT = 16
LETTER_A = bytes.fromhex("00001038 6cc6c6fe c6c6c6c6 00000000".replace(" ", ""))
UNKNOWN = "?"


def _load_font():
    """Glyph bits -> character (code page 437), from the 8x16 font in the VGA BIOS."""
    with open(VGA_BIOS, "rb") as file:
        rom = file.read()
    at = rom.find(LETTER_A)
    if at < ord("A") * CELL_HEIGHT:
        raise ValueError(f"{VGA_BIOS}: no 8x16 font found")
    start = at - ord("A") * CELL_HEIGHT
    font = {}
    for code in list(range(255, 31, -1)) + list(range(1, 32)):
        glyph = rom[start + code * CELL_HEIGHT:start + (code + 1) * CELL_HEIGHT]
        font[glyph] = bytes([code]).decode("cp437") if code >= 32 else UNKNOWN
    font[bytes(CELL_HEIGHT)] = " "
    font[b"\xff" * CELL_HEIGHT] = " "
    return font


_FONT = {}


def read_text(width, height, rgb):
    """The lines of the screen; none when the picture is not that of a text mode with 80 columns."""
    if not _FONT:
        _FONT.update(_load_font())
    if width not in (640, 720) or height % CELL_HEIGHT:
        return []
    cell_width = width // 80
    lines = []
    for top in range(0, height, CELL_HEIGHT):
        rows = [bytes(rgb[3 * width * y:3 * width * (y + 1)]) for y in range(top, top + CELL_HEIGHT)]
        lines.append("".join(_read_cell(rows, 3 * cell_width * column) for column in range(80)).rstrip())
    return lines


def _read_cell(rows, start):
    pixels = [[row[start + 3 * x:start + 3 * x + 3] for x in range(8)] for row in rows]
    background = pixels[0][7]
    bits = bytes(sum((pixel != background) << (7 - x) for x, pixel in enumerate(row)) for row in pixels)
    if bits in _FONT:
        return _FONT[bits]
    inverted = bytes(byte ^ 0xFF for byte in bits)
    if inverted in _FONT:
        return _FONT[inverted]
    # The cursor covers the lowest rows of its cell.
    for glyph, character in _FONT.items():
        if glyph[:13] == bits[:13]:
            return character
    return UNKNOWN

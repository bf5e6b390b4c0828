#!/usr/bin/env python3
"""Makes the inputs the NBD fuzzers begin with: honest conversations.

usage: nbd_seeds.py FOLDER; makes FOLDER/nbd_server/... and FOLDER/nbd_client/...
"""

import struct
import sys
from pathlib import Path

OPTION, REPLY = 0x49484156454F5054, 0x0003E889045565A9
REQUEST, SIMPLE, CHUNK = 0x25609513, 0x67446698, 0x668E33EF


def text(value):
    return struct.pack(">I", len(value)) + value


def option(number, payload=b""):
    return struct.pack(">QI", OPTION, number) + text(payload)


def request(command, offset, length, flags=0):
    return struct.pack(">IHHQQI", REQUEST, flags, command, 1, offset, length)


def answer(number, kind, payload=b""):
    return struct.pack(">QII", REPLY, number, kind) + text(payload)


def chunk(kind, cookie, payload, flags=1):
    return struct.pack(">IHHQ", CHUNK, flags, kind, cookie) + text(payload)


def client_says():
    """What clients send to a server."""
    hello = struct.pack(">I", 3)
    contexts = text(b"disk") + struct.pack(">I", 1) + text(b"base:allocation")
    go = text(b"disk") + struct.pack(">HHH", 2, 1, 3)
    requests = (request(1, 0, 16) + bytes(16) + request(0, 0, 64) + request(3, 0, 0) + request(4, 0, 4096)
                + request(6, 4096, 4096, 2) + request(7, 0, 65536, 8) + request(5, 0, 512) + request(2, 0, 0))
    yield hello + option(3) + option(2)
    yield hello + option(8) + option(9, contexts) + option(10, contexts) + option(6, go) + option(7, go) + requests
    yield hello + option(1, b"disk") + requests
    yield hello + option(5) + option(4711, b"x" * 20) + option(7, go) + requests


def server_says():
    """What servers send to a client; the cookies are those of its three requests."""
    greeting = b"NBDMAGIC" + struct.pack(">QH", OPTION, 3)
    size = struct.pack(">HQH", 0, 1 << 20, 0x5ED)
    blocks = struct.pack(">HIII", 3, 1, 4096, 1 << 25)
    agreed = (greeting + answer(8, 1) + answer(10, 4, struct.pack(">I", 1) + b"base:allocation") + answer(10, 1)
              + answer(7, 3, size) + answer(7, 3, blocks) + answer(7, 1))
    first, second, third = 1 << 32, 1 << 32 | 1, 1 << 32 | 2
    yield (agreed + chunk(1, first, struct.pack(">Q", 4096) + bytes(4096), 0)
           + chunk(2, first, struct.pack(">QI", 8192, 4096)) + chunk(5, second, struct.pack(">III", 1, 8192, 3))
           + struct.pack(">IIQ", SIMPLE, 0, third))
    yield agreed + chunk(0x8001, first, struct.pack(">IH", 5, 4) + b"oops") + chunk(0x8002, second, struct.pack(
        ">IH", 22, 0) + bytes(8))
    yield (greeting + answer(8, 0x80000001) + answer(7, 0x80000001) + struct.pack(">QH", 1 << 20, 1)
           + struct.pack(">IIQ", SIMPLE, 0, first) + bytes(8192))
    yield b"NBDMAGIC" + struct.pack(">QQI", 0x0000420281861253, 1 << 20, 1) + bytes(124)
    yield greeting + answer(8, 1) + answer(10, 0x80000003, b"no") + answer(7, 0x80000006, b"not here")


def main():
    for target, inputs in (("nbd_server", client_says()), ("nbd_client", server_says())):
        folder = Path(sys.argv[1]) / target
        folder.mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(inputs):
            (folder / f"seed{number}").write_bytes(content)


if __name__ == "__main__":
    main()

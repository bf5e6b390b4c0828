"""Where the test guests are kept, and when they are made again.

Every guest is a function that fills one file. It is called when the file is missing, or when anything it is made of has
changed: the builder's own source, the files it names, the versions of the Debian packages it takes parts from. Once
those packages are installed (and the Debian tree of debian.py has been fetched) everything works offline.

The files are in $XDG_CACHE_HOME/whistler-guests (~/.cache/whistler-guests). Tests never write to them: they take a
copy or a qcow2 overlay.
"""
import contextlib
import fcntl
import hashlib
import os
import shutil
import struct
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "whistler-guests")
SECTOR = 512
GUESTS = {}


class BuildError(Exception):
    """A guest could not be made; the text says what is missing and how to get it."""


class Guest:
    def __init__(self, name, function, sources, packages):
        self.name = name
        self.function = function
        self.summary = function.__doc__.strip().splitlines()[0]
        self.sources = [os.path.join(HERE, source) for source in sources]
        self.sources.append(function.__code__.co_filename)
        self.packages = packages

    def key(self):
        """What the guest is made of, as one word."""
        digest = hashlib.sha256()
        for source in self.sources:
            with open(source, "rb") as file:
                digest.update(file.read())
        for package in self.packages:
            digest.update(f"{package}={installed_version(package)}\n".encode())
        return digest.hexdigest()[:32]


def guest(name, sources=(), packages=()):
    """Registers a function(target) that fills the file `target`; `name` is the file's name in the cache."""
    def register(function):
        GUESTS[name] = Guest(name, function, list(sources), list(packages))
        return function
    return register


def installed_version(package):
    query = subprocess.run(["dpkg-query", "-W", "-f", "${Status}|${Version}", package], capture_output=True, text=True,
                           check=False)
    status, _, version = query.stdout.partition("|")
    if not status.endswith(" installed"):
        raise BuildError(f"package {package} is missing: apt-get install {package}")
    return version


@contextlib.contextmanager
def locked(name):
    """Only one process makes a given file at a time."""
    os.makedirs(CACHE, exist_ok=True)
    with open(os.path.join(CACHE, f".{name}.lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make(name):
    """Path of the guest, made first if need be."""
    one = GUESTS[name]
    path = os.path.join(CACHE, name)
    stamp = os.path.join(CACHE, f".{name}.key")
    with locked(name):
        key = one.key()
        if os.path.exists(path) and os.path.exists(stamp):
            with open(stamp, encoding="ascii") as file:
                if file.read() == key:
                    return path
        with scratch() as work:
            target = os.path.join(work, name)
            one.function(target)
            os.chmod(target, 0o444)
            os.rename(target, path)
        with open(stamp, "w", encoding="ascii") as file:
            file.write(key)
    return path


@contextlib.contextmanager
def scratch():
    """A directory in the cache that is gone afterwards; the cache, because /tmp may be too small for a disk."""
    path = tempfile.mkdtemp(prefix=".work-", dir=CACHE)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def run(*command, **options):
    """Runs a tool; its output matters only when it fails."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options)
    except FileNotFoundError as error:
        raise BuildError(f"{command[0]} is missing") from error
    if done.returncode != 0:
        text = done.stdout.decode("utf-8", "replace").strip()
        raise BuildError(f"{' '.join(command)} failed with status {done.returncode}:\n{text[-2000:]}")
    return done.stdout


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def to_qcow2(raw, target):
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, target)


def partition_table(start, sectors, kind=0x83):
    """Bytes 446 to 511 of a master boot record with one active partition (addresses as LBA; CHS says "look there")."""
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", start, sectors)
    return entry + bytes(48) + b"\x55\xaa"

"""Running one monitor once and taking its figures."""
import re
import subprocess
import tempfile
import time

TICK = 0.02


class Failed(Exception):
    """A run that did not end as it must: its figures mean nothing."""


class Figures:
    """Wall-clock and processor seconds, and the peak of resident memory in KiB, of one finished process."""

    def __init__(self, seconds, processor, peak_kib):
        self.seconds = seconds
        self.processor = processor
        self.peak_kib = peak_kib


def run_to_exit(launcher, command, expected, timeout=120):
    """Runs the command from exec to its end, which must have the status `expected`; `launcher` is launch.c, built."""
    with tempfile.TemporaryFile() as log, tempfile.NamedTemporaryFile("r") as result:
        subprocess.run([launcher, result.name, str(timeout)] + command, stdin=subprocess.DEVNULL, stdout=log,
                       stderr=log, check=True)
        status, nanoseconds, user, system, peak_kib = (int(word) for word in result.read().split())
        if status != expected:
            log.seek(0)
            text = log.read().decode("utf-8", "replace").strip()[-500:]
            raise Failed(f"{' '.join(command)} ended with status {status}, not {expected}: {text}")
        return Figures(nanoseconds / 1e9, (user + system) / 1e6, peak_kib)


def wait_for_text(path, pattern, process, timeout):
    """Seconds until the file holds the pattern."""
    started = time.monotonic()
    while time.monotonic() - started < timeout:
        try:
            with open(path, "rb") as file:
                if re.search(pattern, file.read()):
                    return time.monotonic() - started
        except FileNotFoundError:
            pass
        if process.poll() is not None:
            raise Failed(f"it ended with status {process.returncode} before {pattern!r} came")
        time.sleep(TICK)
    raise Failed(f"{pattern!r} did not come within {timeout} s")


def resident_beside_guest_kib(pid, guest_mib):
    """Resident memory of the process without that of the guest: its memory file, or the mapping of just its size."""
    total = guest = 0
    is_guest = False
    with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as smaps:
        for line in smaps:
            mapping = re.match(r"([0-9a-f]+)-([0-9a-f]+) .{4} \S+ \S+ \S+ *(.*)", line)
            if mapping:
                size = int(mapping.group(2), 16) - int(mapping.group(1), 16)
                is_guest = size == guest_mib << 20 or ("memfd:" in mapping.group(3) and size >= 1 << 20)
            elif line.startswith("Rss:"):
                resident = int(line.split()[1])
                total += resident
                guest += resident if is_guest else 0
    return total - guest


def stop(process):
    """Ends a monitor that would go on."""
    if process.poll() is None:
        process.kill()
    process.wait()


def user_space_exits(command, expected):
    """How often KVM_RUN came back to the program, counted by the kernel's own tracepoint."""
    with tempfile.NamedTemporaryFile("r") as result:
        counter = ["timeout", "60", "perf", "stat", "-x,", "-o", result.name, "-e", "kvm:kvm_userspace_exit", "--"]
        done = subprocess.run(counter + command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, check=False)
        text = result.read()
    if done.returncode != expected:
        raise Failed(f"{' '.join(command)} under perf ended with status {done.returncode}, not {expected}: "
                     f"{done.stderr.decode('utf-8', 'replace').strip()[-300:]}")
    for line in text.splitlines():
        if "kvm_userspace_exit" in line:
            return int(line.split(",")[0])
    raise Failed(f"perf counted nothing: {text.strip()[-300:]}")

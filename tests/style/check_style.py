#!/usr/bin/env python3
"""Checks what a compiler does not: includes between folders, headers that stand alone, size, layout, chip headers.

Prints one line a finding, "file:line: rule: what is wrong", and ends with status 1 if there is any.
Slow checks (compiling headers, clang-format) remember what passed, by content, in a file in the build folder.
"""

import argparse
import concurrent.futures
import difflib
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

# A folder may include itself and what stands here.
MAY_INCLUDE = {
    "base": set(),
    "block": {"base"},
    "devices": {"base", "block"},
    "firmware": {"base"},
    "tools": {"base", "block"},
    "vmm": {"base", "block", "devices", "firmware", "tools"},
    "tests": {"base", "block", "devices", "firmware", "tools", "vmm"},
}
# Headers of these libraries stay behind one folder.
LIBRARY_HOME = [
    (re.compile(r"linux/kvm(_para)?\.h$|asm/kvm(_para)?\.h$"), "vmm/kvm/"),
    (re.compile(r"liburing(\.h$|/)"), "block/uring/"),
    (re.compile(r"gcrypt\.h$"), "block/crypto/"),
    (re.compile(r"rfb/"), "devices/vnc/"),
    (re.compile(r"(slirp/)?libslirp"), "devices/net/"),
]
CHIP_FOLDERS = tuple(f"devices/{name}/" for name in ("chipset", "ide", "legacy", "video", "input", "pci"))
CHIP_CLASS = re.compile(r"class\s+\w+[^;{]*:[^;{]*\b(Device|PciFunction)\b")
CHIP_WORDS = ("models", "missing", "documentation")

CODE = {".hpp", ".cpp"}
TEXT = CODE | {".py", ".build", ".sh", ".json", ".md", ".asl", ".yml", ".txt"}
TEXT_NAMES = {"run", "test", "meson_options.txt", ".clang-format", ".clang-tidy", ".editorconfig", ".gitignore"}
MAX_COLUMNS = {**dict.fromkeys(CODE | {".build", ".asl"}, 120), ".py": 144, ".sh": 144}  # by ending; others are free
MAX_LINES = 600
MAX_TEST_LINES = 900
LICENCE = "GPL-2.0-or-later"
CLANG_FORMAT = "clang-format-19"
# The two checks that start other programs run this many at once.
PARALLEL = 2

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


class Tree:
    """The source files, read once, and the findings."""

    def __init__(self, root):
        self.root = Path(root).resolve()
        self.findings = []
        self.names = self._list()
        self._text = {}

    def _list(self):
        if (self.root / ".git").exists():
            listed = subprocess.run(
                ["git", "-c", "safe.directory=*", "-C", str(self.root), "ls-files", "-co", "--exclude-standard", "-z"],
                capture_output=True, check=False)
            if listed.returncode == 0:
                names = listed.stdout.decode().split("\0")
                return sorted({name for name in names if name and (self.root / name).is_file()})
        names = []
        for folder, folders, files in os.walk(self.root):
            folders[:] = [f for f in folders if not f.startswith((".", "build")) and f != "__pycache__"]
            names += [str((Path(folder) / name).relative_to(self.root)) for name in files]
        return sorted(names)

    def text(self, name):
        if name not in self._text:
            self._text[name] = (self.root / name).read_bytes().decode("utf-8", errors="replace")
        return self._text[name]

    def code(self):
        return [name for name in self.names if Path(name).suffix in CODE]

    def headers(self):
        return [name for name in self.names if name.endswith(".hpp")]

    def report(self, name, line, rule, what):
        self.findings.append((name, line, rule, what))

    def includes(self, name):
        """Yields (line, quoted, path) for each include line."""
        for number, line in enumerate(self.text(name).splitlines(), 1):
            if match := INCLUDE.match(line):
                yield number, match[1] == '"', match[2]

    def with_included(self, name, seen=None):
        """The file and every project header it reaches."""
        seen = set() if seen is None else seen
        if name not in seen and (self.root / name).is_file():
            seen.add(name)
            for _, quoted, path in self.includes(name):
                if quoted:
                    self.with_included(path, seen)
        return seen


class Cache:
    """Keys of checks that passed; kept between runs."""

    def __init__(self, path):
        self.path = path
        self.passed = set()
        self.used = set()
        if path and path.is_file():
            try:
                self.passed = set(json.loads(path.read_text()))
            except (ValueError, TypeError):
                pass  # a damaged cache only costs time

    def has(self, key):
        if key in self.passed:
            self.used.add(key)
        return key in self.passed

    def save(self):
        if self.path:
            temporary = self.path.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps(sorted(self.used)))
            temporary.replace(self.path)


def digest(*parts):
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def is_test(name):
    return name.startswith("tests/") or name.endswith("_test.cpp")


def check_includes(tree):
    for name in tree.code():
        folder = name.split("/")[0]
        for line, quoted, path in tree.includes(name):
            if not quoted:
                for pattern, home in LIBRARY_HOME:
                    if pattern.match(path) and not name.startswith(home):
                        tree.report(name, line, "library-home", f"<{path}> may be included only in {home}")
                continue
            target = path.split("/")[0]
            if target not in MAY_INCLUDE:
                tree.report(name, line, "include-path", f'"{path}": project headers from the root, others in <>')
            elif not path.endswith(".hex") and not (tree.root / path).is_file():  # .hex is made by the build
                tree.report(name, line, "include-path", f'"{path}" does not exist')
            elif folder in MAY_INCLUDE and target != folder and target not in MAY_INCLUDE[folder]:
                allowed = ", ".join(sorted(MAY_INCLUDE[folder])) or "nothing else"
                tree.report(name, line, "include-direction",
                            f'{folder}/ may not include "{path}" (it may use: {allowed})')


def check_text(tree):
    for name in tree.names:
        path = Path(name)
        if path.suffix not in TEXT and path.name not in TEXT_NAMES:
            continue
        text = tree.text(name)
        if "\ufffd" in text:
            tree.report(name, text[:text.index("\ufffd")].count("\n") + 1, "utf-8", "not valid UTF-8")
        lines = text.split("\n")
        if text and not text.endswith("\n"):
            tree.report(name, len(lines), "eof-newline", "the last line has no newline")
        elif text.endswith("\n\n"):
            tree.report(name, len(lines) - 1, "eof-newline", "blank lines at the end")
        for number, line in enumerate(lines, 1):
            if "\t" in line:
                tree.report(name, number, "tab", "use spaces")
            if line.endswith("\r"):
                tree.report(name, number, "line-end", "ends with CR")
            elif line != line.rstrip():
                tree.report(name, number, "trailing-blank", "blanks at the end of the line")
            if len(line) > (most := MAX_COLUMNS.get(path.suffix, len(line))):
                tree.report(name, number, "columns", f"{len(line)} columns, at most {most}")


def check_size(tree):
    for name in tree.code():
        limit = MAX_TEST_LINES if is_test(name) else MAX_LINES
        lines = tree.text(name).count("\n")
        if lines > limit:
            tree.report(name, limit + 1, "file-size", f"{lines} lines, at most {limit}: split it by purpose")


def check_licence(tree):
    if "LICENSE" not in tree.names:
        tree.report("LICENSE", 1, "licence", "the file is missing")
    elif "GNU GENERAL PUBLIC LICENSE" not in tree.text("LICENSE"):
        tree.report("LICENSE", 1, "licence", "is not the text of the GNU General Public License")
    for name in tree.code():
        for number, line in enumerate(tree.text(name).splitlines()[:40], 1):
            found = re.search(r"SPDX-License-" r"Identifier:\s*(\S+)", line)
            if found and found[1] != LICENCE:
                tree.report(name, number, "licence", f"{found[1]}: everything here is {LICENCE}")


def leading_comment(text):
    """The comment lines a file opens with."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("//"):
            break
        lines.append(line)
    return "\n".join(lines)


def check_headers(tree):
    for name in tree.headers():
        text = tree.text(name)
        comment = leading_comment(text)
        if not comment:
            tree.report(name, 1, "header-comment", "open with a comment that says what the file is for")
        after = text.splitlines()[comment.count("\n") + 1 if comment else 0:]
        first = next((line for line in after if line.strip()), "")
        if first != "#pragma once":
            tree.report(name, comment.count("\n") + 2, "pragma-once", "#pragma once follows the opening comment")
        if name.startswith(CHIP_FOLDERS) and CHIP_CLASS.search(text):
            for word in CHIP_WORDS:
                if word not in comment.lower():
                    tree.report(name, 1, "chip-header", f'the opening comment must say "{word.capitalize()}: ..."')


def run_all(jobs):
    """Runs functions in parallel and gives back their results in order."""
    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
        return list(pool.map(lambda job: job(), jobs))


def built_first(tree, name):
    """Whether the header's own source file begins with it: then every build proves that it stands alone."""
    source = name.removesuffix(".hpp") + ".cpp"
    if source not in tree.names:
        return False
    first = next(tree.includes(source), None)
    return first is not None and first[2] == name


def check_self_contained(tree, cache, compiler):
    """Each header compiles with nothing before it."""
    command = shlex.split(compiler) + ["-std=c++23", "-fsyntax-only", f"-I{tree.root}"]

    def compile_alone(name):
        reached = sorted(tree.with_included(name))
        contents = (part for path in reached for part in (path, tree.text(path)))
        key = digest("header", " ".join(command), *contents)
        if cache.has(key):
            return None
        done = subprocess.run(command + ["-include", str(tree.root / name), "-x", "c++", "/dev/null"],
                              capture_output=True, text=True, check=False)
        if done.returncode == 0:
            cache.used.add(key)
            return None
        said = done.stderr.strip()[:300] or f"the compiler ended with status {done.returncode}"
        return next((line for line in done.stderr.splitlines() if "error" in line), said)

    headers = [name for name in tree.headers() if not built_first(tree, name)]
    for name, error in zip(headers, run_all([lambda name=name: compile_alone(name) for name in headers])):
        if error:
            at = re.match(re.escape(str(tree.root / name)) + r":(\d+)", error)
            tree.report(name, int(at[1]) if at else 1, "self-contained", f"does not compile alone: {error}")


def check_format(tree, cache):
    if shutil.which(CLANG_FORMAT) is None:
        tree.report(".clang-format", 1, "clang-format", f"not installed: apt-get install {CLANG_FORMAT}")
        return
    style = tree.text(".clang-format") if ".clang-format" in tree.names else ""

    def format_one(name):
        text = tree.text(name)
        key = digest("format", CLANG_FORMAT, style, text)
        if cache.has(key):
            return None
        done = subprocess.run([CLANG_FORMAT, f"--assume-filename={tree.root / name}"], input=text,
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return 1, done.stderr.strip()
        if done.stdout == text:
            cache.used.add(key)
            return None
        diff = list(difflib.unified_diff(text.splitlines(), done.stdout.splitlines(), lineterm="", n=0))
        line = int(re.match(r"@@ -(\d+)", diff[2])[1])
        shown = diff[2:22] + (["..."] if len(diff) > 22 else [])
        return line, f"run {CLANG_FORMAT} -i {name}\n    " + "\n    ".join(shown)

    code = tree.code()
    for name, finding in zip(code, run_all([lambda name=name: format_one(name) for name in code])):
        if finding:
            tree.report(name, finding[0], "clang-format", finding[1])


def check(root, build=None, compiler=None, formatting=True):
    """All findings for the tree at `root`, sorted; the slow checks are left out where their means are not given."""
    tree = Tree(root)
    cache = Cache(Path(build) / "style-cache.json" if build else None)
    check_includes(tree)
    check_text(tree)
    check_size(tree)
    check_licence(tree)
    check_headers(tree)
    if compiler:
        check_self_contained(tree, cache, compiler)
    if formatting:
        check_format(tree, cache)
    cache.save()
    return tree, sorted(tree.findings)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default=Path(__file__).resolve().parents[2], help="the source folder")
    parser.add_argument("--build", help="the build folder; what passed is remembered there")
    parser.add_argument("--compiler", help="compiler command; without it headers are not compiled alone")
    options = parser.parse_args()
    tree, findings = check(options.root, options.build, options.compiler)
    for name, line, rule, what in findings:
        print(f"{name}:{line}: {rule}: {what}")
    print(f"style: {len(tree.names)} files, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())

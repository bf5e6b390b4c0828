#!/usr/bin/env python3
"""Whistler's commands as a new user and as a hostile one meet them: test_cli.py [PROGRAM] [-v] [-f] [names...]

PROGRAM is whistler (or the environment variable WHISTLER). A name is one as bad_input.Drives. What needs /dev/kvm is
skipped where there is none; the emulating kind does.
"""

import os
import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULES = ["bad_input", "described", "running", "host_disk_full"]


def main():
    arguments = sys.argv[1:]
    names = [a for a in arguments if not a.startswith("-") and a.partition(".")[0] in MODULES]
    programs = [a for a in arguments if not a.startswith("-") and a not in names]
    program = programs[0] if programs else os.environ.get("WHISTLER", "")
    if not os.access(program, os.X_OK) or len(programs) > 1:
        sys.exit(__doc__)
    os.environ["WHISTLER"] = os.path.abspath(program)
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(HERE)]
    suite = unittest.defaultTestLoader.loadTestsFromNames(names or MODULES)
    result = unittest.TextTestRunner(verbosity=2 if "-v" in arguments else 1, failfast="-f" in arguments).run(suite)
    bad = len(result.failures) + len(result.errors)
    skipped = f", {len(result.skipped)} skipped" if result.skipped else ""
    print(f"{result.testsRun - bad - len(result.skipped)} passed, {bad} failed{skipped}")
    return 1 if bad or not result.testsRun else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Runs the chips' tests through qtest: run.py PROGRAM [unittest arguments, or names as test_ide.DiskTest].

PROGRAM is whistler, or qemu-system-x86_64: the tests hold for both, and QEMU is the oracle they are written against.
"""

import os
import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    os.environ["QTEST_PROGRAM"] = sys.argv[1]
    sys.path[:0] = [str(HERE), str(HERE.parent / "tools")]
    names = [argument for argument in sys.argv[2:] if not argument.startswith("-")]
    loader = unittest.defaultTestLoader
    suite = loader.loadTestsFromNames(names) if names else loader.discover(str(HERE), "test_*.py")
    result = unittest.TextTestRunner(verbosity=2 if "-v" in sys.argv else 1, failfast="-f" in sys.argv).run(suite)
    bad = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - bad - len(result.skipped)} passed, {bad} failed, {len(result.skipped)} skipped")
    return 1 if bad or not result.testsRun else 0


if __name__ == "__main__":
    sys.exit(main())

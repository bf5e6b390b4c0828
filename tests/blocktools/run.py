#!/usr/bin/env python3
"""Runs the tests of the block tools against Debian's qemu-img, qemu-io and qemu-nbd: run.py PROGRAM [test_img.Create ...]

PROGRAM is whistler. Without names every test_*.py beside this file runs. The last line is "N passed, N failed".
"""
import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    if len(sys.argv) < 2 or not os.access(sys.argv[1], os.X_OK):
        sys.exit(__doc__)
    os.environ["WHISTLER"] = os.path.abspath(sys.argv[1])
    sys.dont_write_bytecode = True
    sys.path.insert(0, HERE)
    loader = unittest.defaultTestLoader
    # Not in the short run: its key derivations take minutes.
    long_run = "WHISTLER_LONG" in os.environ
    names = [name[:-3] for name in sorted(os.listdir(HERE))
             if name.startswith("test_") and name.endswith(".py") and (long_run or name != "test_crypto.py")]
    suite = loader.loadTestsFromNames(sys.argv[2:] or names)
    result = unittest.TextTestRunner(stream=sys.stdout).run(suite)
    bad = len(result.failures) + len(result.errors)
    for test, reason in result.skipped:
        print(f"skipped: {test.id()}: {reason}")
    left_out = f", {len(result.skipped)} skipped" if result.skipped else ""
    print(f"{result.testsRun - bad - len(result.skipped)} passed, {bad} failed{left_out}")
    return 1 if bad or not result.testsRun else 0


if __name__ == "__main__":
    sys.exit(main())

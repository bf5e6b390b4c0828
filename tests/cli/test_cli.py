#!/usr/bin/env python3
"""Whistler's commands as a new user and as a hostile one meet them: test_cli.py [PROGRAM] [-v] [-f] [names...]

PROGRAM is whistler (or the environment variable WHISTLER). A name is one as bad_input.Drives. What needs /dev/kvm runs
in the KVM lab (tests/lab) where there is none; the emulating kind does.
"""

import os
import re
import subprocess
import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULES = ["bad_input", "described", "importing", "running", "host_disk_full", "monitor", "jobs", "service", "plans", "plan_folders",
           "plan_pictures", "plan_mistakes"]


LAB_SECONDS = 600


def in_the_lab(names):
    """Runs the tests of these names in the KVM lab: (passed, failed)."""
    command = [str(HERE.parent / "lab" / "lab"), "--timeout", str(LAB_SECONDS), "--", sys.executable, str(HERE / "test_cli.py"),
               os.environ["WHISTLER"], *names]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, flush=True)
    found = re.findall(r"^(\d+) passed, (\d+) failed", done.stdout, re.MULTILINE)
    if not found or done.returncode not in (0, 1):
        print(f"the KVM lab could not run them: status {done.returncode}")
        return 0, len(names)
    return int(found[-1][0]), int(found[-1][1])


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
    from cli_case import NEEDS_KVM
    suite = unittest.defaultTestLoader.loadTestsFromNames(names or MODULES)
    result = unittest.TextTestRunner(verbosity=2 if "-v" in arguments else 1, failfast="-f" in arguments).run(suite)
    bad = len(result.failures) + len(result.errors)
    passed = result.testsRun - bad - len(result.skipped)
    for_lab = [test.id() for test, reason in result.skipped if reason == NEEDS_KVM]
    if for_lab:
        print(f"no /dev/kvm here: {len(for_lab)} tests run in the KVM lab", flush=True)
        lab_passed, lab_failed = in_the_lab(for_lab)
        passed, bad = passed + lab_passed, bad + lab_failed
    left_out = [test for test, reason in result.skipped if reason != NEEDS_KVM]
    for test, reason in result.skipped:
        if reason != NEEDS_KVM:
            print(f"skipped: {test.id()}: {reason}")
    skipped = f", {len(left_out)} skipped" if left_out else ""
    print(f"{passed} passed, {bad} failed{skipped}")
    return 1 if bad or not result.testsRun else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Adds up what the test programs printed: summarize.py LOGS. The last line is "N passed, N failed"; status 1 if any failed.

Reads meson.json (a test log of meson: one JSON object a line), boot.txt and plans.txt. A program that failed without
saying how many tests did counts as one failure, one that passed without a count as one test.
"""
import json
import os
import re
import sys

CATCH_ALL = re.compile(r"All tests passed \(\d+ assertions? in (\d+) test cases?\)")
CATCH_SOME = re.compile(r"test cases: (\d+) \|(?: (\d+) passed \|)? (\d+) failed")
PLAIN = re.compile(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", re.MULTILINE)


def counts(output):
    """(passed, failed) as the output tells, or None."""
    if found := CATCH_SOME.search(output):
        return int(found[2] or 0), int(found[3])
    if found := CATCH_ALL.search(output):
        return int(found[1]), 0
    if found := PLAIN.findall(output):
        return int(found[-1][0]), int(found[-1][1])
    return None


def main():
    logs = sys.argv[1]
    rows = []
    with open(os.path.join(logs, "meson.json"), encoding="utf-8") as file:
        for line in file:
            one = json.loads(line)
            good = one["result"] == "OK"
            passed, failed = counts(one.get("stdout", "")) or (int(good), int(not good))
            if not good and failed == 0:
                failed = 1
            rows.append((one["name"], passed, failed, one["duration"]))
    for name in ("boot", "plans"):
        path = os.path.join(logs, f"{name}.txt")
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                passed, failed = counts(file.read()) or (0, 1)
            rows.append((name, passed, failed, None))
    print(f"\n{'suite':24} {'passed':>7} {'failed':>7} {'seconds':>8}")
    for name, passed, failed, seconds in rows:
        print(f"{name:24} {passed:7} {failed:7} {'' if seconds is None else f'{seconds:8.1f}'}")
    passed = sum(row[1] for row in rows)
    failed = sum(row[2] for row in rows)
    print(f"\n{passed} passed, {failed} failed")
    return 1 if failed or passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())

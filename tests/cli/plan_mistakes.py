"""whistler test: plans that are wrong, which is found before any machine starts, and the schema that says what is right."""

import json
import os
import re
import subprocess
import unittest

from cli_case import ROOT
from described import jsonschema, keys, resolved, sample
from plans import PlanCase


class Wrong(PlanCase):
    """What is found before any machine starts."""

    GOOD = {"machine": {"memory": "16M"}, "steps": [{"wait_serial": "x"}]}

    def assert_wrong(self, plan, *words, arguments=()):
        before = self.state_of_files()
        path = self.path("p.json")
        if plan is not None:
            path.write_text(plan if isinstance(plan, str) else json.dumps(plan))
            before = self.state_of_files()
        self.assert_refused(self.run_plans(path, *arguments), *words)
        self.assertEqual(self.state_of_files(), before, "files were created or changed")

    def test_files(self):
        self.assert_wrong(None, "p.json", "no such file")
        self.assert_wrong("", "p.json")
        self.assert_wrong("{", "p.json", "JSON")
        self.assert_wrong("[]", "object")
        self.assert_wrong("[" * 100, "p.json")
        self.assert_wrong({**self.GOOD, "machine": "gone.json"}, "p.json: machine", "gone.json")

    def test_keys_and_values(self):
        self.assert_wrong({**self.GOOD, "step": []}, "p.json: step", '"steps"')
        self.assert_wrong({**self.GOOD, "steps": [{"wait_serail": "x"}]}, "steps[0].wait_serail", '"wait_serial"')
        self.assert_wrong({**self.GOOD, "machine": {"memroy": "1M"}}, "machine.memroy", '"memory"')
        self.assert_wrong({**self.GOOD, "steps": []}, "steps", "always pass")
        self.assert_wrong({**self.GOOD, "timeout": 0}, "timeout")
        self.assert_wrong({**self.GOOD, "matrix": {"memory": "64M"}}, "matrix.memory", "array")

    def test_arguments(self):
        self.assert_wrong(self.GOOD, "--jobs", arguments=["--jobs", "0"])
        self.assert_wrong(self.GOOD, "NAME=VALUE", arguments=["--var", "x"])
        self.assert_wrong(self.GOOD, "nowhere", arguments=["--junit", "/nowhere/at/all.xml"])
        self.assert_wrong(self.GOOD, "artifacts", arguments=["--artifacts", "/dev/null/x"])
        self.assert_wrong(self.GOOD, "too much like", arguments=[str(self.path("p.json"))])
        self.assert_refused(self.whistler("test"), "PLAN.json")

    def test_no_variable(self):
        self.assert_wrong({**self.GOOD, "set": {"memory": "${m}"}}, "set.memory", "--var m=VALUE")

    def test_plans_without_end(self):
        then = {"name": "a", "steps": self.GOOD["steps"]}
        self.assert_wrong({**self.GOOD, "then": [then] * 257}, "then: has 257 elements; at most 256")
        self.assert_wrong({**self.GOOD, "then": [{**then, "then": [then]}]}, "then[0].then", "is not a key here")
        for _ in range(30):
            then = {**then, "then": [then]}
        self.assert_wrong({**self.GOOD, "then": [then]}, "nested deeper than 16 levels")
        self.assert_wrong({**self.GOOD, "steps": self.GOOD["steps"] * 1001}, "steps: has 1001 elements; at most 1000")
        self.assert_wrong({**self.GOOD, "matrix": {f"memory{number}": ["16M"] * 64 for number in range(8)}}, "more than 256 plans")
        self.assert_wrong({**self.GOOD, "matrix": {f"memory{number}": ["16M"] for number in range(9)}}, "matrix: has more than 8 keys")
        self.assert_wrong({**self.GOOD, "matrix": {"memory": ["16M"] * 65}}, "matrix.memory", "1 to 64 values")
        then = [{"name": str(number), "steps": self.GOOD["steps"]} for number in range(4)]
        self.assert_wrong({**self.GOOD, "matrix": {"memory": [f"{size}M" for size in range(1, 65)]}, "then": then}, "more than 256 plans")

    def test_largest_plan_in_a_matrix_of_256_takes_little_memory(self):
        steps = [{"type": "a" * 1_000_000}, {"wait_serial": "x"}]
        matrix = {"memory": [f"{size}M" for size in range(16, 80)], "cpu.cores": [1, 2, 3, 4]}
        path = self.file("p.json", json.dumps({**self.GOOD, "steps": steps, "matrix": matrix}))
        process = self.start("test", path, "--check", stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 0)
        self.assertLess(used.ru_maxrss, 1 << 20)  # KiB; a copy of the keys for each plan would be 25 times as much

    def test_expressions_that_are_too_large(self):
        steps = [{"wait_serial": r"(((\pL{30}){5}){5})x"}] * 1000
        self.assert_wrong({**self.GOOD, "steps": steps}, "steps[0].wait_serial", "pattern too large")

    def test_check_lists_and_starts_nothing(self):
        path = self.file("p.json", json.dumps(self.GOOD))
        result = self.run_plans(path, "--check")
        self.assertEqual((result.returncode, result.stdout), (0, "p: 1 steps, 16 MiB, at most 600 s\n"))

    def test_help_teaches(self):
        result = self.whistler("test", "--help")
        self.assertEqual(result.returncode, 0)
        for word in ("wait_power_off", "124", "--artifacts", "Example"):
            self.assertIn(word, result.stdout)


class PlanSchema(PlanCase):
    """The schema, the shipped plans and the program are of one mind."""

    def setUp(self):
        super().setUp()
        self.schema = json.loads((ROOT / "configs" / "plan.schema.json").read_text())

    def complaint(self, plan):
        result = self.run_plans(self.file("p.json", json.dumps(plan)), "--check")
        found = re.match(r"whistler: \S+?p\.json: (.*)\n\Z", result.stderr)
        return found.group(1) if result.returncode == 2 and found else None

    def test_every_step_of_the_schema_is_known_and_no_other(self):
        steps = resolved(self.schema["properties"]["steps"]["items"], self.schema)["properties"]
        complaint = self.complaint({**Wrong.GOOD, "steps": [{"q" * 30: 1}]})
        known = re.search(r"is not a key here; the keys are (.*)", complaint).group(1).split(", ")
        self.assertEqual(sorted(known), sorted(steps))

    def test_every_key_of_the_schema_is_known_and_no_other(self):
        for path in ((), ("fail_on",)):
            part = self.schema
            plan = dict(Wrong.GOOD)
            at = plan
            for key in path:
                part = part["properties"][key]
                at[key] = {}
                at = at[key]
            at["q" * 30] = 1
            known = re.search(r"is not a key here; the keys are (.*)", self.complaint(plan)).group(1).split(", ")
            self.assertEqual(sorted(known), sorted(part["properties"]))

    def test_defaults_are_allowed(self):
        for path, part in keys(self.schema, self.schema):
            if "default" in part and len(path) == 1:
                self.assertIsNone(self.complaint({**Wrong.GOOD, path[0]: sample(part, self.schema)}), path)

    @unittest.skipIf(jsonschema is None, "needs python3-jsonschema")
    def test_shipped_plans_are_valid(self):
        jsonschema.Draft7Validator.check_schema(self.schema)
        plans = sorted((ROOT / "tests" / "boot" / "plans").glob("*.json"))
        self.assertGreaterEqual(len(plans), 5)
        for path in plans:
            with self.subTest(path.name):
                jsonschema.validate(json.loads(path.read_text()), self.schema)
                result = self.run_plans(path, "--check", "--var", "guests=/g", "--var", "installer=/i")
                self.assertEqual(result.returncode, 0, result.stderr)


if __name__ == "__main__":
    unittest.main()

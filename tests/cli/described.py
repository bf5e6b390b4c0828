"""The examples in configs/ and the schema: valid, and of one mind with the program."""

import json
import re
import unittest

from cli_case import ROOT, CliCase

try:
    import jsonschema
except ImportError:
    jsonschema = None

CONFIGS = ROOT / "configs"


def schema():
    return json.loads((CONFIGS / "machine.schema.json").read_text())


def resolved(part, root):
    return root["definitions"][part["$ref"].rpartition("/")[2]] | {k: v for k, v in part.items() if k != "$ref"} if "$ref" in part else part


def sample(part, root):
    """A value the schema allows."""
    part = resolved(part, root)
    if "default" in part:
        return part["default"]
    if "enum" in part:
        return part["enum"][0]
    if "oneOf" in part:
        return sample(part["oneOf"][0], root)
    kind = part["type"]
    return {"boolean": True, "integer": max(part.get("minimum", 0), 0), "string": "x", "array": [], "object": {}}[kind]


def keys(part, root, path=()):
    """Every key path of the schema with its part; array elements are written as 0."""
    part = resolved(part, root)
    for key, inner in part.get("properties", {}).items():
        inner = resolved(inner, root)
        yield (*path, key), inner
        yield from keys(inner, root, (*path, key))
        if isinstance(inner.get("items"), dict):
            yield from keys(inner["items"], root, (*path, key, 0))


class Described(CliCase):
    def setUp(self):
        super().setUp()
        self.schema = schema()

    def document(self, path, value):
        """The smallest document with that key."""
        document = {"memory": "16M"}
        at = document
        for here, after in zip(path, (*path[1:], None)):
            new = value if after is None else [] if after == 0 else {}
            if here == 0:
                at.append(new)
            else:
                at[here] = new
            at = new
        return document

    def complaint(self, document):
        """The key path the program complains about, and why; None if it parses."""
        file = self.file("m.json", json.dumps(document))
        result = self.whistler("check", file)
        found = re.match(r"whistler: \S+?m\.json: (.*)\n\Z", result.stderr)
        return found.group(1) if result.returncode == 2 and found else None

    def test_every_key_of_the_schema_is_known(self):
        paths = list(keys(self.schema, self.schema))
        self.assertGreater(len(paths), 50)
        for path, part in paths:
            with self.subTest(path):
                self.assertNotIn("is not a key", self.complaint(self.document(path, sample(part, self.schema))) or "")

    def test_every_known_key_is_in_the_schema(self):
        # An unknown key far from all others makes the program list those it knows.
        objects = {(): self.schema} | {path: part for path, part in keys(self.schema, self.schema) if "properties" in part}
        objects |= {(*path, 0): part["items"] for path, part in keys(self.schema, self.schema) if "properties" in part.get("items", {})}
        for path, part in objects.items():
            with self.subTest(path):
                complaint = self.complaint(self.document((*path, "q" * 30), 1))
                known = re.search(r"is not a key here; the keys are (.*)", complaint).group(1).split(", ")
                self.assertEqual(sorted(known), sorted(part["properties"]))

    def test_every_word_of_the_schema_is_known(self):
        for path, part in keys(self.schema, self.schema):
            words = resolved(part, self.schema).get("enum", [])
            for word in words:
                with self.subTest(path=path, word=word):
                    self.assertNotIn("must be one of", self.complaint(self.document(path, word)) or "")
            if words and isinstance(words[0], str):
                complaint = self.complaint(self.document(path, "q" * 30))
                listed = re.search(r"must be one of (.*)", complaint).group(1)
                self.assertEqual(re.findall(r'"([^"]+)"', listed), words)

    def test_bounds_are_the_same(self):
        for path, part in keys(self.schema, self.schema):
            for bound, step in (("minimum", -1), ("maximum", 1)):
                if part.get("type") == "integer" and bound in part:
                    with self.subTest(path=path, bound=bound):
                        where = ".".join(map(str, path)).replace(".0", "[0]")
                        inside = self.complaint(self.document(path, part[bound])) or ""
                        self.assertNotIn(f"{where}: is {part[bound]} where", inside)
                        outside = self.complaint(self.document(path, part[bound] + step)) or ""
                        self.assertIn(f"{where}: is", outside)

    @unittest.skipIf(jsonschema is None, "needs python3-jsonschema")
    def test_examples_are_valid(self):
        jsonschema.Draft7Validator.check_schema(self.schema)
        examples = [path for path in CONFIGS.glob("*.json") if not path.name.endswith(".schema.json")]
        self.assertGreaterEqual(len(examples), 3)
        for path in examples:
            with self.subTest(path.name):
                jsonschema.validate(json.loads(path.read_text()), self.schema)

    def test_examples_parse(self):
        for path in CONFIGS.glob("*.json"):
            if path.name.endswith(".schema.json"):
                continue
            with self.subTest(path.name):
                # Their images are not there; that is all that may be wrong.
                complaint = self.whistler("check", path)
                self.assertTrue(complaint.returncode in (0, 3) or 'drive "' in complaint.stderr, complaint.stderr)

    @unittest.skipIf(jsonschema is None, "needs python3-jsonschema")
    def test_schema_refuses_what_the_program_refuses(self):
        for document in ({}, {"memory": "16 apples"}, {"memory": "16M", "mem": 1}, {"memory": "16M", "cpu": {"cores": 9}},
                         {"memory": "16M", "debug": {"console": "tcp"}}, {"memory": "16M", "uuid": "1"}, {"memory": "16M", "name": "x" * 65},
                         {"memory": "16M", "drives": [{}]}, {"memory": "16M", "drives": [{"file": "a"}]},
                         {"memory": "16M", "network": {}}, {"memory": "16M", "serial": [{}]}):
            with self.subTest(str(document)):
                self.assertIsNotNone(self.complaint(document))
                with self.assertRaises(jsonschema.ValidationError):
                    jsonschema.validate(document, self.schema)


if __name__ == "__main__":
    unittest.main()

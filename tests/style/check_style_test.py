#!/usr/bin/env python3
"""Every rule of check_style.py fires on a tree that breaks it, and on no other."""

import shutil
import tempfile
import unittest
from pathlib import Path

import check_style

GOOD_HEADER = "// What it is for.\n#pragma once\n\nnamespace whistler {}\n"
CHIP = "#pragma once\n\nclass Chip final : public PciFunction, public Device {};\n"


class CheckStyleTest(unittest.TestCase):
    def setUp(self):
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        self.put("LICENSE", "GNU GENERAL PUBLIC LICENSE\n")

    def put(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def rules(self, **options):
        _, findings = check_style.check(self.root, **{"formatting": False, **options})
        return [(name, line, rule) for name, line, rule, _ in findings]

    def test_good_tree_has_no_findings(self):
        self.put("base/a.hpp", GOOD_HEADER)
        self.put("block/b.cpp", '#include "base/a.hpp"\n')
        self.put("vmm/kvm/vm.cpp", "#include <linux/kvm.h>\n")
        self.assertEqual(self.rules(), [])

    def test_include_against_the_direction_is_found(self):
        self.put("vmm/a.hpp", GOOD_HEADER)
        self.put("devices/d.hpp", GOOD_HEADER)
        self.put("block/b.cpp", '#include <vector>\n#include "devices/d.hpp"\n')
        self.put("devices/c.cpp", '#include "vmm/a.hpp"\n')
        self.put("firmware/f.cpp", '#include "devices/d.hpp"\n')
        self.assertEqual(self.rules(), [("block/b.cpp", 2, "include-direction"),
                                        ("devices/c.cpp", 1, "include-direction"),
                                        ("firmware/f.cpp", 1, "include-direction")])

    def test_include_that_is_relative_or_missing_is_found(self):
        self.put("base/a.cpp", '#include "a.hpp"\n#include "base/none.hpp"\n')
        self.assertEqual(self.rules(), [("base/a.cpp", 1, "include-path"), ("base/a.cpp", 2, "include-path")])

    def test_library_outside_its_home_is_found(self):
        for name, header in (("vmm/a.cpp", "linux/kvm.h"), ("block/b.cpp", "liburing.h"), ("devices/c.cpp", "rfb/rfb.h")):
            self.put(name, f"#include <{header}>\n")
        self.assertEqual([rule for _, _, rule in self.rules()], ["library-home"] * 3)

    def test_layout_faults_are_found_with_their_lines(self):
        self.put("base/a.cpp", "int a;\n\tint b;\nint c; \n// " + "x" * 120 + "\nint d;")
        self.assertEqual(self.rules(), [("base/a.cpp", 2, "tab"), ("base/a.cpp", 3, "trailing-blank"),
                                        ("base/a.cpp", 4, "columns"), ("base/a.cpp", 5, "eof-newline")])

    def test_long_file_is_found_and_a_test_may_be_longer(self):
        self.put("base/a.cpp", "int a;\n" * 601)
        self.put("base/b_test.cpp", "int a;\n" * 900)
        self.assertEqual(self.rules(), [("base/a.cpp", 601, "file-size")])

    def test_other_licence_is_found(self):
        self.put("base/a.cpp", "// SPDX-License-" "Identifier: MIT\n")
        (self.root / "LICENSE").unlink()
        self.assertEqual(self.rules(), [("LICENSE", 1, "licence"), ("base/a.cpp", 1, "licence")])

    def test_header_without_comment_or_pragma_is_found(self):
        self.put("base/a.hpp", "#pragma once\n")
        self.put("base/b.hpp", "// Words.\nint a;\n")
        self.assertEqual(self.rules(), [("base/a.hpp", 1, "header-comment"), ("base/b.hpp", 2, "pragma-once")])

    def test_chip_header_must_say_what_it_models_misses_and_follows(self):
        self.put("devices/ide/a.hpp", "// Models: a.\n// Missing: b.\n// Documentation: c.\n" + CHIP)
        self.put("devices/ide/b.hpp", "// Models: a.\n" + CHIP)
        self.put("devices/ide/helper.hpp", "// No chip.\n#pragma once\n")
        self.assertEqual(self.rules(), [("devices/ide/b.hpp", 1, "chip-header")] * 2)

    def test_header_that_needs_another_first_is_found_and_good_ones_are_remembered(self):
        self.put("base/a.hpp", GOOD_HEADER)
        self.put("base/b.hpp", GOOD_HEADER + "inline std::string name;\n")
        build = self.root / "build"
        build.mkdir()
        for _ in range(2):
            self.assertEqual(self.rules(build=build, compiler="c++"), [("base/b.hpp", 5, "self-contained")])
        self.assertEqual(self.rules(build=build, compiler="false"),
                         [("base/a.hpp", 1, "self-contained"), ("base/b.hpp", 1, "self-contained")])

    @unittest.skipIf(shutil.which(check_style.CLANG_FORMAT) is None, "clang-format is not installed")
    def test_unformatted_file_is_found_at_its_line(self):
        self.put(".clang-format", "BasedOnStyle: Google\n")
        self.put("base/a.cpp", "int a;\nint  b;\n")
        self.assertEqual(self.rules(formatting=True), [("base/a.cpp", 2, "clang-format")])


if __name__ == "__main__":
    unittest.main()

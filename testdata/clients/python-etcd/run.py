"""Runs python-etcd 0.4.5's own integration tests against clusters of three members,
which they start, kill and start again.

  run.py SOURCE    SOURCE: the unpacked source package; `etcd` in PATH is the server

Names and methods that newer Pythons dropped are put back; the tests themselves are not changed.
"""

import sys
import time
import types
import unittest

sys.path.insert(0, sys.argv.pop(1) + "/src")

# nose is gone; of it the tests use one decorator.
nose = types.ModuleType("nose")
nose.tools = types.ModuleType("nose.tools")
nose.tools.nottest = lambda test: test
sys.modules["nose"], sys.modules["nose.tools"] = nose, nose.tools
if not hasattr(unittest.TestCase, "assertEquals"):
    unittest.TestCase.assertEquals = unittest.TestCase.assertEqual

from etcd.tests.integration import helpers, test_simple

# Their pauses behind each start and end of a server are as long as servers once took.
helpers.time = types.SimpleNamespace(sleep=lambda pause: time.sleep(pause / 2))

CASES = (test_simple.TestSimple, test_simple.TestErrors, test_simple.TestClusterFunctions, test_simple.TestWatch)


def load_tests(loader, _tests, _pattern):
    suite = unittest.TestSuite()
    for case in CASES:
        suite.addTests(loader.loadTestsFromTestCase(case))
    assert suite.countTestCases() >= 17, "the source package has fewer tests than 0.4.5 had"
    return suite


if __name__ == "__main__":
    outcome = unittest.main(verbosity=2, exit=False).result
    print("%d tests, %d failures, %d errors" % (outcome.testsRun, len(outcome.failures), len(outcome.errors)))
    sys.exit(0 if outcome.wasSuccessful() else 1)

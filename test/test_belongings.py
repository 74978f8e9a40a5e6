"""What killed runs leave behind: told once, by name, with its remedy; never while the run lives."""

import tempfile
import unittest
from pathlib import Path

from test.fakes.shell import ShellCase, run_main

from aifbench.results.belongings import Belongings, LeftStore


class Notes(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.store = LeftStore(Path(folder.name))

    def make(self, run_id: str, *names: str, service: str = "") -> Belongings:
        belongings = Belongings(self.store.note(run_id), service)
        for name in names:
            belongings.add(name, f"remove {name}")
        return belongings

    def untold(self, *services: str, alive: tuple[str, ...] = ()) -> list[str]:
        found = self.store.untold(lambda: services, lambda run_id: run_id not in alive)
        return [sentence for left in found for sentence in left.sentences()]

    def test_each_is_told_once_and_kept(self) -> None:
        self.make("r1", "a", "b").strike("a")
        self.assertEqual(self.untold(alive=("r1",)), [])
        self.assertEqual(self.untold(), ["run r1 may have left b; remove b"])
        self.assertEqual(self.untold(), [])
        self.assertEqual(self.store.of("r1", ()).sentences(), ["run r1 may have left b; remove b"])

    def test_what_is_removed_leaves_no_file(self) -> None:
        self.make("r1", "a").strike("a")
        self.assertFalse(self.store.note("r1").exists())

    def test_a_service_of_ours_took_its_own_along(self) -> None:
        belongings = self.make("r1", "a", service="s3")
        belongings.of("").add("b", "remove b")
        self.assertEqual(
            self.store.of("r1", ["s3"]).sentences(),
            [
                "run r1 may have left a; `stop s3` removes it with the service",
                "run r1 may have left b; remove b",
            ],
        )
        self.assertEqual(self.untold("other"), ["run r1 may have left b; remove b"])

    def test_notes_that_are_none_are_left_alone(self) -> None:
        self.make("r1", "a")
        for text in ("", "[]", "{}", '{"made": 7}', '{"made": [{"x": 1}]}', '{"made": [[]]}'):
            self.store.note("r1").write_text(text)
            self.assertEqual(self.untold(), [], text)


class InTheShell(ShellCase):
    def test_the_start_tells_it(self) -> None:
        self.session.left = ["run r1 may have left the bucket b"]
        code, out, error = run_main(self.session, ["status"])
        self.assertEqual((code, error), (0, "run r1 may have left the bucket b\n"))
        self.assertNotIn("bucket", out)


if __name__ == "__main__":
    unittest.main()

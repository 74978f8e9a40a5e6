"""Recipes by name: those that come with the program, those of the current directory, and new ones."""

import contextlib
import io
import tempfile
import unittest
from pathlib import Path

from test.fakes.shell import ShellCase
from test.fakes.site import PROJECT

from aifbench.repl.completion import recipes
from aifbench.repl.shell import Shell
from aifbench.results.study import Point
from aifbench.session import Session
from aifbench.studies.recipe_files import find_recipe

OWN = "study: mine\nnote: of this directory\nservice: chroma\nmatrix: {clients: [1, 2]}\nrepeats: 3\n"


class RecipeCase(ShellCase):
    """A shell in an empty directory, with the program's recipes."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.here = Path(folder.name).resolve()
        enter = contextlib.chdir(self.here)
        enter.__enter__()
        self.addCleanup(enter.__exit__, None, None, None)
        self.real = Session(environ={"AIFBENCH_RESULTS": str(self.here), "AIFBENCH_SCHEDULER": "local"})
        self.shell = Shell(self.real, stdin=io.StringIO(), stdout=io.StringIO())  # type: ignore[arg-type]

    def write(self, name: str, text: str = OWN) -> Path:
        path = self.here / name
        path.write_text(text, encoding="utf-8")
        return path


class Included(RecipeCase):
    def test_each_is_valid_and_small_enough_to_be_run(self) -> None:
        found = self.real.recipes()
        self.assertGreaterEqual(len(found), 7)
        for each in found:
            with self.subTest(each.name):
                self.assertEqual(each.problem, "")
                plan = self.real.plan_study(each.name)
                self.assertEqual(plan.recipe.name, each.name)
                self.assertTrue(each.note)
                self.assertFalse(plan.is_over_limit)
                self.assertIsNotNone(plan.recipe.limits.node_hours)
                self.assertLess(plan.estimate.load_s, 3600)

    def test_every_kind_of_service_has_one(self) -> None:
        kinds = {kind for each in self.real.recipes() for kind in each.services}
        self.assertLessEqual({"chroma", "postgres", "s3", "vllm"}, kinds)

    def test_the_quick_one_takes_minutes_and_compares_a_point_with_itself(self) -> None:
        plan = self.real.plan_study("chroma-quick")
        self.assertLessEqual(plan.estimate.load_s, 120)
        a, b = plan.points
        self.assertEqual((a, b), (Point({"note": "a"}, "note=a"), Point({"note": "b"}, "note=b")))

    def test_the_readme_names_each(self) -> None:
        text = (PROJECT / "utils/recipes/README.md").read_text()
        for path in (PROJECT / "utils/recipes").glob("*.yaml"):
            self.assertIn(f"`{path.stem}`", text)


class Names(RecipeCase):
    def test_by_name_by_path_and_from_elsewhere(self) -> None:
        path = self.write("mine.yaml")
        for ref in ("mine", "mine.yaml", "./mine.yaml", str(path)):
            self.assertEqual(self.real.recipe(ref).name, "mine", ref)
        self.assertEqual(self.real.recipe("chroma-quick").members[0].kind, "chroma")

    def test_the_current_directory_comes_first(self) -> None:
        self.write("chroma.yaml")
        self.assertEqual(self.real.recipe("chroma").name, "mine")

    def test_unknown_names_get_the_nearest(self) -> None:
        self.write("mine.yml")
        self.assert_fails("recipe check chroma-quik", 2, "'chroma-quik'", "did you mean 'chroma-quick'?")
        self.assert_fails("recipe check mime.yaml", 2, "did you mean 'mine'?", "path of a file")
        (self.here / "folder").mkdir()
        self.assert_fails("recipe check folder", 2, "folder is a directory")
        self.assert_fails("recipe show ''", 2)

    def test_no_such_folder(self) -> None:
        with self.assertRaisesRegex(Exception, "no recipe is called 'x'"):
            find_recipe("x", self.here / "none", self.here / "none")


class Commands(RecipeCase):
    def test_recipes_lists_with_size_and_note(self) -> None:
        self.write("mine.yaml")
        self.write("compose.yaml", "services:\n  web: {image: nginx}\n")
        out, error = self.run_line("recipes")
        self.assertEqual(error, "")
        rows = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines()}
        self.assertEqual(rows["mine"], "chroma 2 x 3 of this directory")
        self.assertTrue(rows["interference"].startswith("chroma + postgres 2 x 5 "))
        self.assertNotIn("compose", rows)

    def test_recipes_lists_what_is_not_valid_with_the_reason(self) -> None:
        self.write("bad.yaml", OWN.replace("clients", "client"))
        self.write("worse.yaml", "study: [\n")
        out, _ = self.run_line("recipes")
        self.assertRegex(out, r"bad +not valid: .*line 4: `matrix.client` names no option")
        self.assertRegex(out, r"worse +not valid: .*not YAML")

    def test_show_prints_the_file_valid_or_not(self) -> None:
        self.write("bad.yaml", "study: bad  # remark\nrepeat: 3\n")
        self.assertEqual(self.run_line("recipe show bad"), ("study: bad  # remark\nrepeat: 3\n", ""))

    def made(self) -> list[str]:
        """What is here, but for the program's own log."""
        return [path.name for path in self.here.iterdir() if path.name != "events"]

    def test_check_prints_the_plan(self) -> None:
        self.write("mine.yaml")
        out, error = self.run_line("recipe check mine")
        self.assertEqual((error, self.shell.outcome), ("", 0))
        self.assertIn("2 points x 3 repeats = 6 trials\nat least 1 service job, 06:30 under load", out)
        self.assertEqual(self.made(), ["mine.yaml"])

    def test_check_refuses_with_the_place(self) -> None:
        self.write("mine.yaml", OWN + "options: {durration: 3s}\n")
        self.assert_fails("recipe check mine", 2, "mine.yaml, line 6", "options.durration", "'duration'")

    def test_new_writes_a_valid_recipe_of_each_kind(self) -> None:
        for kind in filter(self.real.bench_names, self.real.kinds()):
            with self.subTest(kind):
                out, error = self.run_line(f"recipe new my-{kind} --service {kind}")
                self.assertEqual((error, self.shell.outcome), ("", 0))
                self.assertIn(f"recipe check my-{kind}", out)
                recipe = self.real.recipe(f"my-{kind}")
                self.assertEqual((recipe.name, recipe.members[0].kind), (f"my-{kind}", kind))
                options = (*self.real.bench_options(kind), *self.real.start_options(kind))
                for option in (each for each in options if each.key != "name"):
                    self.assertRegex(recipe.text, rf"#.*\b{option.key}\b")

    def test_new_begins_with_the_benchmark_of_the_kinds_own_recipe(self) -> None:
        self.run_line("recipe new mine --service chroma")
        self.assertEqual(self.real.recipe("mine").members[0].bench, "search")

    def test_new_overwrites_nothing(self) -> None:
        path = self.write("mine.yaml")
        for line in ("recipe new mine", "recipe new mine.yaml"):
            self.assert_fails(line, 2, "mine.yaml exists")
        self.assertEqual(path.read_text(), OWN)

    def test_new_with_what_cannot_be_used(self) -> None:
        self.assert_fails("recipe new mine --service chrom", 2, "'chrom'", "did you mean 'chroma'?")
        self.assert_fails("recipe new Mine", 2, "'Mine' cannot be a name", "lower-case")
        self.assert_fails("recipe new none/mine", 2, "cannot write", "No such file")
        self.assertEqual(self.made(), [])

    def test_words_that_are_no_action(self) -> None:
        self.assert_fails("recipe chek mine", 2, "'chek'", "did you mean 'check'?")
        self.assert_fails("recipe", 2, "ACTION")
        self.assert_fails("recipe show chroma --service chroma", 2, "recipe new")

    def test_tab_offers_the_names(self) -> None:
        self.write("mine.yaml")
        offered = [item.text for item in recipes(self.shell)]
        self.assertLessEqual({"mine", "chroma-quick"}, set(offered))


if __name__ == "__main__":
    unittest.main()

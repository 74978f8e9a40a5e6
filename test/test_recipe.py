"""Reading recipes: what a valid one says, and that every mistake names file, line, key and the way out."""

import unittest

from test.fakes.catalog import recipe_of, recipe_with

from aifbench.errors import UsageError
from aifbench.studies.recipe import Axis, Limits, Member

# Lines are counted from the top.
FULL = """\
study: chroma-rate
note: |
  the first line
  and more
service: store
start: {time: 30m, fsync: off}
bench: search
options: {client-nodes: 2, duration: 1:30, cold: yes}
matrix:
  rate: [50, 1e2, 200/s]
  start.nodes: [1, 2]
zip: {clients: [1, 2], workers: [1, 2]}
exclude: [{rate: 200, start.nodes: 1}]
repeats: 3
order: interleaved
seed: 7
baseline: {rate: 50/s}
limits: {node_hours: 6.5, trials: 200}
"""

SEVERAL = """\
study: both
services:
  llm: {service: model, start: {nodes: 2}, bench: generate, options: {slo: p99=1s}}
  store-1: {service: store, attach: theirs, bench: search}
together: interference
options: {rate: 5/s}
matrix:
  llm.clients: [1, 4]
  llm.start.time: [1h, 2h]
  store-1.clients: [1, 2]
  duration: [10s, 20s]
"""


class Reading(unittest.TestCase):
    def test_all_of_a_recipe_for_one_service(self) -> None:
        recipe = recipe_of(FULL)
        self.assertEqual(
            (recipe.name, recipe.note, recipe.file), ("chroma-rate", "the first line\nand more", "r.yaml")
        )
        (member,) = recipe.members
        options = {"client_nodes": "2", "duration": "1:30", "cold": True}
        self.assertEqual(member, Member("", "store", {"time": "30m", "fsync": "off"}, "search", options))
        self.assertEqual(
            recipe.axes,
            (
                Axis(("rate",), (("50",), ("1e2",), ("200/s",))),
                Axis(("start.nodes",), (("1",), ("2",))),
                Axis(("clients", "workers"), (("1", "1"), ("2", "2"))),
            ),
        )
        self.assertEqual((recipe.repeats, recipe.order, recipe.seed), (3, "interleaved", 7))
        self.assertEqual(recipe.limits, Limits(6.5, 200))

    def test_what_refers_to_the_matrix_is_kept_in_its_spelling(self) -> None:
        recipe = recipe_of(FULL)
        self.assertEqual(recipe.exclude, ({"rate": "200/s", "start.nodes": "1"},))
        self.assertEqual(recipe.baseline, {"rate": "50"})

    def test_the_least_there_can_be(self) -> None:
        recipe = recipe_of("study: s\nservice: store\n")
        self.assertEqual(recipe.members, (Member("", "store", {}, "all", {}),))
        self.assertEqual((recipe.axes, recipe.repeats, recipe.order), ((), 5, "shuffled"))
        self.assertEqual(recipe.text, "study: s\nservice: store\n")

    def test_several_services(self) -> None:
        recipe = recipe_of(SEVERAL)
        self.assertEqual(
            recipe.members,
            (
                Member("llm", "model", {"nodes": "2"}, "generate", {"slo": "p99=1s"}),
                Member("store-1", "store", {}, "search", {}, attach="theirs"),
            ),
        )
        self.assertEqual((recipe.together, recipe.options), ("interference", {"rate": "5/s"}))
        self.assertEqual(
            [axis.keys[0] for axis in recipe.axes],
            ["llm.clients", "llm.start.time", "store-1.clients", "duration"],
        )

    def test_an_slo_becomes_the_option(self) -> None:
        recipe = recipe_with("service: model\nslo: p99=20ms\n")
        self.assertEqual((recipe.slo, recipe.members[0].options), ("p99=20ms", {"slo": "p99=20ms"}))
        rag = SEVERAL.replace("interference", "rag")
        self.assertEqual(recipe_of(rag + "slo: p99=2s\n").options, {"rate": "5/s", "slo": "p99=2s"})


class Mistakes(unittest.TestCase):
    def assert_refused(self, text: str, *words: str) -> None:
        with self.assertRaises(UsageError) as caught:
            (recipe_of if "study:" in text else recipe_with)(text)
        for word in ("r.yaml", *words):
            self.assertIn(word, str(caught.exception), text)
        self.assertNotIn("\n", str(caught.exception))

    def changed(self, old: str, new: str) -> str:
        text = FULL
        self.assertIn(old, text)
        return text.replace(old, new)

    def test_what_is_no_table(self) -> None:
        for text in ("- service: a\n", "service\n", "'service: a'\n"):
            with self.subTest(text), self.assertRaisesRegex(UsageError, "r.yaml, line 1: a recipe is keys"):
                recipe_of(text)

    def test_unknown_keys_at_every_level(self) -> None:
        self.assert_refused(
            self.changed("repeats", "repeat"), "line 14", "`repeat` (did you mean 'repeats'?)", "valid: study"
        )
        self.assert_refused(
            self.changed("{time:", "{tiem:"), "line 6", "`start.tiem`", "'time'", "valid: nodes"
        )
        self.assert_refused(
            self.changed("duration:", "durations:"), "line 8", "`options.durations`", "'duration'"
        )
        self.assert_refused(self.changed("  rate: [", "  rat: ["), "line 10", "`matrix.rat`", "'rate'")
        self.assert_refused(
            self.changed("  start.nodes: [", "  nodes: ["), "line 11", "`matrix.nodes`", "'start.nodes'"
        )
        self.assert_refused(
            self.changed("  start.nodes: [", "  strat.nodes: ["), "'start.nodes'", "start.OPTION"
        )
        self.assert_refused(self.changed("workers:", "worker:"), "line 12", "`zip.worker`", "'workers'")
        self.assert_refused(
            self.changed("trials:", "trails:"), "line 18", "`limits.trails`", "valid: node_hours, trials"
        )
        self.assert_refused(
            SEVERAL.replace("attach", "atach"), "line 4", "`services.store-1.atach`", "'attach'"
        )
        self.assert_refused(SEVERAL.replace("llm.start.time", "lm.start.time"), "line 9", "'llm.start.time'")
        self.assert_refused(
            SEVERAL.replace("slo: p99=1s", "sol: p99=1s"), "line 3", "`services.llm.options.sol`"
        )

    def test_words_that_are_not_known(self) -> None:
        self.assert_refused(
            self.changed("service: store", "service: stor"),
            "line 5",
            "'stor'",
            "mean 'store'",
            "valid: store, model",
        )
        self.assert_refused(
            self.changed("bench: search", "bench: serch"), "line 7", "'search'", "valid: all, search, ingest"
        )
        self.assert_refused(
            self.changed("interleaved", "random"), "line 15", "valid: shuffled, interleaved, sequential"
        )
        self.assert_refused(SEVERAL.replace("interference", "interfere"), "line 5", "'interference'", "rag")

    def test_values_that_their_option_refuses(self) -> None:
        self.assert_refused(
            self.changed("1:30", "90 parsecs"),
            "line 8",
            "`options.duration`",
            "unknown unit 'parsecs'",
            "such as 90s",
        )
        self.assert_refused(self.changed("1e2", "fast"), "line 10", "`matrix.rate`", "'fast'")
        self.assert_refused(self.changed("[50, 1e2", "[50s, 1e2"), "line 10", "'50s'", "unknown unit 's'")
        self.assert_refused(
            self.changed("fsync: off", "fsync: no"), "line 6", "`start.fsync`", "'no'", "valid: on, off"
        )
        self.assert_refused(self.changed("cold: yes", "cold: perhaps"), "line 8", "neither true nor false")
        self.assert_refused(
            self.changed("clients: [1, 2]", "clients: [0, 2]"), "line 12", "'0' is out of range"
        )
        self.assert_refused("service: model\nslo: fast\n", "line 2", "`slo`", "p99=TIME")

    def test_values_of_the_recipe_itself(self) -> None:
        for old, new, where in (
            ("study: chroma-rate", "study: Chroma Rate", "line 1: `study`"),
            ("repeats: 3", "repeats: 0", "line 14: `repeats`"),
            ("repeats: 3", "repeats: 2.5", "line 14: `repeats`"),
            ("repeats: 3", "repeats: many", "line 14: `repeats`"),
            ("seed: 7", "seed: -1", "line 16: `seed`"),
            ("6.5", "lots", "line 18: `limits.node_hours`"),
            ("6.5", "-1", "line 18: `limits.node_hours`"),
            ("trials: 200", "trials: 0", "line 18: `limits.trials`"),
        ):
            with self.subTest(new):
                self.assert_refused(self.changed(old, new), where, "; give ")

    def test_shapes(self) -> None:
        self.assert_refused(
            self.changed("repeats: 3", "repeats: [3]"), "line 14", "`repeats` is a list, not one value"
        )
        self.assert_refused(self.changed("repeats: 3", "repeats:"), "line 14", "`repeats` has no value")
        self.assert_refused(
            self.changed("client-nodes: 2", "rate: [1, 2]"), "line 8", "`options.rate` is a list"
        )
        self.assert_refused(
            self.changed("{time: 30m, fsync: off}", "30m"), "line 6", "`start` is one value, not keys"
        )
        self.assert_refused(
            self.changed("[50, 1e2, 200/s]", "50"), "line 10", "`matrix.rate` is one value, not a list"
        )
        self.assert_refused(
            self.changed("[50, 1e2, 200/s]", "[50, {a: 1}]"), "line 10", "keys with values, not one value"
        )
        self.assert_refused(self.changed("[50, 1e2, 200/s]", "[50, ~]"), "line 10", "has no value")
        self.assert_refused(
            self.changed("exclude: [{rate: 200, start.nodes: 1}]", "exclude: {rate: 200}"),
            "line 13",
            "not a list",
        )
        self.assert_refused(
            self.changed("exclude: [{rate: 200, start.nodes: 1}]", "exclude: [200]"), "line 13", "not keys"
        )
        self.assert_refused("matrix: [1]\n", "line 1", "`matrix` is a list, not keys")

    def test_missing_and_misplaced_keys(self) -> None:
        self.assert_refused(self.changed("study: chroma-rate\n", "#study: x\n"), "`study` is missing")
        self.assert_refused("study: s\nrepeats: 3\n#service", "`service` is missing")
        self.assert_refused(self.changed("bench: search", "together: rag"), "line 7", "`together`")
        self.assert_refused(
            SEVERAL + "bench: search\n", "line 12", "`bench` is of one service", "below `services`"
        )
        self.assert_refused(SEVERAL.replace("together: interference\n", ""), "`together` is missing")
        self.assert_refused(SEVERAL + "service: store\n", "line 12", "`service` is of one service")
        self.assert_refused(
            "study: s\ntogether: rag\nservices: {a: {service: store}}", "line 3", "two or more"
        )
        self.assert_refused(SEVERAL.replace("llm:", "LLM:"), "line 3", "`services.LLM` cannot be a name")
        self.assert_refused(
            SEVERAL.replace("service: model, ", ""), "line 3", "`services.llm.service` is missing"
        )
        self.assert_refused(self.changed("start:", "attach: b\nstart:"), "line 6", "`attach`", "remove one")
        self.assert_refused(self.changed("time: 30m", "name: mine"), "line 6", "`start.name`")

    def test_an_attached_service_cannot_be_started_differently(self) -> None:
        self.assert_refused(
            "service: store\nattach: b\nmatrix: {start.nodes: [1, 2]}\n", "line 3", "`matrix.start.nodes`"
        )

    def test_an_slo_that_nothing_takes(self) -> None:
        self.assert_refused("slo: p99=1s\n", "line 1", "store takes no `slo`")
        self.assert_refused("service: model\nslo: p99=1s\noptions: {slo: p99=2s}\n", "line 2", "keep one")
        self.assert_refused(
            "service: model\nslo: p99=1s\nmatrix: {slo: [p99=2s]}\n", "line 3", "given elsewhere"
        )

    def test_empty_axes(self) -> None:
        self.assert_refused("matrix: {}\n", "line 1", "`matrix` is empty")
        self.assert_refused("zip: {}\n", "line 1", "`zip` is empty")
        self.assert_refused("matrix:\n", "line 1", "`matrix` is empty")
        self.assert_refused("matrix:\n  rate: []\n", "line 2", "`matrix.rate` is empty")
        self.assert_refused("exclude: []\n", "line 1", "`exclude` is empty")

    def test_a_key_that_is_given_twice(self) -> None:
        twice = "given elsewhere too"
        self.assert_refused("options: {rate: 5}\nmatrix: {rate: [1, 2]}\n", "line 2", "`matrix.rate`", twice)
        self.assert_refused("matrix: {rate: [1, 2]}\nzip: {rate: [1, 2]}\n", "line 2", "`zip.rate`", twice)
        self.assert_refused("start: {nodes: 1}\nmatrix: {start.nodes: [1, 2]}\n", "line 2", twice)
        self.assert_refused("matrix: {client-nodes: [1], client_nodes: [2]}\n", "line 1", twice)
        self.assert_refused("options: {client-nodes: 1, client_nodes: 2}\n", "line 1", "given twice")
        self.assert_refused(SEVERAL.replace("duration: [10s", "rate: [10"), twice)

    def test_a_value_that_is_there_twice(self) -> None:
        self.assert_refused(
            "matrix: {rate: [50, 100, 50/s]}\n", "line 1", "same value twice: 50 and 50/s", "repeats"
        )

    def test_lists_that_move_together_have_one_length(self) -> None:
        text = "repeats: 3\nzip: {clients: [1, 2], workers: [1, 2, 3]}\n"
        self.assert_refused(text, "line 2", "clients has 2, workers has 3")

    def test_what_refers_to_no_point(self) -> None:
        matrix = "matrix: {rate: [50, 100]}\nzip: {clients: [1, 2], workers: [3, 4]}\n"
        for key, shape in (("exclude", "exclude: [{%s}]\n"), ("baseline", "baseline: {%s}\n")):
            with self.subTest(key):
                text = matrix + shape
                self.assert_refused(
                    text % "rate: 75", f"line 3: `{key}.rate` never has the value 75", "50, 100"
                )
                self.assert_refused(
                    text % "duration: 9s", f"line 3: `{key}.duration` does not vary", "rate, clients"
                )
                self.assert_refused(text % "rat: 50", f"line 3: `{key}.rat`", "'rate'")
                self.assert_refused(
                    text % "clients: 1, workers: 4", "line 3", "{clients: 1, workers: 4}", "together"
                )
                self.assert_refused(text % "", "line 3", key)

    def test_exclusions_have_to_leave_something(self) -> None:
        self.assert_refused("matrix: {rate: [1, 2]}\nexclude:\n- {rate: 1}\n- {rate: 2}\n", "leaves no point")
        text = "matrix: {rate: [1, 2]}\nexclude: [{rate: 1}]\nbaseline: {rate: 1}\n"
        self.assert_refused(text, "line 3", "`baseline` is excluded")


class Size(unittest.TestCase):
    def matrix(self, *lengths: int, more: str = "") -> str:
        keys = ("rate", "clients", "workers")
        axes = [
            f"  {key}: [{', '.join(map(str, range(1, n + 1)))}]\n"
            for key, n in zip(keys, lengths, strict=False)
        ]
        return f"matrix:\n{''.join(axes)}{more}"

    def test_a_million_points_are_counted_and_not_made(self) -> None:
        with self.assertRaisesRegex(
            UsageError, "line 1: 1,000,000 points x 5 repeats are 5,000,000 trials.* limit is 1,000"
        ):
            recipe_with(self.matrix(100, 100, 100))
        with self.assertRaisesRegex(UsageError, "1,000,000 points before exclusions"):
            recipe_with(self.matrix(100, 100, 100, more="exclude: [{rate: 1}]\n"))

    def test_a_limit_can_be_raised_and_the_refusal_says_how(self) -> None:
        text = self.matrix(20, 20, more="repeats: 3\n")
        with self.assertRaisesRegex(
            UsageError, "400 points x 3 repeats are 1,200 trials.*`limits: {trials: 1200}`"
        ):
            recipe_with(text)
        self.assertEqual(recipe_with(f"{text}limits: {{trials: 1200}}\n").limits.trials, 1200)

    def test_what_is_excluded_does_not_count(self) -> None:
        text = self.matrix(2, 2, more="repeats: 1\nlimits: {trials: 3}\n")
        with self.assertRaisesRegex(UsageError, "4 points"):
            recipe_with(text)
        self.assertEqual(len(recipe_with(f"{text}exclude: [{{rate: 2, clients: 2}}]\n").exclude), 1)


if __name__ == "__main__":
    unittest.main()

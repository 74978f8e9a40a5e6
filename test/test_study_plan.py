"""What a recipe costs at least, and the plan as text."""

import unittest
from dataclasses import replace

from test.fakes.catalog import FakeCatalog, recipe_with

from aifbench.errors import UsageError
from aifbench.repl.studies_wording import plan_text
from aifbench.studies.plan import Plan, plan

SEVERAL = """\
services:
  a: {service: store, bench: all, start: {nodes: 2}, options: {duration: 1h}}
  b: {service: model, bench: all}
together: interference
repeats: 2
matrix: {b.start.nodes: [1, 2]}
"""


def plan_of(text: str) -> Plan:
    return plan(recipe_with(text), FakeCatalog())


class Cost(unittest.TestCase):
    def test_time_under_load_and_node_hours(self) -> None:
        options = "{duration: 50s, warmup: 10s, drain: 1h, client-nodes: 3}"
        text = f"start: {{nodes: 2}}\noptions: {options}\nrepeats: 12"
        cost = plan_of(text).estimate
        self.assertEqual((cost.points, cost.trials, cost.jobs), (1, 12, 1))
        self.assertEqual((cost.load_s, cost.node_hours), (720.0, 1.0))

    def test_what_varies_counts_as_it_varies(self) -> None:
        cost = plan_of(
            "options: {warmup: 1s}\nmatrix: {duration: [9s, 19s], start.nodes: [1, 2]}\nrepeats: 1"
        ).estimate
        self.assertEqual(cost.load_s, 60.0)
        self.assertAlmostEqual(cost.node_hours, (30 * 2 + 30 * 3) / 3600)

    def test_a_service_is_started_anew_when_its_options_change(self) -> None:
        text = "matrix: {rate: [1, 2], start.nodes: [1, 2]}\nrepeats: 3\norder: "
        self.assertEqual(plan_of(text + "sequential").estimate.jobs, 2)
        self.assertEqual(plan_of(text + "interleaved").estimate.jobs, 4)

    def test_of_several_services_only_the_one_that_changes(self) -> None:
        found = plan_of(SEVERAL + "order: sequential").estimate
        self.assertEqual(found.jobs, 3)
        self.assertEqual(found.load_s, 4 * 30.0)
        self.assertAlmostEqual(found.node_hours, 60 * (2 + 1 + 1) / 3600 + 60 * (2 + 2 + 1) / 3600)

    def test_what_is_attached_costs_nothing(self) -> None:
        cost = plan_of("attach: theirs\noptions: {duration: 3600, warmup: 1ms}\nrepeats: 1").estimate
        self.assertEqual(cost.jobs, 0)
        self.assertAlmostEqual(cost.node_hours, 1.0, places=5)  # the client's node

    def test_nodes_that_a_job_has_left_again_are_those_that_make_the_load(self) -> None:
        text = "service: folder\nstart: {nodes: 4}\noptions: {duration: 50s, warmup: 10s%s}\nrepeats: 60"
        self.assertEqual(plan_of(text % "").estimate.node_hours, 4.0)
        self.assertEqual(plan_of(text % ", client-nodes: 2").estimate.node_hours, 2.0)

    def test_what_is_left_of_a_study_costs_less(self) -> None:
        from aifbench.studies.estimate import estimate

        whole = plan_of("matrix: {rate: [1, 2]}")
        left = estimate(whole.recipe, whole.points, whole.trials[:4], FakeCatalog())
        self.assertEqual((left.points, left.trials, left.load_s), (2, 4, 4 * 65.0))

    def test_the_limit(self) -> None:
        text = "options: {duration: 30m}\nrepeats: 1\nlimits: {node_hours: %s}"
        self.assertEqual([plan_of(text % limit).is_over_limit for limit in ("1", "1.1")], [True, False])
        self.assertFalse(plan_of("options: {duration: 30d}").is_over_limit)


class Text(unittest.TestCase):
    def test_a_plan_tells_services_points_baselines_and_cost(self) -> None:
        text = plan_text(plan_of("start: {nodes: 2}\nservice: store\nmatrix: {rate: [50, 100]}\nrepeats: 3"))
        self.assertEqual(
            text.splitlines(),
            [
                "s: one service, shuffled, seed 1",
                "  start store nodes=2; bench all",
                "",
                "point    settings    compared with",
                "1        rate=50",
                "2        rate=100    point 1",
                "",
                "2 points x 3 repeats = 6 trials",
                "at least 1 service job, 06:30 under load, 0.325 node-hours",
                "  starting services, preparing data and further phases come on top",
            ],
        )

    def test_several_services_and_a_limit(self) -> None:
        text = plan_text(
            plan_of(SEVERAL.replace("start: {nodes: 2}", "attach: theirs") + "limits: {node_hours: 0.001}")
        )
        self.assertIn("interference of 2 services", text)
        self.assertIn("\n  a: attached as theirs; bench all duration=1h\n  b: start model; bench all\n", text)
        self.assertIn("more than the recipe's limit of 0.001", text)

    def test_services_that_cannot_be_used_together_are_refused_before_anything_is_started(self) -> None:
        with self.assertRaises(UsageError) as caught:
            plan_of(SEVERAL.replace("{service: store, bench: all", "{service: store, bench: ingest"))
        self.assertIn("ingest cannot be repeated", str(caught.exception))

    def test_many_points_are_not_all_listed(self) -> None:
        numbers = ", ".join(map(str, range(1, 101)))
        text = plan_text(plan_of(f"matrix: {{clients: [{numbers}]}}"))
        self.assertLess(len(text.splitlines()), 60)
        self.assertIn("... and 60 more", text)
        self.assertIn("100 points x 5 repeats = 500 trials", text)

    def test_a_baseline_that_was_excluded(self) -> None:
        found = plan_of(
            "matrix: {rate: [1, 2], start.nodes: [1, 2]}\n"
            "baseline: {rate: 1}\nexclude: [{rate: 1, start.nodes: 1}]"
        )
        self.assertIn("none: it is excluded", plan_text(found))
        self.assertNotIn("excluded", plan_text(replace(found, baselines=(0, 0, 0))))


if __name__ == "__main__":
    unittest.main()

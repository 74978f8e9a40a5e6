"""Points of a recipe, what each of them sets, and what it is compared with."""

import unittest

from test.fakes.catalog import recipe_with

from aifbench.results.study import Point
from aifbench.studies.matrix import baselines, combinations, points, settings_for
from aifbench.studies.recipe import Recipe

MATRIX = """\
start: {time: 1h}
options: {duration: 20s}
matrix: {rate: [50, 100], start.nodes: [1, 2]}
zip: {clients: [1, 2], workers: [3, 4]}
"""
SEVERAL = """\
services:
  a: {service: store, bench: search, start: {time: 1h}, options: {clients: 1}}
  b: {service: model, bench: all, options: {clients: 1}}
together: interference
options: {rate: 5/s}
matrix: {a.rate: [1, 2], b.start.nodes: [3], duration: [10s]}
"""


def labels(recipe: Recipe) -> list[str]:
    return [point.label for point in points(recipe)]


class Points(unittest.TestCase):
    def test_the_product_with_what_moves_together(self) -> None:
        recipe = recipe_with(MATRIX)
        self.assertEqual(combinations(recipe.axes), 8)
        self.assertEqual(
            labels(recipe)[:3],
            [
                "rate=50 start.nodes=1 clients=1 workers=3",
                "rate=50 start.nodes=1 clients=2 workers=4",
                "rate=50 start.nodes=2 clients=1 workers=3",
            ],
        )
        self.assertEqual(len(set(labels(recipe))), 8)

    def test_exclusions(self) -> None:
        recipe = recipe_with(MATRIX + "exclude: [{rate: 100/s, start.nodes: 1}, {workers: 4}]\n")
        self.assertEqual(
            labels(recipe),
            [
                "rate=50 start.nodes=1 clients=1 workers=3",
                "rate=50 start.nodes=2 clients=1 workers=3",
                "rate=100 start.nodes=2 clients=1 workers=3",
            ],
        )

    def test_without_axes_there_is_one_point(self) -> None:
        self.assertEqual(points(recipe_with("repeats: 3")), (Point({}, "only"),))

    def test_flags_and_hyphens(self) -> None:
        recipe = recipe_with("matrix: {cold: [no, yes], client-nodes: [1]}")
        self.assertEqual(labels(recipe), ["cold=false client_nodes=1", "cold=true client_nodes=1"])
        self.assertEqual(points(recipe)[1].settings, {"cold": True, "client_nodes": "1"})


class Settings(unittest.TestCase):
    def test_a_point_adds_to_what_does_not_vary(self) -> None:
        recipe = recipe_with(MATRIX)
        settings = settings_for(recipe, points(recipe)[-1])
        (member,) = settings.members
        self.assertEqual(member.start, {"time": "1h", "nodes": "2"})
        self.assertEqual(member.options, {"duration": "20s", "rate": "100", "clients": "2", "workers": "4"})
        self.assertEqual(settings.options, {})
        self.assertEqual(recipe.members[0].start, {"time": "1h"})

    def test_several_services(self) -> None:
        recipe = recipe_with(SEVERAL)
        settings = settings_for(recipe, points(recipe)[1])
        self.assertEqual(points(recipe)[1].label, "a.rate=2 b.start.nodes=3 duration=10s")
        self.assertEqual(
            [(member.role, member.start, member.options) for member in settings.members],
            [("a", {"time": "1h"}, {"clients": "1", "rate": "2"}), ("b", {"nodes": "3"}, {"clients": "1"})],
        )
        self.assertEqual(settings.options, {"rate": "5/s", "duration": "10s"})


class Baselines(unittest.TestCase):
    def compared(self, more: str) -> dict[str, str]:
        """Label of each point, and of what it is compared with."""
        recipe = recipe_with("matrix: {rate: [50, 100], start.nodes: [1, 2]}\n" + more)
        found = points(recipe)
        return {
            point.label: "" if index is None else found[index].label
            for point, index in zip(found, baselines(recipe, found), strict=True)
        }

    def test_the_first_point_unless_said_otherwise(self) -> None:
        self.assertEqual(set(self.compared("").values()), {"rate=50 start.nodes=1"})

    def test_points_that_differ_in_the_baseline_only(self) -> None:
        self.assertEqual(
            self.compared("baseline: {rate: 100}"),
            {
                "rate=50 start.nodes=1": "rate=100 start.nodes=1",
                "rate=50 start.nodes=2": "rate=100 start.nodes=2",
                "rate=100 start.nodes=1": "rate=100 start.nodes=1",
                "rate=100 start.nodes=2": "rate=100 start.nodes=2",
            },
        )

    def test_one_point_for_all(self) -> None:
        compared = self.compared("baseline: {rate: 100, start.nodes: 2}")
        self.assertEqual(set(compared.values()), {"rate=100 start.nodes=2"})

    def test_one_that_was_excluded(self) -> None:
        compared = self.compared("baseline: {rate: 100}\nexclude: [{rate: 100, start.nodes: 1}]")
        self.assertEqual(compared["rate=50 start.nodes=1"], "")
        self.assertEqual(compared["rate=50 start.nodes=2"], "rate=100 start.nodes=2")

    def test_what_moves_together_is_replaced_together(self) -> None:
        recipe = recipe_with(
            "zip: {clients: [1, 2], workers: [3, 4]}\nmatrix: {rate: [5, 6]}\nbaseline: {clients: 1}"
        )
        self.assertEqual(baselines(recipe, points(recipe)), (0, 0, 2, 2))


if __name__ == "__main__":
    unittest.main()

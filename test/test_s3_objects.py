"""Objects: sizes as asked for, content unique, incompressible and the same everywhere."""

import hashlib
import unittest
import zlib

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.errors import UsageError
from aifbench.workloads import s3_objects
from aifbench.workloads.s3_objects import (
    ObjectSet,
    Rounds,
    bucket_label,
    default_count,
    parse_sizes,
)

_LARGEST = 1 - 2**-53  # the largest random number below 1


class SizesAsTyped(unittest.TestCase):
    def test_quantities(self) -> None:
        for text, size in (
            ("4096", 4096),
            ("4KiB", 4096),
            ("150KB", 150_000),
            ("1.5 MiB", 1_572_864),
            ("0", 0),
        ):
            self.assertEqual(parse_sizes(text).at(0.5), size)

    def test_bad_ones_are_named_with_what_would_be_valid(self) -> None:
        bad = (
            *(
                "",
                "big",
                "-1",
                "4 parsecs",
                "nan",
                "99TB",
                "4KiB:x,1MiB:2",
                "4KiB:-1,1MiB:1",
                "4KiB:0",
            ),
            *(
                "lognormal:1MiB",
                "lognormal:1MiB:x",
                "lognormal:1MiB:9",
                "lognormal:0:1",
                "loguniform:5MB:1MB",
            ),
            *("checkpoints", ":", ",", "lognormal:"),
        )
        for text in bad:
            with self.assertRaises(UsageError, msg=text) as caught:
                parse_sizes(text)
            self.assertTrue(caught.exception.hint, text)

    def test_fixed_weighted_and_spread(self) -> None:
        self.assertEqual({parse_sizes("4KiB").at(u / 10) for u in range(10)}, {4096})
        weighted = parse_sizes("4KiB:80,1MiB:20")
        self.assertEqual([weighted.at(u) for u in (0, 0.79, 0.81, 0.999)], [4096, 4096, 2**20, 2**20])
        self.assertAlmostEqual(weighted.mean_bytes, 0.8 * 4096 + 0.2 * 2**20)
        normal = parse_sizes("lognormal:1MiB:1")
        self.assertEqual(normal.at(0.5), 2**20)
        self.assertAlmostEqual(normal.at(0.8413) / 2**20, 2.718, delta=0.01)
        self.assertLessEqual(normal.at(_LARGEST), 100 * 2**20)

    def test_the_shapes_of_real_programs(self) -> None:
        self.assertEqual(parse_sizes("loader-small").at(0.3), 150_000)
        shards = parse_sizes("checkpoint")
        self.assertEqual((shards.at(0), shards.at(_LARGEST)), (100_000_000, 5_000_000_000))

    def test_a_data_set_of_a_sensible_size(self) -> None:
        self.assertEqual(default_count(parse_sizes("4KiB"), 2**30), 1000)
        self.assertEqual(default_count(parse_sizes("16MiB"), 2**30), 64)
        self.assertEqual(default_count(parse_sizes("5GB"), 2**30), 16)


class Contents(unittest.TestCase):
    def setUp(self) -> None:
        self.objects = ObjectSet("lognormal:20KiB:1", seed=7)

    def test_made_again_it_is_the_same(self) -> None:
        again = ObjectSet.from_json(self.objects.to_json())
        s3_objects.pool.cache_clear()
        for number in (0, 1, 999):
            self.assertEqual(again.size(number), self.objects.size(number))
            self.assertEqual(again.digest(number), self.objects.digest(number))

    def test_size_and_checksum_are_those_of_the_body(self) -> None:
        for number in range(20):
            body = self.objects.body(number)
            self.assertEqual(len(body), self.objects.size(number))
            self.assertEqual(self.objects.digest(number, "sha256"), hashlib.sha256(body).hexdigest())

    def test_no_two_objects_share_a_block_and_none_shrinks(self) -> None:
        objects = ObjectSet("64KiB", seed=1)
        seen: set[bytes] = set()
        for number in range(50):
            body = objects.body(number)
            blocks = {body[at : at + 4096] for at in range(0, len(body), 4096)}
            self.assertEqual((len(blocks), seen & blocks), (16, set()))
            seen |= blocks
        self.assertGreater(len(zlib.compress(objects.body(3))), 64 * 1024)

    def test_other_seeds_and_prefixes_have_other_content(self) -> None:
        bodies = {ObjectSet("1KiB", s, p).body(0) for s in (1, 2) for p in ("a/", "b/")}
        self.assertEqual(len(bodies), 4)

    def test_empty_and_tiny_objects(self) -> None:
        for size in (0, 1, 63, 64, 65):
            self.assertEqual(len(ObjectSet(str(size), 1).body(5)), size)

    def test_any_range_is_a_part_of_the_whole_across_pieces_too(self) -> None:
        objects = ObjectSet("40MiB", seed=3)
        whole = objects.body(2)
        self.assertEqual(len(whole), 40 * 2**20)
        edge = s3_objects.POOL_BYTES // 2
        for start, stop in ((0, 10), (60, 70), (edge - 5, edge + 100), (edge - 5, 2 * edge + 5), (1, 1)):
            self.assertEqual(objects.body(2, start, stop), whole[start:stop])
        self.assertNotEqual(whole[:edge], whole[edge : 2 * edge])

    def test_keys_without_folders(self) -> None:
        flat = ObjectSet("1", 1, "up-", is_flat=True)
        self.assertEqual((flat.key(7), flat.number("up-000000007")), ("up-000000007", 7))

    def test_keys_and_numbers(self) -> None:
        self.assertEqual(self.objects.key(258), "data-02/000000258")
        self.assertEqual(self.objects.number("data-02/000000258"), 258)
        for foreign in ("data-03/000000258", "other-02/000000258", "", "data-02/00000025x"):
            with self.assertRaises(ValueError):
                self.objects.number(foreign)


class Order(unittest.TestCase):
    def test_each_is_visited_once_a_round(self) -> None:
        for count in (1, 2, 6, 10, 997, 1000):
            rounds = Rounds(count, seed=3)
            self.assertEqual({rounds[i] for i in range(count)}, set(range(count)))
            self.assertEqual(rounds[0], rounds[count])

    def test_labels_by_size(self) -> None:
        self.assertEqual(
            [bucket_label(s) for s in (0, 4096, 4097, 2**20, 5 * 10**9)],
            ["<=4 KiB", "<=4 KiB", "<=16 KiB", "<=1 MiB", "<=16 GiB"],
        )


if __name__ == "__main__":
    unittest.main()

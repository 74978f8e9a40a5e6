"""Generated data, exact answers and recall, against plain numpy."""

import json
import resource
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from test import fakes  # noqa: F401

from aifbench.errors import BenchError, UsageError, WorkloadError
from aifbench.workloads import ground_truth, synthetic
from aifbench.workloads.datasets import DatasetSpec, Filter, load_dataset
from aifbench.workloads.preparation import prepare_dataset


def brute_force(metric: str, query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    q, v = query.astype(float), vectors.astype(float)
    if metric == "l2":
        return np.array([np.sum((q - row) ** 2) for row in v])
    if metric == "ip":
        return np.array([1 - np.dot(q, row) for row in v])
    return np.array([1 - np.dot(q, row) / np.linalg.norm(q) / np.linalg.norm(row) for row in v])


class Generator(unittest.TestCase):
    def test_a_block_alone_is_the_block_in_sequence(self) -> None:
        rows = synthetic.BLOCK_ROWS + 100
        blocks = list(synthetic.clustered_source(7, 16).vectors(rows))
        self.assertEqual([len(b.vectors) for b in blocks], [synthetic.BLOCK_ROWS, 100])
        alone = synthetic.clustered_source(7, 16).block(1)
        np.testing.assert_array_equal(alone.vectors[:100], blocks[1].vectors)
        np.testing.assert_array_equal(alone.clusters[:100], blocks[1].clusters)

    def test_seeds_streams_and_blocks_differ(self) -> None:
        source = synthetic.clustered_source(7, 16)
        first = source.block(0).vectors
        for other in (
            source.block(1).vectors,
            synthetic.clustered_source(8, 16).block(0).vectors,
            next(source.queries(synthetic.BLOCK_ROWS)).vectors,
        ):
            self.assertFalse(np.array_equal(first, other))

    def test_unit_float32_vectors_of_any_dimension(self) -> None:
        for shape in synthetic.SHAPES:
            for dim in (1, 3, 24, 130):
                vectors = synthetic.make_source(shape, 1, dim).block(0).vectors
                self.assertEqual((vectors.dtype, vectors.shape[1]), (np.float32, dim))
                np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)

    def test_cluster_weights_follow_zipf(self) -> None:
        counts = np.bincount(synthetic.clustered_source(1, 8).block(0).clusters, minlength=64)
        weights = np.arange(1, 65) ** -1.1
        expected = weights / weights.sum() * synthetic.BLOCK_ROWS
        self.assertTrue((np.abs(counts - expected) < 6 * np.sqrt(expected)).all())

    def test_clustered_data_has_the_dimension_of_real_embeddings_and_uniform_has_not(self) -> None:
        lids = {}
        for shape in synthetic.SHAPES:
            source = synthetic.make_source(shape, 3, 128)
            vectors = source.block(0).vectors
            lids[shape] = ground_truth.local_intrinsic_dimension(next(source.queries(100)).vectors, vectors)
        self.assertTrue(8 < lids["clustered"] < 25, lids)
        self.assertGreater(lids["uniform"], 2 * lids["clustered"])

    def test_lid_of_a_known_shape(self) -> None:
        # Uniform in a d-dimensional cube embedded in 20 dimensions: the estimate is near d.
        random = np.random.default_rng(1)
        for dim in (2, 5):
            vectors = np.zeros((20_000, 20), np.float32)
            vectors[:, :dim] = random.random((20_000, dim))
            queries = np.full((50, 20), 0.0, np.float32)
            queries[:, :dim] = 0.3 + 0.4 * random.random((50, dim))
            self.assertAlmostEqual(
                ground_truth.local_intrinsic_dimension(queries, vectors), dim, delta=0.2 * dim
            )

    def test_lid_ignores_copies_of_the_query(self) -> None:
        vectors = np.random.default_rng(2).random((500, 4)).astype(np.float32)
        self.assertTrue(np.isnan(ground_truth.local_intrinsic_dimension(vectors[:5], vectors)))


class Exact(unittest.TestCase):
    def setUp(self) -> None:
        random = np.random.default_rng(5)
        self.vectors = random.standard_normal((700, 12)).astype(np.float32)
        self.queries = random.standard_normal((9, 12)).astype(np.float32)

    def test_neighbors_and_distances_equal_brute_force(self) -> None:
        mask = np.arange(700) % 7 == 0
        for metric in ground_truth.METRICS:
            for rows in (None, mask):
                ids, near = ground_truth.exact_neighbors(self.queries, self.vectors, 10, metric, rows)
                for query, found, distance in zip(self.queries, ids, near, strict=True):
                    all_distances = brute_force(metric, query, self.vectors)
                    if rows is not None:
                        all_distances[~mask] = np.inf
                    expected = np.argsort(all_distances, kind="stable")[:10]
                    np.testing.assert_array_equal(found, expected)
                    np.testing.assert_allclose(distance, all_distances[expected], rtol=1e-9)

    def test_blocks_are_merged(self) -> None:
        rows = 65_536 + 300
        vectors = np.random.default_rng(6).random((rows, 2)).astype(np.float32)
        vectors[[0, 65_530, 65_536, rows - 1]] = 5  # the nearest lie on both sides of the block border
        ids, near = ground_truth.exact_neighbors(np.full((1, 2), 5, np.float32), vectors, 4, "l2")
        self.assertEqual(ids.tolist(), [[0, 65_530, 65_536, rows - 1]])
        self.assertEqual(near.tolist(), [[0.0] * 4])

    def test_equal_distances_are_ordered_by_row(self) -> None:
        vectors = np.ones((20, 3), np.float32)
        ids, _ = ground_truth.exact_neighbors(np.zeros((1, 3), np.float32), vectors, 20, "l2")
        self.assertEqual(ids.tolist(), [list(range(20))])

    def test_more_neighbors_than_vectors_is_refused(self) -> None:
        for k in (0, 701):
            with self.assertRaises(UsageError):
                ground_truth.exact_neighbors(self.queries, self.vectors, k, "l2")
        with self.assertRaises(UsageError):
            ground_truth.exact_neighbors(self.queries, self.vectors, 5, "manhattan")


class Recall(unittest.TestCase):
    def test_repeated_ids_count_once(self) -> None:
        near = np.array([[0.1, 0.2, 0.3, 0.4]])
        returned, their = np.array([[1, 1, 1, 2]]), np.array([[0.1, 0.1, 0.1, 0.2]])
        self.assertEqual(ground_truth.recall_tie_aware(returned, their, near).tolist(), [0.5])

    def test_ties_count(self) -> None:
        near = np.array([[0.0, 0.5]])
        returned = np.array([[1, 9]])
        for distance, expected in ((0.5, 1.0), (0.5 + 1e-7, 1.0), (0.51, 0.5)):
            got = ground_truth.recall_tie_aware(returned, np.array([[0.0, distance]]), near)
            self.assertEqual(got.tolist(), [expected])

    def test_zero_and_negative_distances_can_tie(self) -> None:
        for kth in (0.0, -3.0):
            self.assertGreater(ground_truth.tie_limit(kth), kth)
            self.assertLess(ground_truth.tie_limit(kth), kth + 1e-3)


class Prepared(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.directory = Path(folder.name)

    def prepare(self, **spec: object) -> Path:
        small = {"vectors": 600, "dim": 16, "queries": 20, "k": 5}
        return prepare_dataset(DatasetSpec(**{**small, **spec}), self.directory)

    def test_what_is_written_is_what_is_loaded(self) -> None:
        data = load_dataset(self.prepare(seed=4))
        self.assertEqual((data.vectors.shape, data.queries.shape), ((600, 16), (20, 16)))
        self.assertEqual((data.metric, data.base, data.seed, data.k, data.dim), ("l2", 600, 4, 5, 16))
        expected, near = ground_truth.exact_neighbors(data.queries, data.vectors, 5, "l2")
        np.testing.assert_array_equal(data.neighbors, expected)
        np.testing.assert_array_equal(data.distances, near)
        self.assertEqual(json.loads(json.dumps(data.describe()))["sha256"], data.sha256)
        self.assertEqual(len(data.sha256), 64)

    def test_the_same_request_is_prepared_once_and_others_apart(self) -> None:
        path = self.prepare()
        stamp = (path / "vectors.npy").stat().st_mtime_ns
        self.assertEqual(self.prepare(), path)
        self.assertEqual((path / "vectors.npy").stat().st_mtime_ns, stamp)
        self.assertNotEqual(self.prepare(seed=9), path)
        self.assertEqual([p for p in self.directory.iterdir() if p.name.startswith(".")], [])

    def test_a_larger_set_begins_with_the_smaller_one(self) -> None:
        small, large = load_dataset(self.prepare()), load_dataset(self.prepare(vectors=900))
        np.testing.assert_array_equal(small.vectors, large.vectors[:600])
        np.testing.assert_array_equal(small.queries, large.queries)
        self.assertNotEqual(small.sha256, large.sha256)

    def test_neighbors_are_among_base_and_pass_the_filter(self) -> None:
        data = load_dataset(self.prepare(base=400, filter=Filter("bucket", 10)))
        self.assertEqual(data.base, 400)
        self.assertLess(data.neighbors.max(), 400)
        self.assertTrue((data.neighbors % 100 < 10).all())
        self.assertEqual(data.matches(np.array([3, 10, 109])).tolist(), [True, False, True])
        self.assertEqual(data.filter, Filter("bucket", 10))

    def test_cluster_filter(self) -> None:
        data = load_dataset(self.prepare(filter=Filter("cluster", 2)))
        self.assertTrue((data.clusters[data.neighbors] < 2).all())
        self.assertEqual(data.attributes(107), {"bucket": 7, "cluster": int(data.clusters[107])})

    def test_impossible_requests_name_the_value_and_leave_nothing(self) -> None:
        cases = (
            ({"vectors": 0}, "vectors is 0"),
            ({"k": -1}, "k is -1"),
            ({"k": 601}, "601 neighbours of 600"),
            ({"base": 601}, "base is 601 of 600"),
            ({"metric": "hamming"}, "'hamming'"),
            ({"shape": "round"}, "'round'"),
            ({"seed": -1}, "seed is -1"),
            ({"folder": "/nowhere/at/all"}, "/nowhere/at/all"),
        )
        for spec, text in cases:
            with self.subTest(spec), self.assertRaises(BenchError) as caught:
                self.prepare(**spec)
            self.assertIn(text, str(caught.exception))
        self.assertEqual(list(self.directory.iterdir()), [])

    def test_bad_filters_are_refused(self) -> None:
        for column, below in (("colour", 1), ("bucket", 0), ("bucket", 101), ("cluster", 65)):
            with self.subTest(column=column, below=below), self.assertRaises(UsageError):
                Filter(column, below)
        with self.assertRaises(UsageError) as caught:
            self.prepare(k=5, vectors=100, filter=Filter("bucket", 4))
        self.assertIn("only 4 vectors pass", str(caught.exception))

    def test_a_full_or_unusable_disk_is_an_error_and_leaves_nothing(self) -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, limits)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
        with self.assertRaises(WorkloadError) as caught:
            self.prepare()
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        self.assertIn(str(self.directory), str(caught.exception))
        self.assertEqual(list(self.directory.iterdir()), [])
        file = self.directory / "file"
        file.touch()
        with self.assertRaises(WorkloadError):
            prepare_dataset(DatasetSpec(vectors=10, k=1), file)

    def test_preparing_the_same_set_several_times_at_once(self) -> None:
        with ThreadPoolExecutor(4) as pool:
            paths = list(pool.map(lambda _: self.prepare(vectors=3000), range(4)))
        self.assertEqual(len(set(paths)), 1)
        self.assertEqual([path.name for path in self.directory.iterdir()], [paths[0].name])
        self.assertEqual(len(load_dataset(paths[0]).vectors), 3000)

    def test_damaged_preparations_are_named(self) -> None:
        path = self.prepare()
        (path / "neighbors.npy").write_bytes(b"\x93NUMPY")
        with self.assertRaises(WorkloadError) as caught:
            load_dataset(path)
        self.assertIn(str(path), str(caught.exception))
        with self.assertRaises(WorkloadError):
            load_dataset(self.directory / "missing")


if __name__ == "__main__":
    unittest.main()

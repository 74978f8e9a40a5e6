"""Vectors on their way into and out of PostgreSQL; without a server."""

import struct
import unittest

import numpy as np
from test import fakes  # noqa: F401 - puts src on the path

from aifbench.errors import UsageError
from aifbench.workloads import pgvector
from aifbench.workloads.datasets import Filter


class Encoding(unittest.TestCase):
    def test_a_vector_as_the_extension_reads_it(self) -> None:
        data = pgvector.encode_vector(np.array([1.5, -2], np.float32))
        self.assertEqual((2, 0, 1.5, -2.0), struct.unpack("!HHff", data))

    def test_rows_as_copy_reads_them(self) -> None:
        vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
        data = pgvector.encode_rows(range(101, 103), vectors, np.array([3, 9], np.uint8))
        self.assertTrue(data.startswith(b"PGCOPY\n\xff\r\n\0") and data.endswith(b"\xff\xff"))
        row = struct.unpack("!hiqihihi", data[19 : 19 + 30])[:7]
        self.assertEqual((4, 8, 101, 2, 1, 2, 3), row)
        self.assertEqual((3.0, 4.0, 5.0), struct.unpack("!fff", data[-14:-2]))

    def test_the_query_is_one_that_an_index_serves(self) -> None:
        text = pgvector.search_query("s", "cosine", 5, Filter("bucket", 10)).as_string()
        wanted = 'SELECT id FROM "s"."vectors" WHERE "bucket" < 10 ORDER BY embedding <=> $1 LIMIT 5'
        self.assertEqual(wanted, " ".join(text.split()))

    def test_search_settings(self) -> None:
        self.assertEqual({"hnsw.ef_search": "80"}, pgvector.search_settings("hnsw", {"ef_search": 80}))
        with self.assertRaisesRegex(UsageError, "probes"):
            pgvector.search_settings("hnsw", {"probes": 3})


if __name__ == "__main__":
    unittest.main()

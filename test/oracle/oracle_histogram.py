"""The histogram against HdrHistogram itself."""

import io
import unittest

import numpy as np
from hdrh.histogram import HdrHistogram
from test.test_histogram import latencies_ns

from aifbench.stats.histogram import Histogram


def hdr(values: np.ndarray) -> HdrHistogram:
    histogram = HdrHistogram(1, 3_600_000_000_000, 3)
    for value in values:
        histogram.record_value(int(value))
    return histogram


class HistogramTest(unittest.TestCase):
    def test_identical_to_hdrhistogram_at_three_digits(self) -> None:
        values = latencies_ns(10_000)
        ours, theirs = Histogram.of(values), hdr(values)
        for q in (0.5, 0.9, 0.99, 0.999, 0.9999):
            self.assertEqual(theirs.get_value_at_percentile(100 * q), ours.quantile(q))

    def test_rows_and_totals_as_hdrhistogram_writes_them(self) -> None:
        values = latencies_ns(3_000)
        out = io.BytesIO()
        hdr(values).output_percentile_distribution(out, 1e6)
        theirs, ours = out.getvalue().decode().splitlines(), Histogram.of(values).to_hgrm().splitlines()
        self.assertEqual(theirs[:-3], ours[:-3])
        self.assertEqual(theirs[-3].split(",")[0], ours[-3].split(",")[0])
        self.assertEqual(theirs[-2].split(",")[0], ours[-2].split(",")[0])


if __name__ == "__main__":
    unittest.main()

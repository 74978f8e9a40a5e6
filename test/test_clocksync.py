"""How far two clocks are apart: the best of many questions, and its error bound."""

import itertools
import socket
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.load.clocksync import TimeServer, boot_id, measure_offset

MS = 1_000_000


class Offsets(unittest.TestCase):
    def serve(self, wall_ns: Callable[[], int] = time.time_ns) -> int:
        server = TimeServer(wall_ns)
        self.addCleanup(server.close)
        return server.port

    def test_a_clock_that_is_ahead_is_found_within_the_error(self) -> None:
        port = self.serve()
        offset = measure_offset("127.0.0.1", port, lambda: time.time_ns() + 5_000 * MS)
        self.assertLessEqual(abs(offset.offset_s - 5.0), offset.error_s)
        self.assertGreater(offset.error_s, 0.0)

    def test_a_clock_that_is_behind_has_a_negative_offset(self) -> None:
        port = self.serve(lambda: time.time_ns() + 2_000 * MS)
        offset = measure_offset("127.0.0.1", port)
        self.assertLessEqual(abs(offset.offset_s + 2.0), offset.error_s)

    def test_the_shortest_exchange_decides(self) -> None:
        # Asked at 0, 1000, 2000 ms ...; each answer comes 100 ms later, but the seventh after 2 ms.
        round_trips_ms = [100] * 6 + [2] + [100] * 100
        stamps = itertools.chain.from_iterable(
            (1000 * n * MS, (1000 * n + trip) * MS) for n, trip in enumerate(round_trips_ms)
        )
        offset = measure_offset("127.0.0.1", self.serve(lambda: 5_000 * MS), lambda: next(stamps))
        self.assertAlmostEqual(offset.offset_s, 6.001 - 5.0)
        self.assertAlmostEqual(offset.error_s, 0.001)

    def test_several_machines_may_ask_at_once(self) -> None:
        port = self.serve()
        found = []
        threads = [
            threading.Thread(target=lambda: found.append(measure_offset("127.0.0.1", port))) for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(found), 5)

    def test_a_server_that_goes_away_is_an_error(self) -> None:
        def hang_up() -> None:
            listener.accept()[0].close()

        with socket.create_server(("127.0.0.1", 0)) as listener:
            threading.Thread(target=hang_up).start()
            with self.assertRaises(OSError):
                measure_offset(*listener.getsockname())

    def test_a_closed_server_cannot_be_asked(self) -> None:
        server = TimeServer()
        server.close()
        with self.assertRaises(OSError):
            measure_offset("127.0.0.1", server.port)


class Kernels(unittest.TestCase):
    def test_processes_of_one_machine_see_the_same_name(self) -> None:
        path = Path("/proc/sys/kernel/random/boot_id")
        self.assertEqual(boot_id(), path.read_text().strip() if path.exists() else "")


if __name__ == "__main__":
    unittest.main()

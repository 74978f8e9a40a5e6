"""The stored state of services: private, whole, and safe with other shells at it."""

import json
import stat
import threading
import unittest
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.errors import ConfigError
from aifbench.servers.instance import KEEP_ENDED, Instance, InstanceStore, new_job_name, write_secret


class StoreCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name) / "services"
        self.store = InstanceStore(self.dir)

    def add(self, name: str = "chroma", **changes: Any) -> Instance:
        instance = Instance("chroma", name, new_job_name("chroma", name), {"nodes": 1}, "2026-11-20", 5.0)
        instance = replace(instance, **changes)
        self.store.make_directory(instance)
        self.store.write(instance)
        return instance

    def names(self) -> list[str]:
        return [instance.name for instance in self.store.all()]


class Storing(StoreCase):
    def test_what_was_written_is_read(self) -> None:
        instance = self.add(command=("sbatch", "x"), endpoint={"host": "10.0.0.1"}, ready_after_s=1.5)
        self.assertEqual(self.store.all(), [instance])

    def test_nothing_is_made_by_looking(self) -> None:
        self.assertEqual(self.store.all(), [])
        self.assertFalse(self.dir.exists())

    def test_what_cannot_be_read_is_left_alone_and_hides_nothing(self) -> None:
        good = self.add("good")
        data = json.loads((self.store.path(good) / "service.json").read_text())
        damaged: list[Any] = [
            *(b"", b'{"schema": ', b"\xff\xfe\x00", b"[]", b'"text"', b"null", b"7", b"[" * 100_000),
            {**data, "schema": "aifbench.service/2"},
            {**data, "name": None},
            {**data, "submitted_wall_s": "soon"},
            {**data, "from_the_future": 1},
            {key: value for key, value in data.items() if key != "kind"},
            # A name decides which directories are removed at the end: it must be the directory's own.
            {**data, "job_name": "../../precious"},
            data,
        ]
        for number, content in enumerate(damaged):
            place = self.dir / f"damaged-{number}"
            place.mkdir()
            text = content if isinstance(content, bytes) else json.dumps(content).encode()
            (place / "service.json").write_bytes(text)
        self.assertEqual(self.names(), ["good"])
        self.assertEqual(len(list(self.dir.glob("damaged-*/service.json"))), len(damaged))

    def test_the_open_one_comes_last_whatever_the_wall_clock_did(self) -> None:
        self.add("ended-later", submitted_wall_s=900.0, seen_end="FAILED")
        self.add("open", submitted_wall_s=100.0)
        self.add("ended", submitted_wall_s=50.0, seen_end="COMPLETED")
        self.assertEqual(self.names(), ["ended", "ended-later", "open"])
        self.assertEqual([found.name for found in self.store.open_instances()], ["open"])
        self.assertEqual(self.store.open_instances("ended"), [])

    def test_an_update_keeps_what_another_shell_has_noted(self) -> None:
        mine = self.add()
        self.store.update(mine, stopped=True)
        changed = self.store.update(mine, ready_after_s=2.0)
        self.assertEqual((changed.stopped, changed.ready_after_s), (True, 2.0))
        self.assertEqual(self.store.all(), [changed])

    def test_updates_at_once_are_all_kept(self) -> None:
        instance = self.add(options={})
        fields = ("job_id", "version", "end_detail", "end_advice", "seen_end", "script_sha256")

        def update(field: str) -> None:
            InstanceStore(self.dir).update(instance, **{field: "set"})

        threads = [threading.Thread(target=update, args=(field,)) for field in fields]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([getattr(self.store.all()[0], field) for field in fields], ["set"] * len(fields))

    def test_an_update_mends_a_torn_state(self) -> None:
        instance = self.add()
        (self.store.path(instance) / "service.json").write_bytes(b"{")
        self.store.update(instance, job_id="7")
        self.assertEqual(self.store.all(), [replace(instance, job_id="7")])


class Pruning(StoreCase):
    def test_the_oldest_ended_services_go_and_the_open_ones_stay(self) -> None:
        self.add("open", submitted_wall_s=-1.0)
        for number in range(KEEP_ENDED + 3):
            self.add(f"s{number}", submitted_wall_s=float(number), seen_end="COMPLETED")
        self.store.prune()
        self.assertEqual(self.names(), [*(f"s{number}" for number in range(3, KEEP_ENDED + 3)), "open"])

    def test_few_are_kept_all(self) -> None:
        self.add(seen_end="COMPLETED")
        self.store.prune()
        self.assertEqual(self.names(), ["chroma"])


class Privacy(StoreCase):
    def test_directory_and_secret_are_their_owners_alone(self) -> None:
        path = self.store.path(self.add())
        write_secret(path / "secret")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o700)
        self.assertEqual(stat.S_IMODE((path / "secret").stat().st_mode), 0o600)

    def test_secrets_are_long_and_never_the_same(self) -> None:
        self.dir.mkdir()
        for name in ("a", "b"):
            write_secret(self.dir / name)
        first, second = ((self.dir / name).read_text().strip() for name in ("a", "b"))
        self.assertNotEqual(first, second)
        self.assertGreaterEqual(len(first), 40)

    def test_a_secret_is_never_written_into_a_file_that_somebody_prepared(self) -> None:
        self.dir.mkdir()
        (self.dir / "secret").touch(mode=0o666)
        with self.assertRaises(FileExistsError):
            write_secret(self.dir / "secret")


class FullDisk(StoreCase):
    """A file in place of a directory refuses every write, of root too."""

    def test_each_write_says_which_place_and_what_to_do(self) -> None:
        instance = self.add()
        self.store.remove(instance)
        self.store.path(instance).touch()
        for action in (self.store.write, self.store.make_directory, self.store.update):
            with self.assertRaises(ConfigError) as caught:
                action(instance)
            self.assertIn(instance.job_name, caught.exception.message)
            self.assertIn("AIFBENCH_RESULTS", caught.exception.hint)

    def test_so_does_taking_the_lock(self) -> None:
        self.dir.parent.joinpath("services").touch()
        with self.assertRaisesRegex(ConfigError, "cannot write in .*services"), self.store.lock():
            pass


class JobNames(unittest.TestCase):
    def test_each_is_new_and_tells_the_service(self) -> None:
        self.assertRegex(new_job_name("chroma", "chroma"), r"^aifb-chroma-[0-9a-f]{6}$")
        self.assertRegex(new_job_name("chroma", "b"), r"^aifb-chroma-b-[0-9a-f]{6}$")
        self.assertNotEqual(new_job_name("chroma", "b"), new_job_name("chroma", "b"))


if __name__ == "__main__":
    unittest.main()

"""Services that somebody else started: attached by their address, used from any shell, and forgotten."""

import os
import stat
import unittest
import unittest.mock
import zipfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

from test.fakes.openai_server import COMPLETIONS, FakeOpenAI
from test.fakes.records import sample_record
from test.fakes.site import SHELL, SiteCase
from test.fakes.tls import CA_FILE

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import ServiceError, UnknownService, UsageError
from aifbench.options import Option
from aifbench.servers import registry
from aifbench.servers.base import Probe, SlurmServer
from aifbench.servers.benchmark import Benchmark, BenchmarkContext
from aifbench.servers.status import ServiceStatus, Stage
from aifbench.session import Session
from aifbench.workloads.openai_control import API_ROOT, OpenAIControl

KEY = "sk-12345"


class OpenAIService(SlurmServer):
    """Any OpenAI-compatible server; with `--model`, it must serve that one."""

    kind = "llm"
    description = "generates"
    script = "start_chroma.sh"
    benches = ("all",)
    attachable = True
    attach_suffix = API_ROOT
    attach_options: ClassVar[tuple[Option, ...]] = (Option("model", "model to use", default=""),)

    def probe(self, endpoint: Endpoint) -> Probe:
        return self._try(endpoint, generate=False)

    def prove(self, endpoint: Endpoint) -> Probe:
        return self._try(endpoint, generate=True)

    def _try(self, endpoint: Endpoint, *, generate: bool) -> Probe:
        try:
            with closing(OpenAIControl(endpoint, timeout_s=2.0)) as control:
                model, _ = control.resolve_model(self.instance.options.get("model", ""))
                if not generate:
                    return Probe(is_ready=True)
                control.generate_once(model.id)
                return Probe(is_ready=True, version=control.version())
        except ServiceError as error:
            return Probe(is_ready=False, detail=error.message)

    def benchmark(self, bench: str, options: Mapping[str, Any], context: BenchmarkContext) -> Benchmark:
        raise NotImplementedError


class AttachedCase(SiteCase):
    def setUp(self) -> None:
        super().setUp()
        kinds = {"llm": f"{__name__}:OpenAIService"}
        patch = unittest.mock.patch.dict(registry._CLASSES, kinds)
        patch.start()
        self.addCleanup(patch.stop)
        # On a compute node, where 127.0.0.1 is this very machine.
        self.session = self.open()

    def open(self, **environ: str) -> Session:
        return Session(
            self.config,
            scheduler=self.scheduler(),
            clock=self.clock,
            environ={**SHELL, "SLURM_JOB_ID": "1", **environ},
        )

    def serve(self, **manners: Any) -> FakeOpenAI:
        fake = FakeOpenAI(**manners)
        fake.__enter__()
        self.addCleanup(fake.__exit__, None, None, None)
        return fake

    def attach(self, fake: FakeOpenAI, session: Session | None = None, **options: Any) -> ServiceStatus:
        return (session or self.session).attach("llm", fake.url, options)

    def refused(self, error: type[Exception], url: str, *words: str, **options: Any) -> str:
        """The text of the refusal, after which nothing is kept."""
        with self.assertRaises(error) as caught:
            self.session.attach("llm", url, options)
        for word in words:
            self.assertIn(word, str(caught.exception))
        self.assertEqual(self.session.instances(), [])
        self.assertEqual([path for path in self.config.services_dir.glob("*") if path.is_dir()], [])
        return str(caught.exception)

    def key_file(self, content: str = f"{KEY}\n", mode: int = 0o600) -> Path:
        path = self.dir / "key"
        path.write_text(content)
        path.chmod(mode)
        return path

    def stored_text(self) -> str:
        return "".join(path.read_text() for path in self.config.services_dir.glob("*/service.json"))


class Life(AttachedCase):
    def test_seen_from_every_shell_and_forgotten_without_touching_it(self) -> None:
        fake = self.serve()
        status = self.attach(fake)
        self.assertEqual(
            (status.stage, status.name, status.detail), (Stage.READY, "llm", "0.32.0, no authentication")
        )
        other = self.open()
        self.assertEqual(other.instances(), ["llm"])
        (seen,) = other.status()
        self.assertEqual((seen.stage, seen.endpoint), (Stage.READY, fake.endpoint()))
        self.assertEqual(other.check("llm").stage, Stage.READY)
        (ended,) = other.stop(["llm"])
        self.assertEqual((ended.stage, ended.detail), (Stage.ENDED, "detached"))
        self.assertEqual(self.session.instances(), [])
        self.assertEqual(self.open().status()[0].stage, Stage.ENDED)
        self.assertEqual(self.attach(fake).stage, Stage.READY, "its name is free again")

    def test_the_scheduler_is_never_asked_and_its_silence_does_not_matter(self) -> None:
        self.attach(self.serve())
        self.slurm.controller = "down"
        self.clock.sleep(10.0)
        self.slurm.calls.clear()
        (status,) = self.session.status()
        self.assertEqual((status.stage, status.detail), (Stage.READY, "0.32.0, no authentication"))
        self.session.check("llm", wait_s=5.0)
        self.assertEqual(self.session.server("llm").loss(max_age_s=0.0), "")
        self.session.stop(["all"])
        self.assertEqual(self.slurm.calls, [])

    def test_one_that_falls_silent_and_comes_back(self) -> None:
        fake = self.serve()
        self.attach(fake)
        fake.status["/v1/models"] = (503, "Loading model")
        (status,) = self.session.status()
        self.assertEqual((status.stage, status.is_alive), (Stage.SILENT, True))
        self.assertIn("Loading model", status.detail)
        self.assertIn("ask whoever runs it", status.advice)
        del fake.status["/v1/models"]
        self.assertEqual(self.session.status()[0].stage, Stage.READY)

    def test_it_is_proved_once_by_a_real_generation(self) -> None:
        fake = self.serve()
        self.attach(fake)
        self.open().status()
        self.assertEqual([path for _, path, _ in fake.asked].count(COMPLETIONS), 1)

    def test_beside_services_with_jobs(self) -> None:
        self.session.start("chroma", {})
        self.attach(self.serve(), name="theirs")
        self.assertEqual(self.session.instances(), ["chroma", "theirs"])
        with self.assertRaisesRegex(UsageError, "'chroma' exists already.*--name other"):
            self.attach(self.serve(), name="chroma")
        with self.assertRaisesRegex(UsageError, "'theirs' exists already"):
            self.session.start("chroma", {"name": "theirs"})
        self.session.stop(["all"])
        self.assertEqual(self.slurm.jobs[1].state, "CANCELLED")

    def test_it_has_no_log(self) -> None:
        self.attach(self.serve())
        for ask in (lambda: self.session.logs("llm"), lambda: list(self.session.follow("llm"))):
            with self.assertRaisesRegex(ServiceError, "its log is with whoever started it"):
                ask()

    def test_what_a_record_says_of_it(self) -> None:
        self.attach(self.serve(prefix="/some/prefix"), key_file=str(self.key_file()), model="tiny")
        told = self.session.server("llm").describe()
        self.assertEqual((told["scheduler"], told["version"], told["job_id"]), ("attached", "0.32.0", ""))
        self.assertEqual((told["endpoint"]["prefix"], told["authentication"]), ("/some/prefix", "token"))
        self.assertEqual(told["options"], {"model": "tiny"})
        self.assertNotIn("key", str(told))


class Addresses(AttachedCase):
    def test_with_and_without_the_root_of_the_api(self) -> None:
        fake = self.serve(prefix="/some/prefix")
        for end in ("", "/", "/v1", "/v1/"):
            status = self.session.attach("llm", fake.url + end, {})
            self.assertEqual(status.endpoint, fake.endpoint(), end)
            self.session.stop(["llm"])

    def test_a_private_ca(self) -> None:
        fake = self.serve(uses_tls=True)
        status = self.attach(fake, ca_file=str(CA_FILE))
        self.assertEqual((status.stage, status.endpoint), (Stage.READY, fake.endpoint(ca_file=CA_FILE)))

    def test_what_is_no_such_service_is_not_kept(self) -> None:
        self.refused(ServiceError, self.serve(uses_tls=True).url, "not attached", "not trusted", "--ca-file")
        self.refused(ServiceError, self.serve(paths=frozenset()).url, "no OpenAI-compatible server")
        self.refused(ServiceError, self.serve().url, "no model 'big'", model="big")
        broken = self.serve(status={COMPLETIONS: (500, "EngineDeadError")})
        self.refused(ServiceError, broken.url, "EngineDeadError")
        self.refused(ServiceError, "http://127.0.0.1:1", "not attached: cannot reach", "refused")

    def test_what_is_no_address(self) -> None:
        self.refused(UsageError, "node7:8000", "no http or https address")
        self.refused(UsageError, "http://h", "--ca-file is for https", ca_file=str(CA_FILE))
        self.refused(UsageError, "https://h", "--ca-file /no/such is no file", ca_file="/no/such")
        self.assertNotIn(KEY, self.refused(UsageError, f"https://me:{KEY}@h", "no user name or key"))

    def test_an_address_of_the_login_node_itself_means_another_machine_where_load_is_made(self) -> None:
        self.session = Session(self.config, scheduler=self.scheduler(), clock=self.clock, environ=SHELL)
        for host in ("127.0.0.1", "localhost", "[::1]"):
            self.refused(UsageError, f"http://{host}:8000", "another machine", "name of the node")

    def test_a_kind_that_cannot_be_attached(self) -> None:
        with self.assertRaisesRegex(UsageError, "chroma cannot be attached.*llm"):
            self.session.attach("chroma", "http://h", {})
        with self.assertRaises(UnknownService):
            self.session.attach("nothing", "http://h", {})
        self.refused(UsageError, "http://h", "unknown option 'modle' (did you mean 'model'?)", modle="x")


class Keys(AttachedCase):
    def test_a_key_stays_in_the_users_file(self) -> None:
        path = self.key_file()
        self.attach(self.serve(key=KEY), key_file=str(path))
        self.assertEqual(self.open().status()[0].stage, Stage.READY)
        self.assertNotIn(KEY, self.stored_text())
        self.assertEqual(list(self.config.services_dir.glob("*/secret")), [])
        self.session.stop(["llm"])
        self.assertTrue(path.exists())

    def test_a_key_of_the_environment_is_kept_for_later_shells_until_it_is_detached(self) -> None:
        fake = self.serve(key=KEY)
        self.attach(fake, self.open(OPENAI_API_KEY=KEY), key_env="OPENAI_API_KEY")
        (copy,) = self.config.services_dir.glob("*/secret")
        self.assertEqual(stat.S_IMODE(copy.stat().st_mode), 0o600)
        self.assertNotIn(KEY, self.stored_text())
        self.assertEqual(self.open().status()[0].stage, Stage.READY, "a shell without the variable")
        self.session.stop(["llm"])
        self.assertFalse(copy.exists())

    def test_files_that_are_no_key_or_no_secret(self) -> None:
        fake = self.serve(key=KEY)
        path = self.key_file(mode=0o640)
        text = self.refused(UsageError, fake.url, "others can read", f"chmod 600 {path}", key_file=str(path))
        self.assertNotIn(KEY, text)
        for content in ("", "\n", f"{KEY}\nmore\n", f"{KEY} more"):
            text = self.refused(
                UsageError, fake.url, "does not hold one key", key_file=str(self.key_file(content))
            )
            self.assertNotIn(KEY, text)
        self.refused(UsageError, fake.url, "--key-file /no/such is no file", key_file="/no/such")
        self.refused(UsageError, fake.url, "no file that can be read", key_file=str(self.dir))

    def test_variables_that_hold_no_key(self) -> None:
        self.session = self.open(EMPTY=" ", TWO="a b")
        for variable, words in (
            ("NONE", "not set"),
            ("EMPTY", "not set"),
            (KEY, "not set"),
            ("TWO", "one key"),
        ):
            text = self.refused(UsageError, "http://h", words, key_env=variable)
            self.assertNotIn(KEY, text, "somebody gave the key instead of its variable")
        self.refused(UsageError, "http://h", "exclude", key_env="X", key_file=str(self.key_file()))

    def test_a_wrong_key_names_the_file_and_not_the_key(self) -> None:
        path = self.key_file()
        text = self.refused(
            ServiceError, self.serve(key="sk-right").url, f"refuses the key in {path}", key_file=str(path)
        )
        self.assertNotIn(KEY, text)

    def test_a_key_that_is_gone_later_is_told(self) -> None:
        path = self.key_file()
        self.attach(self.serve(key=KEY), key_file=str(path))
        path.unlink()
        (status,) = self.session.status()
        self.assertEqual(status.stage, Stage.SILENT)
        self.assertIn(f"{path}: {os.strerror(2)}", status.detail)

    def test_a_saved_run_masks_it(self) -> None:
        self.attach(self.serve(key=KEY), key_file=str(self.key_file()))
        store = self.shell.runs
        made = sample_record()
        record = store.create(made.service, made.recipe)
        store.write(sample_record(run_id=record.run_id))
        (store.path(record.run_id) / "worker.log").write_text(f"refused Bearer {KEY}\n")
        with zipfile.ZipFile(self.session.save(record.run_id)) as archive:
            texts = [archive.read(name).decode(errors="replace") for name in archive.namelist()]
        self.assertIn("refused Bearer ***", "".join(texts))
        self.assertNotIn(KEY, "".join(texts))


if __name__ == "__main__":
    unittest.main()

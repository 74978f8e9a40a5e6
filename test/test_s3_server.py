"""S3Server: its probe, its options, and its batch script with a stand-in for rclone."""

import subprocess
import tempfile
import unittest
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from test.fakes.programs import install
from test.fakes.records import sample_record
from test.fakes.s3_server import FakeS3, Faults
from test.fakes.site import SHELL, SiteCase
from test.fakes.tls import CA_FILE, server_context

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import ServiceError, UsageError
from aifbench.report.reproduce import commands
from aifbench.servers.base import Probe
from aifbench.servers.s3 import S3Server
from aifbench.servers.status import ServiceStatus, Stage
from aifbench.session import Session

SCRIPT = Path(__file__).resolve().parents[1] / "batch_scripts/start_s3.sh"

# Says what it was started with, in its own folder, and ends.
RCLONE = """#!/bin/bash
if [ "$1" = version ]; then echo "rclone v9.8.7"; exit; fi
printf '%s\\n' "$@" >"$(dirname "$0")/arguments"
env >"$(dirname "$0")/environment"
"""


class Probing(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.s3 = FakeS3(Path(folder.name))
        self.enterContext(self.s3)

    def probe(self, endpoint: Endpoint | None = None) -> Probe:
        server = object.__new__(S3Server)
        server._job = SimpleNamespace(instance=SimpleNamespace(options={}))  # type: ignore[assignment]
        return S3Server.probe(server, endpoint or self.s3.endpoint)

    def test_a_server_that_takes_our_signature_is_ready(self) -> None:
        self.assertTrue(self.probe().is_ready)

    def test_what_does_not_is_not_and_says_why(self) -> None:
        self.s3.faults = Faults("GET /", code="InternalError")
        self.assertIn("InternalError", self.probe().detail)
        self.s3.faults = Faults()
        endpoint = self.s3.endpoint
        self.s3.secret_file.write_text("AK:wrong\n")
        self.assertIn("does not know this access key", self.probe(endpoint).detail)
        self.s3.secret_file.unlink()
        self.assertIn("cannot read the key", self.probe(endpoint).detail)
        self.assertIn("cannot reach", self.probe(Endpoint("127.0.0.1", 1, secret_file=self.keep())).detail)

    def keep(self) -> Path:
        self.s3.secret_file.write_text("AK:SK\n")
        return self.s3.secret_file

    def test_the_region_of_an_attached_one_is_used(self) -> None:
        server = object.__new__(S3Server)
        server._job = SimpleNamespace(instance=SimpleNamespace(options={"region": "eu-x"}))  # type: ignore[assignment]
        self.assertEqual(server.region, "eu-x")


class Attaching(SiteCase):
    def setUp(self) -> None:
        super().setUp()
        # On a compute node, where 127.0.0.1 is this very machine.
        self.session = Session(
            self.config,
            scheduler=self.scheduler(),
            clock=self.clock,
            environ={**SHELL, "SLURM_JOB_ID": "1"},
        )

    def serve(self, **manners: Any) -> FakeS3:
        fake = FakeS3(self.dir, **manners)
        self.enterContext(fake)
        return fake

    def key_file(self, content: str = "aifbench\nopensesame\n", mode: int = 0o600) -> str:
        path = self.dir / "keys"
        path.write_text(content)
        path.chmod(mode)
        return str(path)

    def attach(self, fake: FakeS3, **options: str) -> ServiceStatus:
        if "access_key_file" not in options:
            options["access_key_file"] = self.key_file()
        return self.session.attach("s3", fake.endpoint.url, options)

    def test_with_keys_in_either_form(self) -> None:
        fake = self.serve()
        for content in ("aifbench\nopensesame\n", "aifbench:opensesame"):
            self.assertEqual(self.attach(fake, access_key_file=self.key_file(content)).stage, Stage.READY)
            self.session.stop(["s3"])

    def test_through_a_prefix_tls_and_ipv6(self) -> None:
        fake = self.serve(prefix="/some/where", tls=server_context())
        self.assertEqual(self.attach(fake, ca_file=str(CA_FILE)).stage, Stage.READY)
        self.session.stop(["s3"])
        with self.assertRaisesRegex(ServiceError, "certificate verify failed"):
            self.attach(fake)
        if Path("/proc/net/if_inet6").exists():
            self.assertEqual(self.attach(self.serve(host="::1")).stage, Stage.READY)

    def test_a_region_is_signed_for_and_kept(self) -> None:
        fake = self.serve()
        self.attach(fake, region="eu-south-1")
        (kept,) = self.config.services_dir.glob("*/service.json")
        self.assertIn("eu-south-1", kept.read_text())
        self.assertNotIn("opensesame", kept.read_text())

    def test_what_cannot_be_used_as_keys_leaves_nothing(self) -> None:
        fake = self.serve()
        for content, mode, error, words in (
            ("aifbench\nopensesame", 0o640, UsageError, "others can read --access-key-file"),
            ("opensesame", 0o600, UsageError, "does not hold an access key and a secret key"),
            ("", 0o600, UsageError, "does not hold an access key"),
            ("aifbench\nopensesame\nmore", 0o600, UsageError, "does not hold an access key"),
            ("aifbench\nwrong", 0o600, ServiceError, "the secret key is wrong"),
            ("somebody\nopensesame", 0o600, ServiceError, "does not know this access key"),
        ):
            with self.subTest(content), self.assertRaisesRegex(error, words) as caught:
                self.attach(fake, access_key_file=self.key_file(content, mode))
            self.assertNotIn("opensesame", str(caught.exception))
            self.assertEqual(self.session.instances(), [])
        with self.assertRaisesRegex(UsageError, "unknown option 'key_file'"):
            self.attach(fake, key_file=self.key_file())

    def test_how_to_attach_it_again_and_no_secret_in_what_is_saved(self) -> None:
        self.attach(self.serve(), access_key_file=self.key_file("aifbench:opensesame"))
        service = self.session.server("s3").describe()
        self.assertIn(" --access-key-file FILE", commands(sample_record(service=service)))
        store = self.shell.runs
        made = store.create(service, sample_record().recipe)
        store.write(sample_record(run_id=made.run_id))
        (store.path(made.run_id) / "worker.log").write_text("signed with opensesame\n")
        with zipfile.ZipFile(self.session.save(made.run_id)) as archive:
            self.assertNotIn(b"opensesame", b"".join(map(archive.read, archive.namelist())))


class Script(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.bin = self.dir / "venv/bin"
        self.bin.mkdir(parents=True)

    def start(self, **environment: str) -> subprocess.CompletedProcess[str]:
        given = {
            "PATH": "/usr/bin:/bin",
            "AIFBENCH_HOME": str(SCRIPT.parents[1]),
            "AIFBENCH_JOB_DIR": str(self.dir / "job"),
            "AIFBENCH_IMAGES": str(self.dir / "images"),
            "AIFBENCH_VENV": str(self.dir / "venv"),
            **environment,
        }
        return subprocess.run([SCRIPT], env=given, capture_output=True, text=True, check=False, timeout=30)

    def install(self) -> None:
        (self.bin / "rclone").write_text(RCLONE)
        (self.bin / "rclone").chmod(0o755)

    def test_the_secret_goes_by_the_environment_and_never_by_the_command_line(self) -> None:
        self.install()
        done = self.start()
        secret = (self.dir / "job/secret").read_text().strip()
        arguments = (self.bin / "arguments").read_text().split()
        self.assertEqual(arguments[:3], ["serve", "s3", "--addr"])
        self.assertEqual(arguments[-1], str(self.dir / "job/data/buckets"))
        self.assertNotIn(secret, " ".join(arguments) + done.stdout + done.stderr)
        self.assertIn(f'\nRCLONE_AUTH_KEY="aifbench,{secret}"\n', (self.bin / "environment").read_text())
        self.assertEqual((self.dir / "job/secret").stat().st_mode & 0o077, 0)

    def test_versitygw_from_its_image_as_its_documentation_has_it(self) -> None:
        """`versitygw [global options] posix DIRECTORY`, the keys in ROOT_ACCESS_KEY and ROOT_SECRET_KEY."""
        self.install()
        install("apptainer", "apptainer", self.dir / "bin")
        program = self.dir / "images/versitygw.sif/bin/versitygw"
        program.parent.mkdir(parents=True)
        program.write_text(RCLONE.replace('"$(dirname "$0")/', f'"{self.dir}/'))
        program.chmod(0o755)
        done = self.start(PATH=f"{self.dir / 'bin'}:/usr/bin:/bin", HOME=str(self.dir))
        said = (self.dir / "arguments").read_text()
        environment = (self.dir / "environment").read_text().splitlines()
        secret = (self.dir / "job/secret").read_text().strip()
        flag, address, *others = said.split()
        self.assertEqual(flag, "--port")
        self.assertRegex(address, r"^127\.0\.0\.1:\d+$")
        self.assertEqual(others, ["--quiet", "--keep-alive", "posix", str(self.dir / "job/data/buckets")])
        self.assertIn("ROOT_ACCESS_KEY=aifbench", environment)
        self.assertIn(f"ROOT_SECRET_KEY={secret}", environment)
        self.assertNotIn(secret, said + done.stdout + done.stderr)

    def test_what_is_missing_or_unknown_is_told(self) -> None:
        for software, words in (("rclone", "source env.sh installs rclone"), ("minio", "valid: auto")):
            done = self.start(AIFBENCH_S3_SOFTWARE=software)
            self.assertEqual(done.returncode, 1)
            self.assertIn(words, done.stderr)


if __name__ == "__main__":
    unittest.main()

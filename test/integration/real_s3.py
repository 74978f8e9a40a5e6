"""The whole story with a real S3 server, as a user types it: on the real Slurm cluster and without it."""

import subprocess
import unittest
import zipfile
from pathlib import Path

from test.integration.dev_slurm import ENDED, bring_up, output_of, state_of
from test.integration.story import Story

SHORT_RUN = "--objects 40 --max-data 64MiB --duration 500ms --warmup 100ms --clients 2 --part-size 5MiB"
SIZES = "--size 4KiB:75,1MiB:20,8MiB:5"
MEASURED = ["get", "range", "head", "list", "put", "mixed", "multipart", "delete"]
# What so short a run may be blamed for.
SHORT = {"SAMPLES", "DURATION", "STEADY"}


class S3Story(Story):
    def check_record(self, measured: list[str]) -> None:
        record = self.record()
        self.assertEqual((record["state"], record["error"]), ("COMPLETE", ""), self.log())
        self.assertEqual([each["phase"] for each in record["measurements"]], measured)
        for each in record["measurements"]:
            metrics = {metric["name"]: metric["value"] for metric in each["metrics"]}
            self.assertEqual(metrics["error_share"], 0, each["phase"])
            self.assertGreater(metrics["throughput"], 1, each["phase"])
            bad = {
                check["code"]: check["message"] for check in each["checks"] if check["verdict"] == "INVALID"
            }
            self.assertLessEqual(set(bad), SHORT, bad)

    def log(self) -> str:
        """The service's own, where it is ours."""
        return "".join(path.read_text()[-5000:] for path in self.results.glob("services/*/job-*.log"))

    def check_zip(self, secrets: list[bytes]) -> None:
        self.type("save last")
        (archive,) = self.results.glob("*.zip")
        with zipfile.ZipFile(archive) as stored:
            everything = b"".join(stored.read(name) for name in stored.namelist())
        self.assertTrue(secrets)
        for secret in secrets:
            self.assertNotIn(secret, everything)


class S3WithoutSlurm(S3Story):
    clients = ""

    def test_from_start_to_zip(self) -> None:
        output = self.type("start s3", "check s3 --wait 60s")
        self.assertRegex(output, "s3 is ready at http://")
        self.type(f"bench s3 all {SIZES} {SHORT_RUN}{self.clients}", check=False)
        self.check_record(MEASURED)
        self.type(f"bench s3 get --size 4KiB {SHORT_RUN} --via sdk", check=False)
        self.check_record(["get"])
        self.attach_to_the_same()
        self.check_zip([path.read_bytes().strip() for path in self.results.glob("services/*/secret")])
        self.assertEqual(self.buckets(), [])
        self.type("stop s3", "stop theirs")
        self.nothing_is_left()

    def attach_to_the_same(self) -> None:
        endpoint, key = self.jobs()[-1]["endpoint"], self.results / "key"
        url = f"http://{endpoint['host']}:{endpoint['port']}"
        attach = f"attach s3 {url} --name theirs --access-key-file {key}"
        for secret, mode, words in (
            ("wrong", 0o600, "the secret key is wrong"),
            ("wrong", 0o644, "others can read"),
            ("two words more", 0o600, "does not hold an access key and a secret key"),
        ):
            key.write_text(f"aifbench\n{secret}\n")
            key.chmod(mode)
            self.assertIn(words, " ".join(self.type(attach, check=False).split()))
        key.chmod(0o600)
        key.write_text(f"aifbench:{Path(endpoint['secret_file']).read_text().strip()}\n")
        self.type(attach)
        self.type(f"bench theirs put --size 8MiB {SHORT_RUN}", check=False)
        self.check_record(["put"])

    def buckets(self) -> list[Path]:
        return list((self.results / "scratch").glob("*/buckets/*"))

    def nothing_is_left(self) -> None:
        self.assertEqual(list((self.results / "scratch").iterdir()), [])
        # Of this test's alone: its directory is on the command line.
        left = subprocess.run(["pgrep", "-af", f"rclone.*{self.results}"], capture_output=True, check=False)
        self.assertEqual(left.stdout, b"")


class S3OnSlurm(S3WithoutSlurm):
    scheduler = "slurm"
    clients = " --workers 2 --client-nodes 2"

    @classmethod
    def setUpClass(cls) -> None:
        bring_up()

    def nothing_is_left(self) -> None:
        super().nothing_is_left()
        (deployed,) = (job for job in self.jobs() if job["job_id"])
        self.assertIn(state_of(deployed["job_id"]), ENDED)
        self.assertNotIn(deployed["job_id"], output_of("squeue", "--noheader", "--format=%A").split())


if __name__ == "__main__":
    unittest.main()

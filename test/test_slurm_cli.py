"""SlurmCli against a Slurm in memory."""

import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

from test.fakes.clock import FakeClock
from test.fakes.slurm import FakeSlurm

from aifbench.cluster import slurm_text
from aifbench.cluster.command import CommandResult
from aifbench.cluster.jobs import JobInfo, JobSpec, JobState
from aifbench.cluster.slurm_cli import SlurmCli, slurm_available, without_slurm_variables
from aifbench.errors import ConfigError, SchedulerError, SchedulerUnavailable, SubmitError

# The fake's sbatch fails after 10 s and the first look follows 1 s later: it must not be the last.
_AFTER_ONE_LOOK_S = 12.0
_SHELL = {"PATH": "/usr/bin:/bin", "HOME": "/home/alice"}


class SlurmCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.clock = FakeClock()
        self.fake = FakeSlurm(self.clock)
        self.slurm = SlurmCli(self.fake, self.clock, _SHELL)
        self.spec = JobSpec(
            name="aifb-chroma-7f3a",
            script=self.dir / "start_chroma.sh",
            log_path=self.dir / "logs" / "chroma-%j.log",
            work_dir=self.dir,
            environment={"AIFB_PORT": "0", "AIFB_TOKEN_FILE": "/home/alice/.t"},
        )

    def submit(self) -> str:
        return self.slurm.submit(self.spec)

    def poll(self, job_id: str) -> JobInfo:
        return self.slurm.poll([job_id])[job_id]


class CommandLine(SlurmCase):
    def test_everything_asked_for_is_explicit(self) -> None:
        spec = replace(
            self.spec, nodes=2, tasks_per_node=4, cpus_per_task=8, gpus_per_node=4, memory_mib=2048,
            time_limit_s=5401, account="p200981", partition="gpu", qos="short", reservation="course",
            comment="aifb run=r1", extra_args=("--exclusive",),
        )  # fmt: skip
        self.assertEqual(
            self.slurm.command_line(spec),
            [
                *("sbatch", "--parsable", "--job-name=aifb-chroma-7f3a"),
                *(f"--output={self.dir}/logs/chroma-%j.log", f"--chdir={self.dir}"),
                *("--nodes=2", "--ntasks-per-node=4", "--cpus-per-task=8", "--gres=gpu:4", "--mem=2048M"),
                *("--time=91", "--account=p200981", "--partition=gpu", "--qos=short", "--reservation=course"),
                *("--comment=aifb run=r1", "--export=ALL", "--exclusive", f"{self.dir}/start_chroma.sh"),
            ],
        )

    def test_site_defaults_are_left_to_the_site(self) -> None:
        text = " ".join(self.slurm.command_line(self.spec))
        for option in ("account", "partition", "qos", "reservation", "comment", "gres", "mem", "cpus-per"):
            self.assertNotIn(f"--{option}", text)

    def test_time_limits_are_whole_minutes_rounded_up(self) -> None:
        for seconds, minutes in ((0, 1), (1, 1), (60, 1), (61, 2), (3600, 60)):
            line = self.slurm.command_line(replace(self.spec, time_limit_s=float(seconds)))
            self.assertIn(f"--time={minutes}", line)

    def test_values_of_the_environment_are_not_on_the_command_line(self) -> None:
        text = " ".join(self.slurm.command_line(replace(self.spec, environment={"KEY": "s3cret"})))
        self.assertNotIn("s3cret", text)
        self.assertNotIn("KEY", text)


class Submit(SlurmCase):
    def test_returns_the_id_and_creates_the_log_directory(self) -> None:
        self.assertEqual(self.submit(), "1")
        self.assertTrue((self.dir / "logs").is_dir())

    def test_the_cluster_name_after_the_id_is_dropped(self) -> None:
        self.fake.cluster_suffix = ";meluxina"
        self.assertEqual(self.submit(), "1")

    def test_the_jobs_environment_is_clean_and_complete(self) -> None:
        shell = _SHELL | {
            "SBATCH_PARTITION": "gpu", "SLURM_JOB_ID": "77", "SQUEUE_FORMAT": "%i", "SRUN_CPUS_PER_TASK": "2",
            "SLURM_CONF": "/etc/site/slurm.conf", "SLURMY": "kept",
        }  # fmt: skip
        SlurmCli(self.fake, self.clock, shell).submit(self.spec)
        expected = _SHELL | {"SLURM_CONF": "/etc/site/slurm.conf", "SLURMY": "kept"}
        self.assertEqual(self.fake.jobs[1].environment, expected | dict(self.spec.environment))

    def test_a_message_of_the_site_is_kept(self) -> None:
        self.fake.site_message = "sbatch: Project p200981: 1234 node-hours left\n"
        self.submit()
        self.assertEqual(self.slurm.last_message, "Project p200981: 1234 node-hours left")

    def test_refusals_carry_slurms_words_and_a_hint(self) -> None:
        failed = "sbatch: error: Batch job submission failed: "
        cases = [
            (f"sbatch: error: invalid partition specified: gpux\n{failed}Invalid partition name specified",
             "invalid partition specified: gpux", "--partition"),
            (f"{failed}Invalid account or account/partition combination specified", "account", "--account"),
            (f"{failed}Invalid qos specification", "Invalid qos", "--qos"),
            ("sbatch: error: Memory specification can not be satisfied\n"
             f"{failed}Requested node configuration is not available", "Memory specification", "less memory"),
            (f"{failed}Requested node configuration is not available", "configuration", "fewer GPUs"),
            (f"{failed}Invalid generic resource (gres) specification", "gres", "GPUs"),
            (f"sbatch: error: QOSMaxNodePerJobLimit\n{failed}Job violates accounting/QOS policy (job submit "
             "limit, user's size and/or time limits)", "QOSMaxNodePerJobLimit", "lower --nodes"),
            (f"{failed}Requested time limit is invalid (missing or exceeds some limit)", "time",
             "lower --time"),
            (f"sbatch: error: AssocMaxSubmitJobLimit\n{failed}Job violates accounting/QOS policy (job submit "
             "limit, user's size and/or time limits)", "AssocMaxSubmitJobLimit", "stop one"),
            ("sbatch: error: This does not look like a batch script.", "batch script", "#!/bin/bash"),
        ]  # fmt: skip
        for stderr, words, hint in cases:
            with self.subTest(stderr):
                self.fake.refusal = (1, stderr + "\n")
                with self.assertRaises(SubmitError) as caught:
                    self.submit()
                self.assertIn(words, caught.exception.message)
                self.assertNotIn("sbatch: error", caught.exception.message)
                self.assertIn(hint, caught.exception.hint)
        self.assertEqual(len(self.fake.commands("sbatch")), len(cases), "a refusal is not repeated")

    def test_an_unknown_refusal_is_still_told(self) -> None:
        self.fake.refusal = (1, "sbatch: error: moon in wrong phase\n")
        with self.assertRaisesRegex(SubmitError, "moon in wrong phase"):
            self.submit()

    def test_what_would_die_without_a_log_is_refused_before(self) -> None:
        (self.dir / "file").touch()
        cases = {
            "%": replace(self.spec, log_path=self.dir / "%j" / "log"),
            "does not exist": replace(self.spec, work_dir=self.dir / "gone"),
            "cannot be created": replace(self.spec, log_path=self.dir / "file" / "logs" / "x.log"),
            "job name": replace(self.spec, name="a,b"),
        }
        for words, spec in cases.items():
            with self.subTest(words), self.assertRaisesRegex(SubmitError, words):
                self.slurm.submit(spec)
        self.assertEqual(self.fake.calls, [])

    def test_an_answer_without_an_id_is_an_error_that_says_where_to_look(self) -> None:
        slurm = SlurmCli(lambda *_, **__: CommandResult(0, "Welcome to the cluster\n"), self.clock, _SHELL)
        with self.assertRaisesRegex(SchedulerError, "squeue --me --name"):
            slurm.submit(self.spec)


class SubmitWithoutAnswer(SlurmCase):
    def test_a_ghost_is_adopted_not_submitted_twice(self) -> None:
        self.fake.ghost_submits = 1
        self.assertEqual(self.submit(), "1")
        self.assertEqual(len(self.fake.jobs), 1)

    def test_a_ghost_that_becomes_visible_late_is_adopted(self) -> None:
        self.fake.ghost_submits = 1
        self.fake.accounting = "disabled"
        self.fake.visible_after_s = _AFTER_ONE_LOOK_S
        self.assertEqual(self.submit(), "1")
        self.assertEqual(len(self.fake.jobs), 1)

    def test_a_ghost_that_ended_and_is_forgotten_is_found_in_accounting(self) -> None:
        self.fake.ghost_submits = 1
        fake = self.fake

        def forgetful(argv, **options):  # type: ignore[no-untyped-def]
            result = fake(argv, **options)
            for job in fake.jobs.values():
                job.state, job.forgotten = "FAILED", True
            return result

        self.assertEqual(SlurmCli(forgetful, self.clock, _SHELL).submit(self.spec), "1")
        self.assertEqual(len(self.fake.jobs), 1)

    def test_a_killed_sbatch_is_looked_for_too(self) -> None:
        self.fake.hanging_sbatch = True
        self.assertEqual(self.submit(), "1")
        self.assertEqual(len(self.fake.commands("sbatch")), 1)

    def test_a_controller_that_comes_back_gets_the_job_once(self) -> None:
        self.fake.controller = "down"
        self.fake.controller_back_at_s = 20.0
        self.assertEqual(self.submit(), "1")
        self.assertEqual(len(self.fake.jobs), 1)

    def test_a_hung_controller_that_wakes_up_has_the_job_once(self) -> None:
        self.fake.controller = "hung"
        self.fake.controller_back_at_s = 35.0
        self.assertEqual(self.submit(), "1")
        self.assertEqual(len(self.fake.jobs), 1)

    def test_no_answer_at_all_ends_with_a_hint_to_look(self) -> None:
        for state in ("down", "hung"):
            with self.subTest(state):
                self.fake.controller = state
                with self.assertRaises(SchedulerUnavailable) as caught:
                    self.submit()
                self.assertIn("squeue --me --name aifb-chroma-7f3a", caught.exception.hint)
        self.assertEqual(len(self.fake.commands("sbatch")), 2, "never again without having looked")
        self.assertGreaterEqual(sum(self.clock.slept_s), 2 * 60)

    def test_submits_again_only_after_two_clean_looks(self) -> None:
        self.fake.refusal = (1, "sbatch: error: Batch job submission failed: Socket timed out on send/recv\n")
        with self.assertRaises(SchedulerUnavailable):
            self.submit()
        names = [call[0] for call in self.fake.calls if call[0] != "sacct"]
        self.assertEqual(names, ["sbatch", "squeue", "squeue"] * 3 + ["sbatch"])


class Poll(SlurmCase):
    def test_one_squeue_for_all_and_nothing_else(self) -> None:
        ids = [self.slurm.submit(replace(self.spec, name=f"job-{i}")) for i in range(5)]
        self.fake.start(ids[0], "node[1-2]")
        self.fake.end(ids[1], "FAILED", exit_code=3, reason="NonZeroExitCode")
        self.fake.calls.clear()
        infos = self.slurm.poll(ids)
        self.assertEqual([call[0] for call in self.fake.calls], ["squeue"])
        self.assertEqual(list(infos), ids)
        self.assertEqual(infos[ids[0]].nodes, ("node1", "node2"))
        self.assertEqual(infos[ids[1]].exit_code, 3)
        self.assertEqual(infos[ids[2]].state, JobState.PENDING)

    def test_a_running_job(self) -> None:
        job_id = self.submit()
        self.fake.start(job_id, "mel[2001,2003-2004]")
        self.clock.elapsed_s += 3 * 60 + 7
        info = self.poll(job_id)
        self.assertEqual((info.state, info.source, info.reason), (JobState.RUNNING, "squeue", ""))
        self.assertEqual(info.nodes, ("mel2001", "mel2003", "mel2004"))
        self.assertEqual((info.elapsed_s, info.time_left_s), (187.0, 3600.0 - 187))
        self.assertEqual((info.exit_code, info.signal), (None, None))

    def test_nothing_to_ask_asks_nothing(self) -> None:
        self.assertEqual(self.slurm.poll([]), {})
        info = self.slurm.poll(["not-an-id"])["not-an-id"]
        self.assertEqual((info.state, info.source), (JobState.UNKNOWN, "none"))
        self.assertEqual(self.fake.calls, [])

    def test_an_unknown_job_is_unknown_never_ended(self) -> None:
        self.submit()
        for ids in (["99"], ["1", "99"], ["98", "99"]):
            with self.subTest(ids):
                info = self.slurm.poll(ids)["99"]
                self.assertEqual((info.state, info.source), (JobState.UNKNOWN, "none"))
                self.assertFalse(info.state.is_final)

    def test_a_job_not_yet_visible_is_what_accounting_says_or_unknown(self) -> None:
        self.fake.visible_after_s = 5.0
        job_id = self.submit()
        self.assertEqual(self.poll(job_id).source, "sacct")
        self.fake.accounting = "disabled"
        self.assertEqual(self.poll(job_id).state, JobState.UNKNOWN)
        self.clock.elapsed_s += 6
        self.assertEqual(self.poll(job_id).state, JobState.PENDING)

    def test_a_forgotten_job_comes_from_accounting(self) -> None:
        job_id = self.submit()
        self.fake.start(job_id, "node[3-4]")
        self.clock.elapsed_s += 60
        self.fake.end(job_id, "TIMEOUT", signal=15)
        self.fake.forget(job_id)
        info = self.poll(job_id)
        self.assertEqual((info.state, info.source), (JobState.TIMEOUT, "sacct"))
        self.assertEqual((info.nodes, info.elapsed_s), (("node3", "node4"), 60.0))
        self.assertIn("--time", info.advice)

    def test_broken_accounting_never_hurts(self) -> None:
        known = self.submit()
        forgotten = self.slurm.submit(replace(self.spec, name="old"))
        self.fake.end(forgotten)
        self.fake.forget(forgotten)
        for accounting in ("disabled", "down", "missing"):
            with self.subTest(accounting):
                self.fake.accounting = accounting
                infos = self.slurm.poll([known, forgotten])
                self.assertEqual(infos[known].state, JobState.PENDING)
                self.assertEqual(infos[forgotten].state, JobState.UNKNOWN)

    def test_an_unreachable_controller_is_said_so_and_comes_back(self) -> None:
        job_id = self.submit()
        for controller, words in (("down", "Unable to contact"), ("hung", "Socket timed out")):
            self.fake.controller = controller
            with self.subTest(controller), self.assertRaisesRegex(SchedulerUnavailable, words):
                self.slurm.poll([job_id])
        self.fake.controller = "up"
        self.assertEqual(self.poll(job_id).state, JobState.PENDING)

    def test_a_requeued_job_shows_its_restart_and_new_nodes(self) -> None:
        job_id = self.submit()
        self.fake.start(job_id, "node1")
        self.fake.requeue(job_id)
        waiting = self.poll(job_id)
        self.assertEqual((waiting.state, waiting.restarts, waiting.nodes), (JobState.PENDING, 1, ()))
        self.fake.start(job_id, "node4")
        for source in ("squeue", "sacct"):
            info = self.poll(job_id)
            self.assertEqual((info.source, info.restarts, info.nodes), (source, 1, ("node4",)))
            self.fake.forget(job_id)

    def test_scontrol_is_asked_when_squeue_has_nothing(self) -> None:
        job_id = self.submit()
        self.fake.start(job_id, "node[1-2]")
        self.fake.end(job_id, "FAILED", exit_code=139, reason="NonZeroExitCode")
        fake = self.fake

        def blind_squeue(argv, **options):  # type: ignore[no-untyped-def]
            return CommandResult(0) if argv[0] == "squeue" else fake(argv, **options)

        info = SlurmCli(blind_squeue, self.clock, _SHELL).poll([job_id])[job_id]
        self.assertEqual((info.source, info.state, info.exit_code), ("scontrol", JobState.FAILED, 139))
        self.assertEqual((info.name, info.nodes), (self.spec.name, ("node1", "node2")))
        self.assertIn("segmentation fault", info.advice)

    def test_a_hopeless_reason_is_told_at_once(self) -> None:
        job_id = self.submit()
        self.assertEqual((self.poll(job_id).reason, self.poll(job_id).advice), ("Priority", ""))
        self.fake.pend(job_id, "QOSMaxNodePerJobLimit")
        self.assertIn("it will never start", self.poll(job_id).advice)

    def test_forged_names_shift_no_field(self) -> None:
        job_id = self.submit()
        job = self.fake.jobs[1]
        job.name = f"x|COMPLETED|{slurm_text.SEPARATOR} JobState=COMPLETED NodeList=evil \ufffd"
        for info in (
            self.poll(job_id),
            slurm_text.parse_controller(
                self.fake(["scontrol", "show", "job", "1"], timeout_s=1, environment={}).stdout
            ),
        ):
            assert info is not None
            self.assertEqual((info.state, info.name, info.nodes), (JobState.PENDING, job.name, ()))
        self.fake.forget(job_id)
        info = self.poll(job_id)
        self.assertEqual((info.source, info.state, info.name), ("sacct", JobState.PENDING, job.name))

    def test_without_slurm_the_way_out_is_named(self) -> None:
        slurm = SlurmCli(lambda *_, **__: CommandResult(127, stderr="No such file"), self.clock, _SHELL)
        with self.assertRaisesRegex(ConfigError, "squeue cannot be run .* --scheduler local"):
            slurm.poll(["1"])


class Cancel(SlurmCase):
    def test_cancels_only_the_jobs_named(self) -> None:
        first, second = self.submit(), self.slurm.submit(replace(self.spec, name="b"))
        self.fake.start(first)
        self.slurm.cancel([first, "99", "garbage"])
        infos = self.slurm.poll([first, second])
        self.assertEqual((infos[first].state, infos[first].signal), (JobState.CANCELLED, 15))
        self.assertEqual(infos[second].state, JobState.PENDING)

    def test_no_ids_is_no_command(self) -> None:
        self.slurm.cancel([])
        self.slurm.cancel(["nonsense"])
        self.assertEqual(self.fake.calls, [])

    def test_tries_again_when_there_is_no_answer(self) -> None:
        job_id = self.submit()
        self.fake.controller, self.fake.controller_back_at_s = "down", self.clock.elapsed_s + 8
        self.slurm.cancel([job_id])
        self.assertEqual(self.poll(job_id).state, JobState.CANCELLED)

    def test_gives_up_in_the_end(self) -> None:
        job_id = self.submit()
        self.fake.controller = "down"
        with self.assertRaisesRegex(SchedulerUnavailable, f"jobs {job_id} could not be cancelled"):
            self.slurm.cancel([job_id])

    def test_a_job_already_ended_is_no_error_and_a_foreign_one_is(self) -> None:
        prefix = "scancel: error: Kill job error on job id 5: "
        answers = {"Job/step already completing or completed": False, "Access/permission denied": True}
        for words, is_error in answers.items():
            result = CommandResult(1, stderr=f"{prefix}{words}\n")
            slurm = SlurmCli(lambda *_, result=result, **__: result, self.clock, _SHELL)
            with self.subTest(words):
                if is_error:
                    with self.assertRaisesRegex(SchedulerError, words):
                        slurm.cancel(["5"])
                else:
                    slurm.cancel(["5"])


class Find(SlurmCase):
    def test_by_name_ended_ones_included(self) -> None:
        job_id = self.submit()
        self.slurm.submit(replace(self.spec, name="other"))
        self.fake.end(job_id)
        found = self.slurm.find(self.spec.name)
        self.assertEqual([(info.job_id, info.state) for info in found], [(job_id, JobState.COMPLETED)])
        self.assertEqual(self.slurm.find("nothing"), [])
        self.assertEqual(self.slurm.find(f"{self.spec.name},other"), [], "squeue would list both")

    def test_accounting_remembers_longer(self) -> None:
        job_id = self.submit()
        self.fake.end(job_id)
        self.fake.forget(job_id)
        self.assertEqual([info.source for info in self.slurm.find(self.spec.name)], ["sacct"])

    def test_no_answer_is_not_no_job(self) -> None:
        self.fake.controller = "down"
        with self.assertRaises(SchedulerUnavailable):
            self.slurm.find(self.spec.name)


class Choice(unittest.TestCase):
    def test_slurm_is_available_only_with_its_commands(self) -> None:
        slurm = FakeSlurm(FakeClock())
        self.assertTrue(slurm_available(lambda command: f"/usr/bin/{command}", slurm))
        squeue_alone = {"squeue": "/usr/bin/squeue"}
        self.assertFalse(slurm_available(squeue_alone.get, slurm))
        self.assertFalse(slurm_available(lambda _: None, slurm))

    def test_programs_that_belong_to_no_cluster_do_not_count(self) -> None:
        def unconfigured(*_: object, **__: object) -> CommandResult:
            words = "scontrol: fatal: Could not establish a configuration source"
            return CommandResult(1, stderr=words)

        self.assertFalse(slurm_available(lambda command: f"/usr/bin/{command}", unconfigured))

    def test_the_callers_environment_is_not_changed(self) -> None:
        shell = {"SLURM_JOB_ID": "1", "PATH": "/bin"}
        self.assertEqual(without_slurm_variables(shell), {"PATH": "/bin"})
        self.assertIn("SLURM_JOB_ID", shell)


if __name__ == "__main__":
    unittest.main()

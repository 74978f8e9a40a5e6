"""`tunnel`: the line that a user pastes, read back by ssh itself where there is one."""

import shlex
import shutil
import socket
import subprocess
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

from test.fakes.shell import ShellCase

from aifbench.cluster.endpoint import Endpoint
from aifbench.cluster.jobs import JobInfo, JobState
from aifbench.errors import ConfigError
from aifbench.monitor.tunnel import (
    Login,
    Page,
    command_line,
    config_block,
    forwards,
    is_free_here,
    parse_login,
    tunnels,
)
from aifbench.repl.exit_codes import USAGE
from aifbench.servers.status import Stage

LOGIN = Login("u100", "login.lxp.lu", 8822)
PROMETHEUS = Page("prometheus", "10.3.0.7", 23817, "mel2041")
GRAFANA = Page("grafana", "10.3.0.7", 23900, "mel2041")
LOCAL = Page("vllm", "127.0.0.1", 8000, "mel2001")


def free(_port: int) -> bool:
    return True


class Lines(unittest.TestCase):
    def test_one_line_for_all_pages_that_the_login_host_reaches(self) -> None:
        (tunnel,) = tunnels(LOGIN, forwards([PROMETHEUS, GRAFANA], free), jump=False)
        self.assertEqual(
            command_line(tunnel),
            "ssh -N -o ExitOnForwardFailure=yes -o ServerAliveInterval=60 -L 9090:10.3.0.7:23817 "
            "-L 3000:10.3.0.7:23900 -p 8822 u100@login.lxp.lu",
        )

    def test_a_second_hop_to_the_node_of_what_listens_there_alone_or_when_asked(self) -> None:
        direct, hop = tunnels(LOGIN, forwards([GRAFANA, LOCAL], free), jump=False)
        self.assertNotIn("-J", command_line(direct))
        self.assertIn("-L 8000:127.0.0.1:8000 -J u100@login.lxp.lu:8822 u100@mel2001", command_line(hop))
        (asked,) = tunnels(LOGIN, forwards([PROMETHEUS, GRAFANA], free), jump=True)
        self.assertTrue(command_line(asked).endswith("-J u100@login.lxp.lu:8822 u100@mel2041"))

    def test_a_taken_port_gives_way_to_the_next(self) -> None:
        taken = {3000, 3001}
        made = forwards([GRAFANA, GRAFANA, PROMETHEUS], lambda port: port not in taken)
        self.assertEqual([forward.local_port for forward in made], [3002, 3003, 9090])
        self.assertEqual(made[0].url, "http://localhost:3002/")
        self.assertEqual(
            [each.local_port for each in forwards([GRAFANA, LOCAL], free, 13000)], [13000, 13001]
        )

    def test_ports_that_need_privilege_and_the_last_port(self) -> None:
        low, high = replace(LOCAL, port=443), replace(LOCAL, port=65535)
        self.assertEqual([each.local_port for each in forwards([low, high, high], free)], [1024, 65535, 1025])

    def test_logins(self) -> None:
        self.assertEqual(parse_login("u100@login.lxp.lu:8822", "me"), LOGIN)
        self.assertEqual(parse_login("host", "me"), Login("me", "host", 22))
        self.assertEqual(parse_login("a@[fd00::1]:2222", "me"), Login("a", "fd00::1", 2222))
        for text in ("", "a@", "a b@host", "host:0", "host:99999", "host:", "h;reboot"):
            with self.assertRaises(ConfigError, msg=text):
                parse_login(text, "me")

    def test_no_login_may_become_an_option_of_ssh(self) -> None:
        for text in ("-oProxyCommand=x", "-oX", "u@-oX", "-u@host"):
            with self.assertRaises(ConfigError, msg=text):
                parse_login(text, "me")

    def test_a_node_that_is_not_known(self) -> None:
        with self.assertRaisesRegex(ConfigError, "vllm listens at 127.0.0.1:8000"):
            tunnels(LOGIN, forwards([replace(LOCAL, node="")], free), jump=False)

    def test_the_same_as_configuration(self) -> None:
        (tunnel,) = tunnels(LOGIN, forwards([PROMETHEUS, GRAFANA], free), jump=True)
        block = config_block(tunnel, "aifbench-monitors")
        self.assertEqual(
            block.splitlines(),
            [
                "Host aifbench-monitors",
                "    HostName mel2041",
                "    User u100",
                "    ProxyJump u100@login.lxp.lu:8822",
                "    LocalForward 9090 10.3.0.7:23817",
                "    LocalForward 3000 10.3.0.7:23900",
                "    ServerAliveInterval 60",
                "    ExitOnForwardFailure yes",
            ],
        )
        (direct,) = tunnels(LOGIN, forwards([GRAFANA], free), jump=False)
        self.assertIn("    Port 8822", config_block(direct, "x").splitlines())

    def test_ssh_reads_both_forms_the_same(self) -> None:
        ssh = shutil.which("ssh")
        ipv6 = replace(GRAFANA, address="fd00::7")
        for jump in (False, True):
            (tunnel,) = tunnels(LOGIN, forwards([PROMETHEUS, ipv6], free), jump=jump)
            self.assertIn("[fd00::7]:23900", command_line(tunnel))
            if ssh is None:
                continue
            with tempfile.NamedTemporaryFile("w", suffix=".conf") as config:
                config.write(config_block(tunnel, "there") + "\n")
                config.flush()
                by_config = ssh_sees([ssh, "-G", "-F", config.name, "there"])
            by_line = ssh_sees([ssh, "-G", "-F", "none", *shlex.split(command_line(tunnel))[1:]])
            self.assertEqual(by_line, by_config)
            self.assertIn("serveraliveinterval 60", by_line)

    def test_this_machines_ports(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.assertFalse(is_free_here(server.getsockname()[1]))


def ssh_sees(words: list[str]) -> list[str]:
    """The settings that matter here, as ssh understands them."""
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    wanted = ("hostname", "user ", "port ", "localforward", "proxyjump", "serveralive", "exitonforward")
    return sorted(line for line in found if line.startswith(wanted))


class Typed(ShellCase):
    def setUp(self) -> None:
        super().setUp()
        self.session = type(self.session)("vllm", "monitors")
        self.session.scheduler_kind_now = "slurm"
        self.session.config = replace(self.session.config, login="u100@login.lxp.lu:8822")
        self.shell = self.make_shell()
        self.place("vllm", Endpoint("10.3.0.8", 24001, ports={"metrics": 24002}))
        self.place(
            "monitors",
            Endpoint(
                "10.3.0.7",
                23817,
                ports={"grafana": 23900, "loki": 3100, "otlp": 4318},
                secret_file=Path("/results/services/m/secret"),
            ),
            kind="monitors",
        )

    def place(self, name: str, endpoint: Endpoint, *, kind: str = "vllm") -> None:
        job = JobInfo("12", JobState.RUNNING, nodes=("mel2041",), source="squeue")
        status = self.session.services[name]
        self.session.services[name] = replace(status, kind=kind, endpoint=endpoint, job=job)

    def test_monitors_need_not_be_named(self) -> None:
        out, _ = self.run_line("tunnel")
        self.assertIn("-L 9090:10.3.0.7:23817 -L 3000:10.3.0.7:23900 -p 8822 u100@login.lxp.lu", out)
        self.assertIn("grafana     http://localhost:3000/", out)
        self.assertNotIn("3100", out)
        self.assertIn("/results/services/m/secret", out)
        ssh_line = next(line for line in out.splitlines() if "ssh -N" in line)
        self.assertNotIn("secret", ssh_line)

    def test_other_services_and_several(self) -> None:
        out, _ = self.run_line("tunnel vllm monitors")
        self.assertEqual(out.count("ssh -N"), 1)
        self.assertIn("-L 24001:10.3.0.8:24001", out)
        out, _ = self.run_line("tunnel vllm --jump")
        self.assertIn("-J u100@login.lxp.lu:8822 u100@mel2041", out)
        out, _ = self.run_line("tunnel --port 13000")
        self.assertIn("http://localhost:13001/", out)

    def test_as_configuration(self) -> None:
        out, _ = self.run_line("tunnel --config")
        self.assertIn("Host aifbench-monitors\n", out)
        self.assertIn("ssh -N aifbench-monitors", out)

    def test_without_slurm_no_tunnel_is_needed(self) -> None:
        self.session.scheduler_kind_now = "local"
        out, _ = self.run_line("tunnel")
        self.assertIn("no tunnel is needed", out)
        self.assertIn("http://10.3.0.7:23900/", out)
        self.assertNotIn("ssh", out)

    def test_what_stands_in_the_way(self) -> None:
        self.assert_fails("tunnel nothing", USAGE, "nothing")
        self.assert_fails("tunnel --port 80", USAGE, "--port")
        self.session.config = replace(self.session.config, login="")
        self.assert_fails("tunnel", USAGE, "AIFBENCH_LOGIN=user@host:port")
        self.session.become("monitors", Stage.QUEUED)
        self.assert_fails("tunnel monitors", 1, "monitors is QUEUED", "check monitors --wait")


if __name__ == "__main__":
    unittest.main()

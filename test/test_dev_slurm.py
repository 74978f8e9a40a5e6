"""The texts dev-slurm writes; test/integration/real_dev_slurm.py tries the cluster itself."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "utils/dev-slurm"))

from devslurm import cli, config, network
from devslurm.cluster import Cluster, DevSlurmError


class Texts(unittest.TestCase):
    def test_only_the_last_two_nodes_have_gpus(self) -> None:
        text = config.slurm_conf(Cluster(node_count=4))
        self.assertIn("NodeName=node2 NodeHostname=node2 NodeAddr=10.77.0.12\n", text)
        self.assertIn("NodeName=node3 NodeHostname=node3 NodeAddr=10.77.0.13 Gres=gpu:a100:4\n", text)
        self.assertIn("PartitionName=cpu Nodes=node1,node2 ", text)
        self.assertIn("PartitionName=gpu Nodes=node3,node4\n", text)

    def test_controller_is_on_the_login_side_of_the_network(self) -> None:
        self.assertIn("SlurmctldHost=box(10.77.0.1)\n", config.slurm_conf(Cluster(login="box")))

    def test_accounting_can_be_left_out(self) -> None:
        self.assertIn("AccountingStorageEnforce=", config.slurm_conf(Cluster()))
        without = config.slurm_conf(Cluster(accounting=False))
        self.assertIn("AccountingStorageType=accounting_storage/none\n", without)
        self.assertNotIn("AccountingStorageEnforce=", without)

    def test_without_control_groups_memory_is_watched_by_polling(self) -> None:
        self.assertIn("ProctrackType=proctrack/cgroup\n", config.slurm_conf(Cluster(cgroups=True)))
        without = config.slurm_conf(Cluster(cgroups=False))
        self.assertIn("ProctrackType=proctrack/linuxproc\n", without)
        self.assertIn("JobAcctGatherParams=OverMemoryKill\n", without)

    def test_mpi_finds_its_peers_where_all_nodes_share_one_tmp(self) -> None:
        self.assertIn("PMIxCliTmpDirBase=/dev/shm\n", config.mpi_conf())

    def test_database_password_is_the_same_on_both_sides(self) -> None:
        cluster = Cluster(database_password="s3cret")
        self.assertIn("StoragePass=s3cret\n", config.slurmdbd_conf(cluster))
        self.assertIn("IDENTIFIED BY 's3cret'", config.database_sql(cluster))

    def test_strict_is_a_flag_of_the_submit_rules(self) -> None:
        self.assertIn("local strict = false\n", config.job_submit_lua())
        self.assertIn("local strict = true\n", config.job_submit_lua(strict=True))

    def test_only_our_lines_leave_the_hosts_file(self) -> None:
        hosts = "127.0.0.1 localhost\n10.77.0.11 node1 # dev-slurm\n10.0.0.9 node9\n"
        self.assertEqual(network.without_our_lines(hosts), "127.0.0.1 localhost\n10.0.0.9 node9\n")

    def test_unknown_node_is_named_with_the_valid_ones(self) -> None:
        with self.assertRaisesRegex(DevSlurmError, "no node 'node5'; there are node1 to node4"):
            Cluster(node_count=4).node("node5")

    def test_every_command_is_explained_in_the_readme(self) -> None:
        readme = (config.TEMPLATES.parent / "README.md").read_text()
        for command in (
            *cli.PLAIN_COMMANDS,
            *cli.NODE_COMMANDS,
            "up",
            "shell",
            "expire",
            "forget",
            "late-logs",
        ):
            self.assertIn(f"`{command}", readme)

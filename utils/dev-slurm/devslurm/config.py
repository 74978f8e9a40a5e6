"""The cluster's configuration files as text: templates/ filled in. Nothing here touches the machine."""

from pathlib import Path
from string import Template

from devslurm.cluster import DATABASE_PORT, GPUS_PER_NODE, LOGIN_IP, ROOT, Cluster, Node

TEMPLATES = Path(__file__).parents[1] / "templates"
NORMAL_MIN_JOB_AGE_S = 300

_WITH_ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment,job_script,job_env"""
_WITHOUT_ACCOUNTING = "AccountingStorageType=accounting_storage/none"

_WITH_CGROUPS = {
    "proctrack": "proctrack/cgroup",
    "task": "task/cgroup",
    "gather": "jobacct_gather/cgroup",
    "gather_params": "NoOverMemoryKill",
}
_WITHOUT_CGROUPS = {
    "proctrack": "proctrack/linuxproc",
    "task": "task/none",
    "gather": "jobacct_gather/linux",
    "gather_params": "OverMemoryKill",
}


def _fill(template: str, **values: object) -> str:
    return Template((TEMPLATES / template).read_text()).substitute(values, root=ROOT)


def _names(nodes: list[Node]) -> str:
    return ",".join(node.name for node in nodes)


def _gpu_names(cluster: Cluster) -> str:
    return _names([node for node in cluster.nodes if node.has_gpus])


def _node_line(node: Node) -> str:
    gres = f" Gres=gpu:a100:{GPUS_PER_NODE}" if node.has_gpus else ""
    return f"NodeName={node.name} NodeHostname={node.name} NodeAddr={node.ip}{gres}"


def slurm_conf(cluster: Cluster, *, min_job_age_s: int = NORMAL_MIN_JOB_AGE_S) -> str:
    return _fill(
        "slurm.conf",
        login=cluster.login,
        login_ip=LOGIN_IP,
        min_job_age_s=min_job_age_s,
        accounting=_WITH_ACCOUNTING if cluster.accounting else _WITHOUT_ACCOUNTING,
        nodes="\n".join(_node_line(node) for node in cluster.nodes),
        all_nodes=_names(cluster.nodes),
        cpu_nodes=_names([node for node in cluster.nodes if not node.has_gpus]),
        gpu_nodes=_gpu_names(cluster),
        **(_WITH_CGROUPS if cluster.cgroups else _WITHOUT_CGROUPS),
    )


def slurmdbd_conf(cluster: Cluster) -> str:
    return _fill(
        "slurmdbd.conf",
        login=cluster.login,
        database_port=DATABASE_PORT,
        database_password=cluster.database_password,
    )


def gres_conf(cluster: Cluster) -> str:
    return _fill("gres.conf", gpu_nodes=_gpu_names(cluster))


def mpi_conf() -> str:
    return _fill("mpi.conf")


def cgroup_conf() -> str:
    return _fill("cgroup.conf")


def job_submit_lua(*, strict: bool = False) -> str:
    return _fill("job_submit.lua", strict="true" if strict else "false")


def database_sql(cluster: Cluster) -> str:
    return (
        "CREATE DATABASE slurm_acct_db;\n"
        f"CREATE USER slurm@127.0.0.1 IDENTIFIED BY '{cluster.database_password}';\n"
        "GRANT ALL ON slurm_acct_db.* TO slurm@127.0.0.1;\n"
    )

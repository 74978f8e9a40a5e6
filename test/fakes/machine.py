"""A machine's /proc and /sys as folders, whose counters a test moves."""

from pathlib import Path

STAT = "cpu  {user} 50 {system} {idle} 300 20 30 {steal} 0 0\ncpu0 1 0 0 0 0 0 0 0 0 0\nintr 5 0 0\n"
NET = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop
    lo: {lo} 10 0 0 0 0 0 0 {lo} 10 0 0 0 0 0 0
  eth0: {received} 10 0 0 0 0 0 0 {sent} 10 0 0 0 0 0 0
 veth1: 777 10 0 0 0 0 0 0 777 10 0 0 0 0 0 0
"""
DISKS = """   7       0 loop0 9 9 9 9 9 9 9 9 9 9 9
 259       0 nvme0n1 {reads} 5 {read_sectors} 8 {writes} 2 {written_sectors} 9 0 9 9
 259       1 nvme0n1p1 9 9 9 9 9 9 9 9 9 9 9
"""
LLITE = """snapshot_time             1795212972.0 secs.nsecs
read_bytes                12 samples [bytes] 4096 1048576 {lustre_read}
write_bytes               3 samples [bytes] 4096 4096 12288
open                      4 samples [regs]
"""


class FakeMachine:
    """Two processors and 16 GiB; `set` changes counters, in the kernel's own units."""

    def __init__(self, root: Path) -> None:
        self.proc, self.sys = root / "proc", root / "sys"
        self.values: dict[str, int] = {
            "user": 1000, "system": 500, "idle": 9000, "steal": 10, "lo": 100, "received": 1000, "sent": 2000,
            "reads": 10, "read_sectors": 80, "writes": 20, "written_sectors": 160, "lustre_read": 65536,
        }  # fmt: skip
        self.write("proc/meminfo", "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 12582912 kB\n")
        self.write("proc/loadavg", "1.50 0.80 0.40 3/512 4711\n")
        self.write("proc/self/cgroup", "0::/\n")
        for device in ("loop0", "nvme0n1"):
            (self.sys / "block" / device).mkdir(parents=True)
        for interface in ("lo", "eth0", "veth1"):
            self.write(f"sys/class/net/{interface}/type", "1\n")
        (self.sys / "class/net/eth0/device").mkdir()
        self.set()

    def write(self, path: str, text: str) -> Path:
        """In place, as the kernel's files change: somebody may have them open."""
        target = self.proc.parent / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("r+" if target.exists() else "w") as file:
            file.write(text)
            file.truncate()
        return target

    def set(self, **values: int) -> None:
        self.values |= values
        self.write("proc/stat", STAT.format_map(self.values))
        self.write("proc/net/dev", NET.format_map(self.values))
        self.write("proc/diskstats", DISKS.format_map(self.values))

    def add_lustre(self) -> None:
        self.write("proc/fs/lustre/llite/project-ffff8/stats", LLITE.format_map(self.values))

    def add_infiniband(self, received_words: int, sent_words: int) -> None:
        counters = "sys/class/infiniband/mlx5_0/ports/1/counters"
        self.write(f"{counters}/port_rcv_data", f"{received_words}\n")
        self.write(f"{counters}/port_xmit_data", f"{sent_words}\n")
        self.write("sys/class/net/ib0/type", "32\n")
        (self.sys / "class/net/ib0/device").mkdir(exist_ok=True)

    def add_job(self, cpu_usec: int, memory_bytes: int) -> None:
        group = "system.slice/slurmstepd.scope/job_42"
        self.write("proc/self/cgroup", f"0::/{group}/step_batch/user/task_0\n")
        self.write(f"sys/fs/cgroup/{group}/cpu.stat", f"usage_usec {cpu_usec}\nuser_usec 1\n")
        self.write(f"sys/fs/cgroup/{group}/memory.current", f"{memory_bytes}\n")

    def add_rapl(self, energy_uj: int, *, package: int = 0, span_uj: int = 1_000_000_000) -> None:
        zone = f"sys/class/powercap/intel-rapl:{package}"
        self.write(f"{zone}/name", f"package-{package}\n")
        self.write(f"{zone}/max_energy_range_uj", f"{span_uj}\n")
        self.write(f"{zone}/energy_uj", f"{energy_uj}\n")

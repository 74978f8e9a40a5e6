"""Other people's file system benchmarks by name, behind one small interface: find, command, parse."""

from collections.abc import Mapping

from aifbench.workloads.engine_types import (
    IO_OPERATIONS,
    METADATA_OPERATIONS,
    EngineCommand,
    EngineJob,
    EngineReading,
    EngineResult,
    FileEngine,
)
from aifbench.workloads.mpi_engines import Io500, Ior, Mdtest
from aifbench.workloads.node_engines import Elbencho, Fio

__all__ = [
    "ENGINES",
    "IO_OPERATIONS",
    "METADATA_OPERATIONS",
    "EngineCommand",
    "EngineJob",
    "EngineReading",
    "EngineResult",
    "FileEngine",
]

ENGINES: Mapping[str, FileEngine] = {
    engine.name: engine for engine in (Io500(), Ior(), Mdtest(), Fio(), Elbencho())
}

"""What the metrics of file systems mean, and what other tools of that field call the same quantity.

Names of other tools are those of what they write: `result.txt` of IO500, the tables of IOR and mdtest, the
JSON of fio and elbencho, `summary.json` of MLPerf Storage (DLIO).
"""

from collections.abc import Mapping

from aifbench.results.glossary import Definition

FILE_TOOLS = ("io500", "ior", "mdtest", "fio", "elbencho", "mlperf-storage")

_ARCHIVE = "public archive IO500/submission-data, commit f610b34 (2026-02-18)"
_RULES = "the rules of io500.org"
_TO_THE_LAST = "all data by the time until the last process was done"

FILE_METRICS: Mapping[str, Definition] = {
    "bandwidth": Definition(
        "bytes moved by good operations / (end of the last process - start)", _TO_THE_LAST, "MiB/s",
        aliases={"io500": "score (of ior-*)", "ior": "bw(MiB/s)", "elbencho": "throughput, last done"},
        differs={
            "fio": "bw_bytes is each job's bytes by its own run time",
            "mlperf-storage": "train_io_mean_MB_per_second (in MiB/s) is a mean over epochs",
        },
    ),
    "bandwidth_per_node": Definition(
        "bandwidth / nodes", "what can be compared between jobs of different size", "MiB/s"
    ),
    "bandwidth_first_done": Definition(
        "bytes moved until then / (end of the first process - start)",
        "or when time was called (stonewall); it flatters where some processes are slow", "MiB/s",
        aliases={"io500": "throughput-stonewall", "elbencho": "throughput, first done"},
        differs={"ior": "`mean data` of its stonewall line, times tasks, by its time"},
    ),
    "throughput_first_done": Definition(
        "operations done until then / (end of the first process - start)",
        "or when time was called (stonewall)", "ops/s",
        aliases={"io500": "rate-stonewall", "elbencho": "IOPS, first done"},
    ),
    "time": Definition(
        "end of the last process - start", "how long all of the work took", "s",
        aliases={"io500": "t_delta", "ior": "total(s)", "elbencho": "elapsed time, last done"},
        differs={"fio": "runtime is each job's own", "io500": "with starting and ending the phase"},
    ),
    "slowest_rank": Definition(
        "time of the slowest process / time of the median process", "1 where all were equally fast", "x"
    ),
    "accelerator_utilisation": Definition(
        "emulated compute time / total time, without the first step",
        "share of the time for which the data came early enough", "%",
        source="MLPerf Storage v2, training",
        aliases={"mlperf-storage": "train_au_mean_percentage"},
        differs={"mlperf-storage": "the mean over epochs"},
    ),
    "score": Definition(
        "sqrt(bandwidth mean * metadata mean)", "0 where one phase gave nothing", "", source=_RULES,
        aliases={"io500": "SCORE"}, differs={"io500": "leaves out a phase that gave 0"},
    ),
    "score_printed": Definition(
        "as the program printed it", "beside the strict one, for recognising it elsewhere", "",
        aliases={"io500": "SCORE"},
    ),
    "bandwidth_mean": Definition(
        "geometric mean of the bandwidths of the four ior phases", "0 where one gave nothing", "GiB/s",
        source=_RULES, aliases={"io500": "BW"}, differs={"io500": "leaves out a phase that gave 0"},
    ),
    "metadata_mean": Definition(
        "geometric mean of the rates of the eight metadata phases", "0 where one gave nothing", "kIOPS",
        source=_RULES, aliases={"io500": "MD"}, differs={"io500": "leaves out a phase that gave 0"},
    ),
    "reference_share": Definition(
        "result / that of the reference: per node for bandwidth, in total for metadata",
        "bandwidth grows with the nodes of a job, metadata servers do not", "%", source=_ARCHIVE,
    ),
    "public_standing": Definition(
        "public systems with a lower strict score / all public systems, the best run of each",
        "where it stands among systems of all sizes, not how well it did for its size", "%",
        source=_ARCHIVE,
    ),
}  # fmt: skip

"""Phases of a benchmark for real, but in this process: one worker after another, with the real engine."""

import time
from pathlib import Path

from test.fakes.simulated_load import Done

from aifbench.load import rendezvous as rv
from aifbench.load.assignment import StopFlag
from aifbench.load.engine import Engine
from aifbench.load.fleet import PhaseOutcome
from aifbench.results.record import Measurement
from aifbench.results.summary import summarise
from aifbench.servers.benchmark import Benchmark, Phase
from aifbench.servers.run import stream_facts


def perform(benchmark: Benchmark, root: Path) -> list[Done]:
    """Every phase, as BenchRun would do it; a phase that is concluded gives one Done for each measurement."""
    done = []
    for number, phase in enumerate(benchmark.phases()):
        directory = rv.phase_dir(root, number)
        directory.mkdir(parents=True)
        outcome = _run(phase, directory)
        if phase.conclude is not None:
            done += [Done(phase, measurement, {}) for measurement in phase.conclude(outcome)]
            continue
        (stream,) = phase.plan.streams
        facts = stream_facts(phase, stream, "", outcome.start_wall_s)
        measured: Measurement = summarise(outcome.samples(stream), facts, outcome.reports(stream))
        found = phase.verify(outcome, {stream.name: measured}) if phase.is_measured else {}
        done.append(Done(phase, measured, found))
    return done


def _run(phase: Phase, directory: Path) -> PhaseOutcome:
    (stream,) = phase.plan.streams
    start_wall_s = time.time()
    for worker in range(stream.workers):
        engine = Engine(phase.plan, stream, worker, directory)
        engine.prepare()
        try:
            # A timed phase must not be over before the engine has tidied the memory of a long test run.
            lead_ns = 300_000_000 if phase.plan.measure_s else 0
            report = engine.run(time.perf_counter_ns() + lead_ns, StopFlag())
        finally:
            engine.close()
        rv.write_json(directory / rv.report_file(worker), report.to_json())
    return PhaseOutcome(directory, phase.plan, start_wall_s, "")

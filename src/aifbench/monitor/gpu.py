"""What NVIDIA GPUs tell of themselves: by their driver's library, or by its program where that is not found.

The library has an energy counter; of the program only power is known. Neither may stop the one who asks: a
driver can hang for ever, and then there are no new values.
"""

import ctypes
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from aifbench.monitor.proc import Values

LIBRARY = "libnvidia-ml.so.1"
PROGRAM = "nvidia-smi"
INTERVAL_S = 1.0
ANSWER_S = 0.1
STALE_S = 3.0  # older values are of another time
_MIB = 1 << 20
_GPU_TEMPERATURE = 0
_TEXT_BYTES = 96
# Of the program's columns, those after the first two change.
_QUERY = "index,uuid,name,utilization.gpu,memory.used,power.draw,temperature.gpu"


class Gpus(Protocol):
    """`names` are of those that were seen so far; `read` waits for ANSWER_S at most."""

    source: str

    @property
    def names(self) -> Mapping[str, str]:
        """Model names by number, of the GPUs that were seen so far."""

    def read(self) -> Values:
        """By number: `busy` in percent, `memory` in bytes, `power` in W, `energy` in J (a counter),
        `temperature` in degrees; without those that are not known, or not any more.
        """

    def close(self) -> None: ...


def find_gpus(environment: Mapping[str, str]) -> tuple[Gpus | None, str]:
    """Those of this job, or why there are none."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    chosen = [each.strip() for each in (visible or "").split(",") if each.strip()]
    if visible is not None and (not chosen or chosen[0] in ("-1", "NoDevFiles")):
        return None, "this job has no GPU"
    try:
        return Nvml(ctypes.CDLL(LIBRARY), chosen), ""
    except OSError as error:
        why = str(error)
    program = shutil.which(PROGRAM, path=environment.get("PATH"))
    if program is None:
        return None, f"neither {LIBRARY} nor {PROGRAM} is here"
    try:
        return NvidiaSmi(program, chosen), ""
    except OSError as error:
        return None, f"{why}; {program}: {error.strerror}"


class _Utilisation(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class _Memory(ctypes.Structure):
    _fields_ = [
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    ]


class Nvml:
    """The driver's library, asked from a thread of its own. Raises OSError where it does not work."""

    source = "NVML total energy counter"

    def __init__(self, library: Any, chosen: Sequence[str]) -> None:
        self._library = library
        self._check(library.nvmlInit_v2(), "nvmlInit")
        self._handles = self._find(chosen)
        self.names = {number: self._text(handle, "Name") for number, handle in self._handles.items()}
        self._latest = _Latest()
        self._asked, self._answered = threading.Event(), threading.Event()
        self._is_closed = False
        threading.Thread(target=self._answer, name="gpus", daemon=True).start()

    def read(self) -> Values:
        self._answered.clear()
        self._asked.set()
        self._answered.wait(ANSWER_S)
        return self._latest.read()

    def close(self) -> None:
        self._is_closed = True
        self._asked.set()

    def _answer(self) -> None:
        while self._asked.wait() and not self._is_closed:
            self._asked.clear()
            for number, handle in self._handles.items():
                self._latest.put(number, self._values(handle))
            self._answered.set()

    def _find(self, chosen: Sequence[str]) -> dict[str, Any]:
        count = ctypes.c_uint()
        self._check(self._library.nvmlDeviceGetCount_v2(ctypes.byref(count)), "nvmlDeviceGetCount")
        found = {}
        for index in range(count.value):
            handle = ctypes.c_void_p()
            if self._library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)):
                continue  # another job's
            uuid = self._text(handle, "UUID")
            if not chosen or str(index) in chosen or any(uuid.startswith(each) for each in chosen):
                found[str(index)] = handle
        if not found:
            raise OSError("the driver shows none of this job's GPUs")
        return found

    def _values(self, handle: Any) -> Values:
        busy, memory, power = _Utilisation(), _Memory(), ctypes.c_uint()
        energy, temperature = ctypes.c_ulonglong(), ctypes.c_uint()
        get, of = self._library, ctypes.byref
        values: Values = {}
        if not get.nvmlDeviceGetUtilizationRates(handle, of(busy)):
            values["busy"] = busy.gpu
        if not get.nvmlDeviceGetMemoryInfo(handle, of(memory)):
            values["memory"] = memory.used
        if not get.nvmlDeviceGetPowerUsage(handle, of(power)):
            values["power"] = power.value / 1e3
        if not get.nvmlDeviceGetTotalEnergyConsumption(handle, of(energy)):
            values["energy"] = energy.value / 1e3
        if not get.nvmlDeviceGetTemperature(handle, ctypes.c_int(_GPU_TEMPERATURE), of(temperature)):
            values["temperature"] = temperature.value
        return values

    def _text(self, handle: Any, what: str) -> str:
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        get = getattr(self._library, f"nvmlDeviceGet{what}")
        return "" if get(handle, text, ctypes.c_uint(_TEXT_BYTES)) else text.value.decode(errors="replace")

    def _check(self, status: int, what: str) -> None:
        if status:
            raise OSError(f"{what} failed with status {status}")


class NvidiaSmi:
    """One long-lived program that prints a line per GPU and second. Raises OSError when it cannot be run."""

    source = f"power as {PROGRAM} tells it, integrated"

    def __init__(self, program: str, chosen: Sequence[str]) -> None:
        self.names: dict[str, str] = {}
        self._latest = _Latest()
        argv = [program, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
        argv += [f"--loop-ms={round(INTERVAL_S * 1000)}", *([f"--id={','.join(chosen)}"] if chosen else [])]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        threading.Thread(target=self._follow, name="gpus", daemon=True).start()

    def read(self) -> Values:
        return self._latest.read()

    def close(self) -> None:
        self._process.kill()  # holds nothing worth a gentler end, and one that is stopped takes no other

    def _follow(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                parsed = parse_line(line.decode(errors="replace"))
                if parsed is not None:
                    number, name, values = parsed
                    self.names[number] = name
                    self._latest.put(number, values)


def parse_line(line: str) -> tuple[str, str, Values] | None:
    """A line of the program: number, model and values; None for one that is not of that form.

    What a GPU cannot tell stands as [N/A] or [Not Supported], also without brackets.
    """
    words = [word.strip() for word in line.split(",")]
    if len(words) != 7 or not words[0].isdecimal():
        return None
    scales = (("busy", 1), ("memory", _MIB), ("power", 1), ("temperature", 1))
    values: Values = {}
    for (name, scale), word in zip(scales, words[3:], strict=True):
        number = _number(word)
        if number is not None:
            values[name] = int(number * scale) if name == "memory" else number * scale
    return words[0], words[2], values


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


class _Latest:
    """The newest values of each GPU, from one thread to another."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._values: dict[str, tuple[float, Values]] = {}

    def put(self, number: str, values: Values) -> None:
        self._values[number] = self._now_s(), values

    def read(self) -> Values:
        now_s = self._now_s()
        return {
            # Their own time: a second's wait in between would otherwise look like a change of power.
            number: {**values, "age": round(now_s - seen_s, 3)}
            for number, (seen_s, values) in list(self._values.items())
            if now_s - seen_s <= STALE_S and values
        }

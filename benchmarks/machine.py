"""What a benchmark ran on, and the memory of its process."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """The CPU's name, which Python does not know on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def reset_peak() -> int:
    """Return the resident memory of this process, from which `peak_bytes` counts anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return _read_status("VmRSS")


def peak_bytes() -> int:
    """The most resident memory of this process since `reset_peak`."""
    return _read_status("VmHWM")


def _read_status(name: str) -> int:
    """A size of this process, from Linux."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {name}")

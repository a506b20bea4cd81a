"""How much memory a program takes beyond what is in use, from Linux' own high-water mark."""

from collections.abc import Callable
from pathlib import Path


def growth(program: Callable[[], object]) -> float | None:
    """Megabytes (10^6 bytes) that this process grows by at most while a program runs; None where it is not
    told."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to what is in use now
    except OSError:
        return None
    before = _high_water_mark()
    program()
    return (_high_water_mark() - before) / 1e6


def _high_water_mark() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

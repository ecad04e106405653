"""One target under atheris: `_run.py TARGET CORPUS [libFuzzer's options]`. Started by `python -m fuzz`."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.exit("fuzzing needs atheris (Linux on x86-64): .venv/bin/pip install atheris")

with atheris.instrument_imports(
    include=["colla.model", "colla.kernel", "colla.protocol", "colla.access", "colla.node"]
):
    # Victims are simulated, and a simulation remembers answers, as a real node does not: with few remembered, what
    # grows is the program's own.
    from colla.model import sharing

    sharing.ANSWERS_MAX = 256

    sys.path.insert(0, str(Path(__file__).parent))
    from _targets import TARGETS

    import colla.agents.router  # noqa: F401 (imported here so that it is instrumented)

import psutil

WARM_UP_INPUTS = 20_000
LOOK_EVERY_INPUTS = 20_000
TELL_EVERY_INPUTS = 100_000
GROWTH_BYTES_MAX = 50 * 2**20


class Grew(Exception):
    """The process holds on to memory that inputs made it take."""


def main() -> None:
    name = sys.argv[1]
    target = TARGETS[name].make()
    process = psutil.Process()
    fed, resident_bytes = 0, 0

    def one_input(data: bytes) -> None:
        nonlocal fed, resident_bytes
        target(data)
        fed += 1
        if fed % LOOK_EVERY_INPUTS == 0:
            gc.collect()  # Simulations collect rarely; victims of before are no growth.
        if fed == WARM_UP_INPUTS:
            resident_bytes = process.memory_info().rss
        elif fed > WARM_UP_INPUTS and fed % LOOK_EVERY_INPUTS == 0:
            growth = process.memory_info().rss - resident_bytes
            if fed % TELL_EVERY_INPUTS == 0:
                print(f"{name}: {fed} inputs, {growth / 2**20:.1f} MiB more", flush=True)
            if growth > GROWTH_BYTES_MAX:
                raise Grew(f"{growth / 2**20:.0f} MiB more after {fed} inputs")

    for number, seed in enumerate(TARGETS[name].seeds()):
        path = Path(sys.argv[2]) / f"seed-{number:03}"
        if not path.exists():
            path.write_bytes(seed)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], one_input)
    atheris.Fuzz()


main()

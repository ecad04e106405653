"""Feed hostile bytes to everything that reads bytes from others, guided by coverage.

    python -m fuzz [--list] [--inputs N] [--seconds S] [TARGET ...]

Needs `atheris` beside what `make` installs: `.venv/bin/pip install atheris` (wheels for Linux on x86-64 only, and each version for
some versions of Python, so the lock does not name it). What a target learns is kept in `fuzz/corpus/TARGET`:
`tests/properties/test_fuzz.py` feeds it again in every run of the tests. An input that breaks something is written to
`fuzz/found/` and named; feed it again with `python -m fuzz TARGET --again FILE`. The run fails too when the process grows by more
than 50 MiB after its first inputs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CORPUS, FOUND = HERE / "corpus", HERE / "found"
BYTES_MAX = 4096
STUCK_AFTER_S = 120
"""By the clock on the wall: on a busy machine making a new victim takes a while."""


def main() -> int:
    sys.path.insert(0, str(HERE))
    from _targets import TARGETS

    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.splitlines()[0])
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"of: {', '.join(TARGETS)}; all without one"
    )
    parser.add_argument("--list", action="store_true", help="show what there is")
    parser.add_argument(
        "--inputs", type=int, default=100_000, help="how many inputs for each (default: 100000)"
    )
    parser.add_argument("--seconds", type=int, default=0, help="stop each after so long (default: no limit)")
    parser.add_argument("--seed", type=int, default=1, help="of the fuzzer's randomness (default: 1)")
    parser.add_argument("--again", type=Path, help="feed this one file to the target, and nothing else")
    options = parser.parse_args()
    unknown = [name for name in options.targets if name not in TARGETS]
    if unknown:
        parser.error(f"no target {', '.join(unknown)}; there are: {', '.join(TARGETS)}")
    if options.list:
        for name, target in TARGETS.items():
            print(f"{name:10} {target.what}")
        return 0
    if options.again is not None:
        if len(options.targets) != 1:
            parser.error("--again needs exactly one target")
        TARGETS[options.targets[0]].make()(options.again.read_bytes())
        return 0
    failed = [name for name in options.targets or TARGETS if not run(name, options)]
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def run(name: str, options: argparse.Namespace) -> bool:
    """Fuzz one target in a process of its own: libFuzzer ends the process that it runs in."""
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    FOUND.mkdir(exist_ok=True)
    command = [sys.executable, str(HERE / "_run.py"), name, str(corpus), f"-runs={options.inputs}"]
    command += [f"-max_len={BYTES_MAX}", f"-seed={options.seed}", f"-artifact_prefix={FOUND}/{name}-"]
    command += [f"-max_total_time={options.seconds}"] if options.seconds else []
    command += ["-reduce_inputs=1", "-print_final_stats=1", f"-timeout={STUCK_AFTER_S}", "-verbosity=0"]
    print(f"=== {name}", flush=True)
    return subprocess.run(command).returncode == 0


if __name__ == "__main__":
    sys.exit(main())

"""Run the benchmarks: all of them, or those named.

    python -m benchmarks [--list] [--quick] [NAME ...]

Each is a program of its own (`python benchmarks/NAME.py --help`) whose docstring says how it measures. They run one
after another, never beside each other; run them on an otherwise idle computer.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def names() -> list[str]:
    """All benchmarks, sorted."""
    return sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(names())}")
    parser.add_argument("--list", action="store_true", help="show what there is")
    parser.add_argument("--quick", action="store_true", help="short runs of those that have them")
    options = parser.parse_args()
    if options.list:
        for name in names():
            text = (HERE / f"{name}.py").read_text()
            print(f"{name:12} {text.removeprefix(chr(34) * 3).splitlines()[0]}")
        return 0
    unknown = [name for name in options.names if name not in names()]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are: {', '.join(names())}")
    failed = []
    for name in options.names or names():
        print(f"\n=== {name}", flush=True)
        program = HERE / f"{name}.py"
        more = ["--quick"] if options.quick and '"--quick"' in program.read_text() else []
        if subprocess.run([sys.executable, str(program), *more]).returncode != 0:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Builds the modules: `python3 build.py` both, `python3 build.py mandelbrot` one of them.

C needs clang, lld and wasi-libc (`apt install clang lld wasi-libc libclang-rt-dev-wasm32`), or Zig, which brings all of it. Zig comes
from PyPI: `pip install ziglang==0.15.2`. The same compiler makes the same bytes; those here are clang 14's and Zig 0.15.2's.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ZIG = [sys.executable, "-m", "ziglang"]
CLANG = ["clang", "--target=wasm32-wasi", "--sysroot=/usr"]
C = ["-Os", "-Wall", "-Wextra", "-Wl,--strip-all"]


def has_zig() -> bool:
    """Whether this Python has Zig."""
    return importlib.util.find_spec("ziglang") is not None


def command(name: str, into: Path) -> list[str]:
    """What compiles the module; empty when the compiler is missing."""
    target = str(into / f"{name}.wasm")
    if name == "words":
        zig = [
            *ZIG,
            "build-exe",
            "words.zig",
            "-target",
            "wasm32-wasi",
            "-O",
            "ReleaseSmall",
            f"-femit-bin={target}",
        ]
        return zig if has_zig() else []
    if shutil.which("clang"):
        return [*CLANG, *C, "-o", target, f"{name}.c"]
    return [*ZIG, "cc", "-target", "wasm32-wasi", *C, "-o", target, f"{name}.c"] if has_zig() else []


def build(name: str, into: Path = HERE) -> bool:
    """Compile one module; False when its compiler is missing."""
    line = command(name, into)
    if line:
        subprocess.run(line, cwd=HERE, check=True)
    return bool(line)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or ["mandelbrot", "words"]:
        if not build(wanted):
            sys.exit(f"No compiler for {wanted}. See {Path(__file__).name}.")

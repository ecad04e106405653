"""The modules of `examples/wasm` are what their sources say, as far as there are compilers here."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "examples" / "wasm"


def builder() -> object:
    spec = importlib.util.spec_from_file_location("example_wasm_build", FOLDER / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def version(*command: str) -> str:
    """What a compiler says of itself; empty when it is missing."""
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("name", ["mandelbrot", "words"])
def test_the_stored_module_is_the_built_one(name: str, tmp_path: Path) -> None:
    build = builder()
    if name == "mandelbrot":
        found = "clang version 14.0" in version("clang", "--version") and shutil.which("wasm-ld")
        if not found or not Path("/usr/lib/wasm32-wasi").is_dir():
            pytest.skip("clang 14 with wasi-libc is not installed")
    elif not build.has_zig():  # type: ignore[attr-defined]
        pytest.skip("Zig is not installed")
    assert build.build(name, tmp_path)  # type: ignore[attr-defined]
    assert (tmp_path / f"{name}.wasm").read_bytes() == (FOLDER / f"{name}.wasm").read_bytes()

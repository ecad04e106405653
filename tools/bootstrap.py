"""Makes `.venv` from `requirements.lock` on a machine that has nothing but Python and make.

Owns the folder `.venv`. Runs on the machine's own Python (3.11 or newer) with the standard library alone,
since nothing else is there yet. Everything installed is named with its hash in the lock, `uv` included; the
project itself goes in last, editable, built by the locked hatchling without fetching anything.

`uv` does not read pip's configuration, so what pip was told about indexes, certificates and proxies is
handed to it through the environment; should uv still not get through, pip installs the same lock. Why this
is so: docs/decisions/0003-build-without-uv-lock.md.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
STAMP = VENV / ".installed"
PYTHON_LEAST = (3, 11)
PIP_LEAST_FOR_OTHER_PYTHON = (22, 3)  # The first that knows `pip --python`.
# Nothing is built from source: a build would fetch what it needs without hashes.
FROM_LOCK = ("--require-hashes", "--only-binary", ":all:")
SCRIPTS = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = str(SCRIPTS / "python")
UV = str(SCRIPTS / "uv")

# What pip calls it, what uv calls it, and what stands between several values for uv.
PIP_TO_UV = (
    ("index-url", "UV_DEFAULT_INDEX", " "),
    ("extra-index-url", "UV_INDEX", " "),
    ("find-links", "UV_FIND_LINKS", ","),
    ("trusted-host", "UV_INSECURE_HOST", " "),
    ("no-index", "UV_NO_INDEX", " "),
    ("cert", "SSL_CERT_FILE", " "),
    ("client-cert", "SSL_CLIENT_CERT", " "),
    ("proxy", "ALL_PROXY", " "),
    ("timeout", "UV_HTTP_TIMEOUT", " "),
)
# The lock is resolved from one complete index: a folder or a partial mirror beside it knows only some files
# of a release, and a lock made from those would refuse the others elsewhere.
ONLY_FOR_INSTALLING = ("extra-index-url", "find-links", "no-index")


def main() -> None:
    """`bootstrap.py install` makes or renews `.venv`; `bootstrap.py lock` resolves `requirements.lock` again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["install", "lock"])
    parser.add_argument("--upgrade", action="store_true", help="lock: take the newest versions allowed")
    chosen = parser.parse_args()
    os.chdir(ROOT)
    try:
        if chosen.what == "install":
            install()
        else:
            lock(upgrade=chosen.upgrade)
    except subprocess.CalledProcessError as error:
        sys.exit(f"make: failed with exit status {error.returncode}: {' '.join(error.cmd)}")


def install() -> None:
    """Bring `.venv` to exactly what the lock says and mark it as done, last of all."""
    STAMP.unlink(missing_ok=True)
    pip = make_venv()
    put_uv(pip)
    environment = uv_environment(pip, without=())
    sync = ["--quiet", *FROM_LOCK, "--python", PYTHON, str(LOCK)]
    say("installing what requirements.lock names")
    if subprocess.run([UV, "pip", "sync", *sync], env=environment).returncode != 0:
        say("uv could not install it (see above); pip tries the same lock")
        run([*pip, "install", "--quiet", "--no-deps", *FROM_LOCK, "-r", str(LOCK)])
    own = ["--no-deps", "--no-build-isolation", "--offline", "--python", PYTHON, "--editable", str(ROOT)]
    run([UV, "pip", "install", "--quiet", *own], environment)
    STAMP.touch()


def lock(*, upgrade: bool) -> None:
    """Resolve everything for every platform and Python that the project supports into `requirements.lock`.

    Versions already locked stay, unless `upgrade`. Needs `.venv` with uv.
    """
    command = [UV, "pip", "compile", "--quiet", "pyproject.toml", "--all-extras"]
    command += ["--group", "dev", "--group", "build"]
    command += ["--universal", "--python-version", ".".join(map(str, PYTHON_LEAST)), "--generate-hashes"]
    command += ["--no-emit-index-url", "--no-emit-find-links", "--custom-compile-command", "make lock"]
    command += ["--output-file", LOCK.name, *(["--upgrade"] if upgrade else [])]
    run(command, uv_environment([PYTHON, "-m", "pip"], without=ONLY_FOR_INSTALLING))


def make_venv() -> list[str]:
    """A working `.venv`, as it is or made anew. Returns the command that is pip for it.

    Distributions that split Python up may lack `ensurepip`; then the machine's own pip does it.
    """
    works = [PYTHON, "-c", f"import sys; sys.exit(sys.version_info < {PYTHON_LEAST})"]
    if not (Path(PYTHON).exists() and quiet(works)):
        say(f"making .venv with Python {sysconfig.get_python_version()} ({sys.executable})")
        run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV)])
    own_pip = [PYTHON, "-m", "pip"]
    if quiet([*own_pip, "--version"]) or quiet([PYTHON, "-m", "ensurepip", "--default-pip"]):
        return own_pip
    version = subprocess.run(
        [sys.executable, "-m", "pip", "--version"], capture_output=True, text=True
    ).stdout
    found = re.match(r"pip (\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) >= PIP_LEAST_FOR_OTHER_PYTHON:
        return [sys.executable, "-m", "pip", "--python", PYTHON]
    sys.exit(
        f"make: {sys.executable} has neither ensurepip nor a pip of at least 22.3, so packages cannot be"
        " installed.\nInstall what your distribution splits off (Debian, Ubuntu: `apt install python3-venv`)"
        " and run make again, or name another Python: `make PYTHON=/path/to/python3`."
    )


def put_uv(pip: list[str]) -> None:
    """Install the locked uv by pip, checked against its hashes, unless it is there already."""
    entry = re.search(r"^uv==(\S+).*\n(?:    --hash=.*\n)+", LOCK.read_text("utf-8"), re.MULTILINE)
    if entry is None:
        sys.exit(
            "make: requirements.lock does not name uv, which installs the rest; get the file back from git"
        )
    have = (
        subprocess.run([UV, "--version"], capture_output=True, text=True).stdout if Path(UV).exists() else ""
    )
    if have.split()[1:2] == [entry[1]]:
        return
    say(f"putting uv {entry[1]} into .venv")
    only_uv = VENV / "uv.lock"
    only_uv.write_text(entry[0], "utf-8")
    run([*pip, "install", "--quiet", "--no-deps", *FROM_LOCK, "-r", str(only_uv)])


def uv_environment(pip: list[str], without: tuple[str, ...]) -> dict[str, str]:
    """The environment for uv: what pip was configured with, and a cache it may write to.

    What a person set for uv is left as it is. Options named in `without` are not handed on.
    """
    environment = dict(os.environ)
    configured = pip_configuration(pip)
    for option, variable, separator in PIP_TO_UV:
        if option not in without and configured.get(option):
            environment.setdefault(variable, separator.join(configured[option].split()))
    # pip weighs all indexes alike. The hashes keep a package of the same name on another index out.
    environment.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    if not ({"UV_CACHE_DIR", "XDG_CACHE_HOME"} & environment.keys() or home_takes_files()):
        environment["UV_CACHE_DIR"] = str(VENV / "cache")
    return environment


def pip_configuration(pip: list[str]) -> dict[str, str]:
    """pip's own settings from files and environment; the environment wins, then `[install]`, then `[global]`."""
    listing = subprocess.run([*pip, "config", "list"], capture_output=True, text=True).stdout
    found: dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        for option, value in re.findall(rf"^{re.escape(section)}\.([a-z-]+)=(.+)$", listing, re.MULTILINE):
            found[option] = str(ast.literal_eval(value))
    return found


def home_takes_files() -> bool:
    """Whether the person's home is there and lets uv make its cache. Asking beats guessing: root may lack
    rights too, on a read-only disk for one."""
    home = os.environ.get("HOME", "") if os.name != "nt" else str(Path.home())
    if not (home and Path(home).is_dir()):
        return False
    try:
        cache = Path(home, ".cache")
        cache.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            return True
    except OSError:
        return False


def quiet(command: list[str]) -> bool:
    """Whether `command` succeeds; what it prints is of no interest."""
    return subprocess.run(command, capture_output=True).returncode == 0


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    """Run `command`, showing what it prints. Raises `CalledProcessError` when it fails."""
    subprocess.run(command, check=True, env={**(environment or os.environ), "PIP_USER": "0"})


def say(what: str) -> None:
    print(f"make: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

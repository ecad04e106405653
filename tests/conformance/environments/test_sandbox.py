"""What a program inside the bubblewrap sandbox must not be able to do. Each attempt is a real one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import pytest_asyncio

pytestmark = pytest.mark.asyncio(loop_scope="module")

ATTEMPTS = """
    import ctypes, errno, json, os, pathlib, signal, socket, sys

    libc = ctypes.CDLL(None, use_errno=True)
    done = {}

    def attempt(name):
        def run(function):
            try:
                result = function()
                done[name] = "done" if result is None else str(result)
            except OSError as error:
                done[name] = errno.errorcode.get(error.errno, str(error))
        return run

    def call(number, *arguments):
        if libc.syscall(number, *arguments) < 0:
            raise OSError(ctypes.get_errno(), "")

    settings = json.loads(pathlib.Path("settings.json").read_text())
    for path in settings["unreadable"]:
        attempt("read " + path)(lambda: open(path, "rb").read(1) and None)
    for path in settings["unwritable"]:
        attempt("write " + path)(lambda: open(path, "ab").close())
    attempt("write scratch")(lambda: pathlib.Path.home().joinpath("x").write_text("x") and None)
    attempt("write tmp")(lambda: pathlib.Path("/tmp/x").write_text("x") and None)
    attempt("write shm")(lambda: pathlib.Path("/dev/shm/x").write_text("x") and None)
    attempt("connect to the computer")(lambda: socket.create_connection(("127.0.0.1", settings["port"]), 2))
    attempt("connect outside")(lambda: socket.create_connection(("192.0.2.1", 80), 2))
    attempt("abstract socket")(lambda: socket.socket(socket.AF_UNIX).connect("\\0" + settings["abstract"]))
    attempt("kill outside")(lambda: os.kill(settings["pid"], 0))
    attempt("mount")(lambda: call(165, b"none", b"/tmp", b"tmpfs", 0, None))
    attempt("new user namespace")(lambda: call(272, 0x10000000))
    attempt("clone user namespace")(lambda: call(56, 0x10000000 | 17, 0, 0, 0, 0))
    attempt("ptrace")(lambda: call(101, 16, 1, 0, 0))
    attempt("keyctl")(lambda: call(250, 0, -3, 1))
    attempt("bpf")(lambda: call(321, 0, 0, 0))
    attempt("io_uring")(lambda: call(425, 1, 0))
    attempt("clone3")(lambda: call(435, 0, 0))
    attempt("type into the terminal")(lambda: open("/dev/tty").close())
    attempt("setuid")(lambda: os.setuid(0))
    status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
    done |= {name: status[name] for name in ("CapEff", "CapPrm", "CapBnd", "NoNewPrivs")}
    done["uid"] = os.getuid()
    done["root"] = sorted(os.listdir("/"))
    # Only the way to the interpreter may be there.
    done["home"] = os.listdir(settings["home"]) if os.path.exists(settings["home"]) else []
    done["processes"] = len([name for name in os.listdir("/proc") if name.isdigit()])
    # The folder that is being listed is the fourth.
    done["fds"] = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
    done["environment"] = sorted(os.environ)
    print(json.dumps(done), file=open("/dev/stdout", "w"))
"""

UNWRITABLE = [
    "/x", "/usr/x", "/etc/x", "/run/x", "/dev/x", "/app/x", "/app/app.py", "/run/colla/bridge/main.py",
    # Started by root, a program could have written these, and core_pattern means root's rights outside.
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger",
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def found(sandboxed, tmp_path_factory):
    """What came of every attempt."""
    import socket

    private = tmp_path_factory.mktemp("private") / "secret"
    private.write_text("secret")
    unreadable = [
        "/etc/shadow",
        "/etc/ssl/private",
        "/sys/kernel",
        f"/proc/{os.getpid()}/environ",
        str(private),
    ]
    unreadable += [str(sandboxed.folder / "runtime" / "program.json"), str(Path.home())]
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        name = f"colla-test-{os.getpid()}"
        abstract.bind("\0" + name)
        abstract.listen()
        settings = {
            "unreadable": unreadable, "unwritable": UNWRITABLE, "pid": os.getpid(),
            "home": str(Path.home()), "port": server.getsockname()[1], "abstract": name,
        }  # fmt: skip
        artifact = sandboxed.artifact(app_py=ATTEMPTS)
        (artifact / "settings.json").write_text(json.dumps(settings))
        spec = sandboxed.spec(artifact, env={"COLOUR": "blue"}, listen="port")
        await sandboxed.client.start(spec)
        exit = (await sandboxed.exited(spec)).exit
    assert exit.code == 0, exit
    return json.loads(" ".join([line.text async for line in sandboxed.client.logs(spec.replica_id)]))


async def test_it_reads_nothing_of_the_owner(found):
    reads = {name: result for name, result in found.items() if name.startswith("read ")}
    assert len(reads) == 7
    assert set(reads.values()) <= {"ENOENT", "EISDIR"} and reads["read /etc/shadow"] == "ENOENT"
    assert found["home"] in ([], [".pyenv"])


async def test_it_writes_only_into_its_scratch(found):
    writes = {name: result for name, result in found.items() if name.startswith("write /")}
    assert len(writes) == len(UNWRITABLE)
    assert set(writes.values()) <= {"EROFS", "EACCES", "ENOENT", "EPERM"}, writes
    assert found["write scratch"] == found["write tmp"] == found["write shm"] == "done"


async def test_it_has_no_network_but_its_own(found):
    assert found["connect to the computer"] == "ECONNREFUSED"
    assert found["connect outside"] in ("ENETUNREACH", "EHOSTUNREACH")
    assert found["abstract socket"] == "ECONNREFUSED"


async def test_it_sees_and_signals_nobody(found):
    assert found["kill outside"] == "ESRCH"
    assert found["processes"] <= 3


async def test_it_has_no_rights(found):
    assert {found[name].strip("0") for name in ("CapEff", "CapPrm", "CapBnd")} == {""}
    assert found["NoNewPrivs"] == "1" and found["uid"] == 65534
    assert found["setuid"] in ("EPERM", "EINVAL")
    assert found["type into the terminal"] in ("ENXIO", "ENOENT", "EIO")


async def test_dangerous_system_calls_are_refused(found):
    if os.uname().machine != "x86_64":
        pytest.skip("the attempts use the numbers of x86_64")
    names = ("mount", "new user namespace", "clone user namespace", "ptrace", "keyctl", "bpf", "io_uring")
    assert {found[name] for name in names} == {"EPERM"}
    assert found["clone3"] == "ENOSYS"


async def test_it_inherits_nothing(found):
    assert found["fds"] == [0, 1, 2, 3]
    assert found["environment"] == [
        "COLLA_REPLICA", "COLLA_SERVICE", "COLLA_SOCKET", "COLOUR", "HOME", "HOST", "LANG", "PATH", "PORT",
        "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "TMPDIR", "USER",
    ]  # fmt: skip

"""What a program must not be able to do to its computer: each attempt is a real one, and each must fail.

Unless the environment says beforehand that it does not contain it (`EnvironmentInfo.not_contained`). Started by root or not,
the same holds. Symbolic links and paths that lead out of a service's object are refused where objects are written: `tests/unit/node`.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from colla.environments import landlock
from colla.environments.bridge_config import SCRATCH_BYTES_MAX
from colla.environments.protocol import THREATS, Limits

pytestmark = pytest.mark.asyncio(loop_scope="module")
KINDS = ("process-bubblewrap", "process-landlock")

ATTEMPTS = r"""
    import ctypes, errno, fcntl, json, os, pathlib, platform, resource, signal, socket, struct, sys, time
    libc = ctypes.CDLL(None, use_errno=True)
    told = json.loads(pathlib.Path("settings.json").read_text())
    secret, folder, pid, home = told["secret"], told["folder"], told["pid"], pathlib.Path(os.environ["HOME"])
    found = {}

    def attempt(threat, name, function):
        try:
            function()
            found[f"{threat}: {name}"] = "done"
        except OSError as error:
            found[f"{threat}: {name}"] = errno.errorcode.get(error.errno, "timeout")

    def call(number, *arguments):
        if libc.syscall(number, *arguments) < 0:
            raise OSError(ctypes.get_errno(), "")

    def through(link, target):
        link.symlink_to(target)
        link.read_bytes()

    def linked(link):
        os.link(secret, link)
        link.read_bytes()

    def send(kind, address, data=b"x", flags=0):
        with socket.socket(*kind) as sock:
            sock.settimeout(2)
            sock.sendto(data, flags, address)

    def connect(family, address):
        with socket.socket(family) as sock:
            sock.settimeout(2)
            sock.connect(address)

    def from_pair(address):
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        near.sendto(b"x", address)

    for path in [secret, "/etc/shadow", told["program"], told["other"], "/proc/1/root" + secret, "/proc/self/root" + secret]:
        attempt("files", "read " + path, lambda: open(path, "rb").read(1))
    for path in [secret, folder + "/new", "/etc/new", "/usr/new", "settings.json", "/app/new", told["other"]]:
        attempt("files", "write " + path, lambda: open(path, "ab").close())
    attempt("files", "list", lambda: os.listdir(folder))
    attempt("files", "up", lambda: open("../" * 30 + secret, "rb").read(1))
    attempt("files", "symbolic link", lambda: through(home / "a", secret))
    attempt("files", "link in the service's files", lambda: open("link", "rb").read(1))
    attempt("files", "hard link", lambda: linked(home / "b"))
    attempt("files", "move", lambda: os.rename(secret, home / "c"))
    attempt("files", "remove", lambda: os.unlink(secret))
    attempt("files", "chmod", lambda: os.chmod(secret, 0o777))
    attempt("files", "chown", lambda: os.chown(secret, 1, 1))
    attempt("files", "times", lambda: os.utime(secret, (1, 1)))
    attempt("files", "attribute", lambda: os.setxattr(secret, "user.x", b"x"))
    attempt("files", "truncate", lambda: os.truncate(secret, 0))
    attempt("files", "run", lambda: os.posix_spawn(folder + "/program", ["x"], {}))
    attempt("files", "device", lambda: os.mknod(home / "disk", 0o60600, os.makedev(8, 0)))
    attempt("files", "disk", lambda: open(told["disk"], "rb").read(1))
    attempt("files", "memory", lambda: open("/dev/mem", "rb").read(1))
    attempt("names", "stat", lambda: os.stat(secret))

    attempt("processes", "signal", lambda: os.kill(pid, signal.SIGCONT))
    attempt("processes", "signal the bridge", lambda: os.kill(os.getppid(), signal.SIGKILL) if os.getppid() > 1 else open("/none"))
    for name in ("environ", "mem", "maps", "cmdline", "fd", "root/etc/passwd"):
        attempt("processes", name, lambda: os.listdir(f"/proc/{pid}/fd") if name == "fd" else open(f"/proc/{pid}/{name}", "rb").read(1))
    attempt("processes", "limits", lambda: resource.prlimit(pid, resource.RLIMIT_CORE))
    if platform.machine() == "x86_64":
        attempt("processes", "ptrace", lambda: call(101, 16, pid, 0, 0))
        attempt("processes", "read memory", lambda: call(310, pid, b"\0" * 16, 1, b"\0" * 16, 1, 0))
        attempt("processes", "shared memory", lambda: call(29, told["shared"], 4096, 0))
        attempt("system", "mount", lambda: call(165, b"none", bytes(home), b"tmpfs", 0, None))
        attempt("system", "namespaces", lambda: call(272, 0x10000000))
        attempt("system", "clone", lambda: call(56, 0x10000000 | 17, 0, 0, 0, 0))
        attempt("system", "keys", lambda: call(250, 0, -3, 1))
        attempt("system", "bpf", lambda: call(321, 0, 0, 0))
        attempt("system", "io_uring", lambda: call(425, 1, 0))
        attempt("system", "modules", lambda: call(175, b"", 0, b""))
        attempt("system", "clock", lambda: call(227, 0, struct.pack("qq", *divmod(time.time_ns(), 10**9))))
        attempt("system", "name", lambda: call(170, *(lambda name: (name, len(name)))(socket.gethostname().encode())))
        attempt("network", "another's namespace", lambda: call(308, os.open(f"/proc/{pid}/ns/net", 0), 0))
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper"):
        attempt("system", "write " + path, lambda: open(path, "wb").close())
    attempt("system", "become root", lambda: os.setuid(0) if os.getuid() else open("/none"))

    port = told["port"]
    attempt("network", "loopback", lambda: connect(socket.AF_INET, ("127.0.0.1", port)))
    attempt("network", "loopback 6", lambda: connect(socket.AF_INET6, ("::1", port)))
    attempt("network", "metadata", lambda: connect(socket.AF_INET, ("169.254.169.254", 80)))
    attempt("network", "outside", lambda: connect(socket.AF_INET, ("192.0.2.1", 80)))
    attempt("network", "fast open", lambda: send((socket.AF_INET, socket.SOCK_STREAM), ("127.0.0.1", port), flags=0x20000000))
    attempt("network", "UDP", lambda: send((socket.AF_INET, socket.SOCK_DGRAM), ("192.0.2.1", 53)))
    attempt("network", "raw", lambda: send((socket.AF_INET, socket.SOCK_RAW, 1), ("127.0.0.1", 0)))
    attempt("network", "multipath", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).connect(("127.0.0.1", port)))
    attempt("network", "Unix socket", lambda: connect(socket.AF_UNIX, told["socket"]))
    attempt("network", "abstract socket", lambda: connect(socket.AF_UNIX, "\0" + told["abstract"]))
    attempt("network", "from a pair", lambda: from_pair(told["datagrams"]))

    attempt("terminal", "open", lambda: open("/dev/tty").close())
    for fd in range(4):
        attempt("terminal", f"type into {fd}", lambda: fcntl.ioctl(fd, 0x5412, b"x"))
    print(json.dumps(found))
"""

FORKS = """
    import os, time
    made = 0
    try:
        while made < 2000:
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
            made += 1
    except OSError:
        pass
    print(made, flush=True)
"""

DISK = """
    import os, time
    if MODE == "one":
        try:
            with open(os.environ["HOME"] + "/large", "wb") as file:
                os.posix_fallocate(file.fileno(), 0, BOUND + 1)
        except OSError as error:
            print("refused", flush=True)
        raise SystemExit(0)
    held = []
    for number in range(3):
        path = f"{os.environ['HOME']}/{number}"
        held.append(open(path, "wb"))
        os.posix_fallocate(held[-1].fileno(), 0, BOUND // 2)
        if MODE == "deleted":
            os.unlink(path)
    print("written", flush=True)
    time.sleep(600)
"""


def problem_of(kind: str) -> str:
    """Why that cannot be tested here."""
    if kind == "process-bubblewrap":
        return "" if shutil.which("bwrap") else "bubblewrap is not installed"
    return (
        ""
        if landlock.fence.landlock_abi() >= landlock.fence.ABI_LEAST
        else "the kernel's Landlock is too old"
    )


def a_disk() -> str:
    """A block device of this computer."""
    return next((str(path) for path in Path("/dev").iterdir() if path.is_block_device()), "/dev/sda")


@contextmanager
def shared_memory() -> Iterator[int]:
    """The key of a segment of this process."""
    libc = ctypes.CDLL(None)
    segment = libc.shmget(os.getpid(), 4096, 0o1600)
    yield os.getpid()
    libc.shmctl(segment, 0, None)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def contained(request, tmp_path_factory, launcher_of_module, bench_of_module):
    """Each kind that claims to contain programs."""
    if problem := problem_of(request.param):
        pytest.skip(problem)
    folder = tmp_path_factory.mktemp(request.param)
    async for made in bench_of_module(
        await launcher_of_module(request.param, folder / "runtime"), request.param, folder
    ):
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def found(contained, tmp_path_factory):
    """What came of every attempt."""
    outside = tmp_path_factory.mktemp("outside")
    secret = outside / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    shutil.copy("/bin/true", outside / "program")
    other = contained.artifact(note_txt="another service's")
    artifact = contained.artifact(app_py=ATTEMPTS)
    (artifact / "link").symlink_to(secret)
    with ExitStack() as stack:
        # A socket's path may be no longer than about a hundred bytes, and folders of tests are deep.
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="colla-test-", dir="/tmp")))
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(sockets / "s"))
        listening.listen()
        datagrams = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        datagrams.bind(str(sockets / "d"))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0colla-test-{os.getpid()}")
        abstract.listen()
        settings = {
            "secret": str(secret), "folder": str(outside), "pid": os.getpid(), "port": server.getsockname()[1],
            "socket": str(sockets / "s"), "datagrams": str(sockets / "d"), "abstract": f"colla-test-{os.getpid()}",
            "program": str(contained.folder / "runtime" / "program.json"), "other": str(other / "note.txt"),
            "disk": a_disk(), "shared": stack.enter_context(shared_memory()),
        }  # fmt: skip
        (artifact / "settings.json").write_text(json.dumps(settings))
        spec = contained.spec(artifact, listen="port")
        await contained.client.start(spec)
        exit = (await contained.exited(spec)).exit
    assert exit.code == 0, exit
    lines = [line.text async for line in contained.client.logs(spec.replica_id)]
    return json.loads("".join(lines))


async def test_what_is_not_said_to_remain_is_contained(contained, found):
    remaining = contained.client.info.not_contained
    assert remaining is not None and set(remaining) <= {"names", "fork_bomb", "memory_bomb"}
    assert len(found) > 50
    escaped = [
        name for name, result in found.items() if result == "done" and name.split(":")[0] not in remaining
    ]
    assert not escaped, escaped


async def test_what_remains_is_not_said_for_nothing(contained, found):
    if "names" in contained.client.info.not_contained:
        assert found["names: stat"] == "done"
    assert contained.client.info.isolation == contained.kind.partition("-")[2]
    assert not contained.client.info.needs_consent


async def test_without_a_sandbox_everything_is_said_to_remain(tmp_path, launcher_of_module):
    client = await launcher_of_module("process-none", tmp_path / "runtime")
    try:
        assert client.info.not_contained == tuple(THREATS) and client.info.needs_consent
    finally:
        await client.shut_down(grace_s=0.1)


async def test_a_fork_bomb_stops_at_its_limit(contained):
    if "fork_bomb" in contained.client.info.not_contained:
        pytest.skip("it is said to remain: no control group counts processes here")
    spec = contained.spec(contained.artifact(app_py=FORKS), listen="port", limits=Limits(pids=30))
    await contained.client.start(spec)
    exit = (await contained.exited(spec)).exit
    assert exit.code == 0 and 0 < int(exit.last_lines[-1]) < 30


async def test_a_memory_bomb_ends_itself_alone(contained):
    if "memory_bomb" in contained.client.info.not_contained:
        pytest.skip("it is said to remain: no control group bounds memory here")
    bomb = "held = []\nwhile len(held) < 200:\n    held.append(bytearray(b'x') * (4 << 20))\n"
    spec = contained.spec(
        contained.artifact(app_py=bomb), listen="port", limits=Limits(memory_bytes=64 << 20)
    )
    await contained.client.start(spec)
    assert (await contained.exited(spec)).exit.reason == "out_of_memory"


@pytest.mark.parametrize("mode", ["one", "several", "deleted"])
async def test_a_disk_bomb_is_ended(contained, mode):
    if shutil.disk_usage(contained.folder).free < 4 * SCRATCH_BYTES_MAX:
        pytest.skip("the disk has too little room for the attempt")
    program = f"MODE, BOUND = {mode!r}, {SCRATCH_BYTES_MAX}\n" + textwrap.dedent(DISK)
    spec = contained.spec(contained.artifact(app_py=program), listen="port")
    await contained.client.start(spec)
    exit = (await contained.exited(spec)).exit
    if mode == "one":
        assert exit.last_lines == ("refused",)
    else:
        assert exit.reason == "killed" and "scratch folder" in exit.message, exit

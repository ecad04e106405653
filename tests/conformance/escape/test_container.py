"""What a hostile image, and the program in it, must not reach. Each attempt is a real one, on this computer's Podman."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import oci
import pytest
import pytest_asyncio
from container_bench import Bench, own_podman

from colla.environments.folders import Place
from colla.environments.images import read_image
from colla.environments.protocol import EnvironmentFault, GroupAccess, HealthCheck, Limits

pytestmark = [
    pytest.mark.skipif(bool(oci.problem()), reason=oci.problem() or "podman works"),
    pytest.mark.asyncio(loop_scope="module"),
]

ATTEMPTS = """
tried() { name="$1"; shift; if "$@" >/tmp/said 2>&1; then echo "$name: done"; else echo "$name: refused"; fi; }
by_way() {  # A way is there a moment after the program.
  for _ in $(busybox seq 200); do
    printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 10 127.0.0.1 $1 >/tmp/way && break; sleep 0.1
  done
  busybox grep -q "$2" /tmp/way
}
tried "read the disk" head -c 1 /disk
tried "read the memory" head -c 1 /memory
tried "make a device" busybox mknod /tmp/disk b $MAJOR $MINOR
tried "read host files" cat $SECRET
tried "read by the first process" cat /proc/1/root$SECRET
tried "read by a link of the image" cat /outside$SECRET
tried "read kernel memory" head -c 1 /proc/kcore
tried "read the kernel's log" busybox dmesg
tried "mount" busybox mount -t proc none /tmp
tried "change root" busybox chroot /proc/1/root /bin/true
tried "new user namespace" busybox unshare -r true
tried "new mounts" busybox unshare -m true
tried "enter a namespace" busybox nsenter -t 1 -m true
tried "signal outside" kill -0 $HOST_PID
tried "write where cores go" sh -c 'echo "|/tmp/x" > /proc/sys/kernel/core_pattern'
tried "restart the computer" sh -c 'echo b > /proc/sysrq-trigger'
tried "call a program for events" sh -c 'echo /tmp/x > /sys/kernel/uevent_helper'
tried "make a control group" mkdir /sys/fs/cgroup/memory/mine
tried "write the root" touch /x
tried "write the door" touch /run/colla-group/x
tried "open the terminal" sh -c 'echo x > /dev/tty'
tried "change the clock" busybox adjtimex -t 10001
tried "change the name" busybox hostname mine
tried "reach the computer" busybox nc -w 2 127.0.0.1 $HOST_PORT
tried "reach its address" busybox nc -w 2 $HOST_ADDRESS $HOST_PORT
tried "reach the metadata" busybox nc -w 2 169.254.169.254 80
tried "go by a way" by_way ${COLLA_USES_OUR_API##*:} "heard token our-api"
tried "go out" by_way ${HTTPS_PROXY##*:} "heard token network:internet"
tried "knock at the door" test -S /run/colla-group/group.sock -a -w /run/colla-group/group.sock
set -- /proc/[0-9]*; echo "processes: $#"
echo "devices:" $(ls /disk /memory)
echo "interfaces:" $(ls /sys/class/net)
echo "descriptors:" $(ls /proc/self/fd)
echo "variables:" $(busybox env | busybox cut -d= -f1 | busybox sort)
busybox grep -E "^(CapEff|CapPrm|CapBnd|CapInh|NoNewPrivs|Seccomp):" /proc/self/status
echo finished; sleep 60
"""
BOMBS = """
( while true; do sleep 60 & done ) 2>/dev/null
set -- /proc/[0-9]*; echo "processes: $#"
busybox killall sleep
for file in /tmp/bomb /dev/shm/bomb; do busybox dd if=/dev/zero of=$file bs=1M count=120 2>/dev/null; done
set -- $(busybox stat -c %s /tmp/bomb /dev/shm/bomb); echo "bytes: $1 $2"
echo finished; sleep 60
"""
EXPECTED_VARIABLES = {
    *("COLLA_GROUP_SOCKET", "COLLA_GROUP_TOKEN", "COLLA_REPLICA", "COLLA_SERVICE", "HOST", "PORT"),
    *("COLLA_USES_OUR_API", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "NO_PROXY", "no_proxy"),
    *("NODE_USE_ENV_PROXY", "SECRET", "HOST_PID", "HOST_PORT", "HOST_ADDRESS", "MAJOR", "MINOR"),
    *("PATH", "HOME", "HOSTNAME", "TERM", "PWD", "SHLVL", "OLDPWD", "container"),
}
WITH_LEAVE = ["go by a way", "go out", "knock at the door"]
BEYOND = ("../../../../../../..{}/up", "/..{}/absolute", "link{}/linked", "hard")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    folder = tmp_path_factory.mktemp("podman")
    with own_podman(folder):
        made = Bench(folder)
        yield made
        await made.close()


def entry(name: str, kind: bytes, **more: object) -> tarfile.TarInfo:
    about = tarfile.TarInfo(name)
    about.type, about.mode = kind, 0o666
    for field, value in more.items():
        setattr(about, field, value)
    return about


def with_entries(
    image: dict[str, bytes], *entries: tarfile.TarInfo, content: bytes = b""
) -> dict[str, bytes]:
    """The image with one more layer."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for about in entries:
            about.size = len(content) if about.isfile() else 0
            archive.addfile(about, io.BytesIO(content))
    return oci.with_layer(image, data.getvalue())


def facts(bench: Bench, place: Place) -> dict[str, str]:
    lines = [line.text.partition(":") for line in bench.driver.logs(place, 0)]
    return {name: value.strip() for name, _, value in lines}


@pytest.fixture(scope="module")
def listening() -> Iterator[int]:
    """A port of the computer that must not be reached."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield server.getsockname()[1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def found(
    bench: Bench, listening: int, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[dict[str, str], Place]]:
    """What came of every attempt, made by root in the container, the image having brought devices."""
    secret = tmp_path_factory.mktemp("private") / "key"
    secret.write_text("secret")
    disk = os.stat("/").st_dev  # noqa: PTH116 - the number of the device
    devices = [
        entry("disk", tarfile.BLKTYPE, devmajor=os.major(disk), devminor=os.minor(disk)),
        entry("memory", tarfile.CHRTYPE, devmajor=1, devminor=1),
    ]
    image = with_entries(
        oci.image(["/bin/sh", "-c", ATTEMPTS]),
        # Without root's rights no engine could unpack them.
        *(devices if os.getuid() == 0 else ()),
        entry("outside", tarfile.SYMTYPE, linkname="../../../../../../../.."),
    )
    env = {
        "SECRET": str(secret), "HOST_PID": str(os.getpid()), "HOST_PORT": str(listening),
        "HOST_ADDRESS": an_address(), "MAJOR": str(os.major(disk)), "MINOR": str(os.minor(disk)),
    }  # fmt: skip
    agent = tmp_path_factory.mktemp("agent")
    group = await asyncio.start_unix_server(answer_as_the_agent, agent / "group.sock")
    ways = await asyncio.start_unix_server(answer_as_the_agent, agent / "ways.sock")
    access = GroupAccess(socket=str(agent / "group.sock"), ways=str(agent / "ways.sock"), token="token")
    touching = HealthCheck(
        command=("touch", str(secret.with_name("touched"))), interval_s=0.1, timeout_s=60.0
    )
    spec = bench.spec_of(image, env=env, group=access, health=touching, uses=("our-api",), outgoing=True)
    replica, place = await bench.launch(spec)
    await bench.said(place, "finished")
    checked = await replica.check_problem()
    beside = " ".join(path.name for path in secret.parent.iterdir())
    yield facts(bench, place) | {"beside the key": beside, "checked": checked}, place
    group.close()
    ways.close()


async def answer_as_the_agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says what it heard first: a greeting, or the line that a way begins with."""
    body = b"the group heard " + (await reader.readline()).strip()
    if b"token" in body:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
    writer.write(body)
    writer.close()


def an_address() -> str:
    """One of this computer, as others see it; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.2"
        return str(probe.getsockname()[0])


async def test_nothing_of_the_computer_is_reached(found: tuple[dict[str, str], Place]) -> None:
    results, _ = found
    tried = {name: result for name, result in results.items() if result in ("done", "refused")}
    assert len(tried) == 29
    assert [name for name, result in tried.items() if result == "done"] == WITH_LEAVE
    assert results["interfaces"] == "lo"
    assert results["devices"] == ("/disk /memory" if os.getuid() == 0 else "")
    assert int(results["processes"]) <= 3, "it sees its own processes alone"


async def test_no_command_of_a_service_runs_outside(found: tuple[dict[str, str], Place]) -> None:
    """What checks a program's health is not run beside the container's runner, as the owner of the computer, but in the container."""
    results, _ = found
    assert results["beside the key"] == "key"
    assert results["checked"] == "the command that checks it ended with 1"


async def test_it_has_no_rights_and_inherits_nothing(found: tuple[dict[str, str], Place]) -> None:
    results, _ = found
    assert {results[name].strip("0") for name in ("CapEff", "CapPrm", "CapBnd", "CapInh")} == {""}
    assert (results["NoNewPrivs"], results["Seccomp"]) == ("1", "2")
    assert results["descriptors"] in ("0 1 2", "0 1 2 3")
    assert set(results["variables"].split()) <= EXPECTED_VARIABLES


async def test_it_asks_the_group_through_its_door(found: tuple[dict[str, str], Place]) -> None:
    """The socket that the container sees leads to the agent; whoever the program is, it may open this one."""
    _, place = found
    socket_path = place.path / "door" / "group.sock"
    assert socket_path.stat().st_mode & 0o777 == 0o666
    assert place.path.stat().st_mode & 0o077 == 0, "nobody else of the computer comes so far"
    folder = os.open(socket_path.parent, os.O_PATH)  # The whole path may be too long for a socket.
    try:
        reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/group.sock")
    finally:
        os.close(folder)
    writer.write(b"hello\n")
    assert await reader.read() == b"the group heard hello"
    writer.close()


async def test_bombs_are_bounded(bench: Bench) -> None:
    """Processes, and every place that can be written: what is written there counts as memory."""
    limits = Limits(memory_bytes=256 << 20, cpus=1.0, pids=32)
    if not {"pids", "memory_bytes"} <= set(bench.driver.info.limits_enforced):
        pytest.skip("this engine bounds neither processes nor memory here, and says so")
    config = {"Cmd": ["/bin/sh", "-c", BOMBS], "Env": ["PATH=/bin"], "User": "1000"}
    _, place = await bench.launch(bench.spec_of(oci.image([], config=config), limits=limits))
    await bench.said(place, "finished")
    results = facts(bench, place)
    assert 16 <= int(results["processes"]) <= 32
    written = [int(size) for size in results["bytes"].split()]
    assert all(0 < size <= 64 << 20 for size in written), written


async def test_archives_do_not_leave_their_storage(bench: Bench, tmp_path: Path) -> None:
    """Names that climb, links to follow, and a hard link to a file of the owner's."""
    private = tmp_path / "private"
    private.write_text("secret")
    image = with_entries(
        oci.image(["/bin/true"]),
        entry("link", tarfile.SYMTYPE, linkname="../../../../../../../.."),
        entry("hard", tarfile.LNKTYPE, linkname=f"../../../../../../../..{private}"),
        *(entry(name.format(tmp_path), tarfile.REGTYPE) for name in BEYOND),
        content=b"evil",
    )
    # It may be refused, or land within the image's own root: both are right.
    try:
        async for _ in bench.driver.prepare(bench.spec_of(image).artifact):
            pass
    except EnvironmentFault as error:
        assert error.code == "image_not_loaded"
    assert await asyncio.to_thread(os.listdir, tmp_path) == ["private"]
    assert private.read_text() == "secret" and private.stat().st_nlink == 1


@pytest.mark.parametrize(
    "config",
    [
        {"WorkingDir": "/proc/self/fd/7"},
        {"WorkingDir": "x/../../proc/self/fd/8/"},
        {"WorkingDir": "/sys/fs/cgroup"},
        {"Volumes": {"/../..": {}}},
        {"Volumes": {"/data:rw,dev": {}}},
        {"Volumes": {f"/{number}": {} for number in range(17)}},
    ],
)
async def test_settings_that_only_serve_to_break_out_are_refused(
    bench: Bench, config: dict[str, object]
) -> None:
    with pytest.raises(EnvironmentFault) as refused:
        read_image(Path(bench.spec_of(oci.image([], config={"Cmd": ["/bin/true"]} | config)).artifact))
    assert refused.value.code == "image_malformed"
    read_image(
        Path(
            bench.spec_of(
                oci.image([], config={"WorkingDir": "/srv/proc", "Volumes": {"/data": {}}})
            ).artifact
        )
    )


async def test_a_disk_bomb_is_not_given_to_the_engine(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colla.environments.images.UNPACKED_BYTES_MAX", 1 << 20)
    spec = bench.spec(["/bin/true"])
    with pytest.raises(EnvironmentFault, match="would unpack to more than 1 MiB") as refused:
        await bench.launch(spec)
    assert refused.value.code == "layer_refused"


async def test_what_it_contains_is_said(bench: Bench) -> None:
    info = bench.driver.info
    assert (info.isolation, info.network_modes, info.needs_consent) == ("container", ("isolated",), "")
    remaining = {"fork_bomb": "pids", "memory_bomb": "memory_bytes"}
    assert info.not_contained == tuple(
        threat for threat, limit in remaining.items() if limit not in info.limits_enforced
    )

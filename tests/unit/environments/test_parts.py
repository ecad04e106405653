"""The smaller parts: folders, notes, control groups on a false kernel, the system-call filter, process identity."""

# ruff: noqa: ASYNC220
from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from colla.environments import cgroups, sandbox, seccomp
from colla.environments.bridge.log import LINE_BYTES_MAX, LogSegments, Output
from colla.environments.cgroups import ControlGroups, Group
from colla.environments.folders import Place, Record, RuntimeFolder, remove_tree
from colla.environments.health import check_health_check, problem_of
from colla.environments.notes import Notes, read_lines, read_notes
from colla.environments.processes import Identity, kill, kill_tree, until_ended
from colla.environments.protocol import EnvironmentFault, HealthCheck, Limits, ReplicaSpec

SPEC = ReplicaSpec(replica="ab" * 16, service="garden", artifact="/a")


# --- folders ---------------------------------------------------------------------------------------------


def test_a_record_is_read_back(tmp_path):
    folder = RuntimeFolder(tmp_path / "runtime")
    place = folder.place(SPEC.replica_id)
    record = Record(spec=SPEC, started_at=1.25, handle="h")
    place.create(record)
    assert place.read() == record and [one.path for one in folder.places()] == [place.path]
    assert (place.path.stat().st_mode & 0o077, place.scratch.stat().st_mode & 0o077) == (0, 0)
    (place.path / "record.json").write_bytes(b"{half")
    assert place.read() is None
    place.delete()
    assert folder.places() == []


def test_a_folder_of_somebody_else_is_refused(tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    with pytest.raises(EnvironmentFault) as refused:
        RuntimeFolder(tmp_path / "runtime")
    assert refused.value.code == "folder_not_ours"


def test_socket_paths_stay_short(tmp_path):
    for deep in (tmp_path / "s", tmp_path / ("x" * 120)):
        folder = RuntimeFolder(deep)
        longest = folder.place(SPEC.replica_id).app_socket
        assert len(os.fsencode(longest)) <= 100
        folder.tidy()
        assert not folder.control.exists()
        folder.tidy()


def test_deleting_does_not_follow_links(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "inner" / "link").symlink_to(tmp_path / "precious")
    (tree / "inner").chmod(0o500)
    remove_tree(tree)
    assert not tree.exists() and (tmp_path / "precious" / "file").read_text() == "x"


# --- notes and lines -------------------------------------------------------------------------------------


def test_notes_are_put_together(tmp_path):
    path = tmp_path / "status"
    assert read_notes(path) == Notes()
    path.write_bytes(b'{"program": 7, "port": 80}\n{"listening": "port"}\n{"exited": nu')
    assert read_notes(path) == Notes(program=7, port=80, listening="port")
    path.write_bytes(b'{"program": 7, "port": 80}\nnonsense\n{"exited": null, "signal": 9}\n')
    assert read_notes(path) == Notes(program=7, port=80, ended=True, signal=9)
    path.write_bytes(b'{"program": "forged"}\n')
    assert read_notes(path) == Notes()


def test_files_that_a_program_turned_into_links_are_not_read(tmp_path):
    (tmp_path / "secret").write_bytes(b"1 1.0 o secret\n")
    (tmp_path / "log.0").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "log.1")
    assert read_lines((tmp_path / "log.0", tmp_path / "log.1"), 0) == []


@pytest.mark.parametrize("count", [0, 1, 5, 40, 200])
def test_segments_keep_the_newest_lines_within_their_bound(tmp_path, count):
    paths = (tmp_path / "log.0", tmp_path / "log.1")
    fds = [os.open(path, os.O_RDWR | os.O_CREAT) for path in paths]
    log = LogSegments(fds, 400)
    for number in range(count):
        log.write("o", b"line %d" % number)
        assert all(path.stat().st_size <= 400 for path in paths)
    lines = read_lines(paths, 0)
    numbers = [line.number for line in lines]
    assert numbers == list(range(count - len(numbers) + 1, count + 1))
    assert [line.text for line in lines] == [f"line {number - 1}" for number in numbers]
    assert len(lines) >= min(count, 10)
    assert read_lines(paths, count - 1) == lines[-1:]
    for fd in fds:
        os.close(fd)


def test_output_is_cut_into_lines(tmp_path):
    written = []
    log = LogSegments([], 0)
    log.write = lambda stream, text: written.append((stream, text))
    read, write = os.pipe()
    output = Output(read, "e", log)
    assert output.read() is None
    os.write(write, b"one\n\ntw")
    output.read()
    os.write(write, b"o\n" + b"x" * (2 * LINE_BYTES_MAX + 5))
    output.read()
    os.write(write, b"\xff\xfe end")
    os.close(write)
    while output.read():
        pass
    os.close(read)
    assert written[:3] == [("e", b"one"), ("e", b""), ("e", b"two")]
    assert b"".join(text for _, text in written[3:]) == b"x" * (2 * LINE_BYTES_MAX + 5) + b"\xff\xfe end"
    assert max(len(text) for _, text in written) <= LINE_BYTES_MAX


# --- control groups --------------------------------------------------------------------------------------


def false_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, refuse: str = ""
) -> ControlGroups:
    """Control groups on plain folders: what would be written can be looked at."""
    root, proc = tmp_path / "cgroup", tmp_path / "self"
    if version == 2:
        (root / "user" / "colla").mkdir(parents=True)
        (root / "cgroup.controllers").write_text("cpu memory pids")
        proc.write_text("0::/user/colla\n")
    else:
        for controller in ("memory", "cpu", "pids"):
            (root / controller / "deep").mkdir(parents=True)
        proc.write_text("4:memory:/deep\n3:cpu:/deep\n2:pids:/deep\n1:name=systemd:/\n0::/\n")
    made = Path.mkdir

    def mkdir(path: Path, *arguments: object, **more: object) -> None:
        if refuse and refuse in str(path):
            raise PermissionError(13, "not yours")
        made(path, *arguments, **more)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    return ControlGroups.find(root, proc)


def test_version_2(tmp_path, monkeypatch):
    groups = false_kernel(tmp_path, monkeypatch, 2)
    assert groups.version == 2 and groups.limits == ("cpus", "memory_bytes", "pids")
    group = groups.create("colla-x", Limits(memory_bytes=64 << 20, cpus=0.5, pids=10))
    (folder,) = group.folders
    assert folder == tmp_path / "cgroup" / "user" / "colla" / "colla-x"
    written = {
        name: (folder / name).read_text() for name in ("memory.max", "cpu.max", "pids.max", "memory.swap.max")
    }
    assert written == {
        "memory.max": str(64 << 20),
        "cpu.max": "50000 100000",
        "pids.max": "10",
        "memory.swap.max": "0",
    }
    (folder / "memory.events").write_text("oom 1\noom_kill 1\n")
    (folder / "cpu.stat").write_text("usage_usec 2500000\n")
    (folder / "memory.current").write_text("4096\n")
    assert group.ran_out_of_memory() and group.usage() == (2.5, 4096)


def test_version_2_falls_back_to_the_group_above(tmp_path, monkeypatch):
    groups = false_kernel(tmp_path, monkeypatch, 2, refuse="user/colla/")
    assert {parent.name for parent in groups.parents.values()} == {"user"}


def test_version_1_claims_only_what_works(tmp_path, monkeypatch):
    groups = false_kernel(tmp_path, monkeypatch, 1, refuse="cgroup/cpu/")
    assert groups.version == 1 and groups.limits == ("memory_bytes", "pids")
    group = groups.create("colla-x", Limits(memory_bytes=1, cpus=0.5, pids=3))
    assert len(group.folders) == 2
    memory = tmp_path / "cgroup" / "memory" / "deep" / "colla-x"
    assert (memory / "memory.limit_in_bytes").read_text() == str(cgroups.MEMORY_BYTES_MIN)
    assert not (tmp_path / "cgroup" / "cpu" / "deep" / "colla-x").exists()


def test_no_control_groups_at_all(tmp_path):
    groups = ControlGroups.find(tmp_path / "nothing", tmp_path / "nothing-either")
    assert groups.limits == ()
    group = groups.create("colla-x", Limits(memory_bytes=1 << 30))
    assert group.folders == [] and group.pids() == [] and group.usage() == (None, None)
    assert not group.ran_out_of_memory()
    group.kill()
    group.remove()


def test_what_is_claimed_here_really_works():
    groups = ControlGroups.find()
    if not groups.limits:
        pytest.skip("no control groups that this user may make")
    group = groups.create(f"colla-test-{os.getpid()}", Limits(pids=20))
    enter = 'for file in "$@"; do echo 0 > "$file"; done; exec sleep 600'
    child = subprocess.Popen(
        ["/bin/sh", "-c", enter, "sh", *map(str, group.process_files)], stderr=subprocess.PIPE
    )
    try:
        while len(group.pids()) == 0 and child.poll() is None:
            pass
        assert group.pids() == [child.pid]
        group.kill()
        assert child.wait(10) == -9
    finally:
        child.kill()
        child.wait()
        child.stderr.close()
        group.remove()
    assert not any(folder.exists() for folder in group.folders)
    assert isinstance(groups.existing("colla-nothing"), Group)


# --- the system-call filter ------------------------------------------------------------------------------


def judge(program: bytes, arch: int, number: int, argument: int = 0) -> int:
    """What the kernel would answer: the instructions of classic BPF that the filter uses."""
    data = struct.pack("=IIQQ", number, arch, 0, argument)
    instructions = list(struct.iter_unpack("=HBBI", program))
    at, value = 0, 0
    while True:
        code, if_true, if_false, constant = instructions[at]
        at += 1
        match code:
            case seccomp.LOAD:
                value = struct.unpack_from("=I", data, constant)[0]
            case seccomp.JUMP_EQUAL:
                at += if_true if value == constant else if_false
            case seccomp.JUMP_AT_LEAST:
                at += if_true if value >= constant else if_false
            case seccomp.JUMP_ANY_SET:
                at += if_true if value & constant else if_false
            case seccomp.RETURN:
                return constant
            case other:
                raise AssertionError(f"no such instruction: {other:#x}")


@pytest.mark.parametrize("machine", sorted(seccomp.ARCHITECTURES))
def test_the_filter(machine):
    program = seccomp.filter_program(machine)
    arch, refused = seccomp.ARCHITECTURES[machine]
    refuse = seccomp.ERRNO | 1
    for name, number in refused.items():
        assert judge(program, arch, number) == refuse, name
    clone = seccomp.CLONE[machine]
    handled = {*refused.values(), seccomp.CLONE3}
    for number in range(500):
        if number not in handled:
            assert judge(program, arch, number) == seccomp.ALLOW
    assert judge(program, arch, seccomp.CLONE3) == seccomp.ERRNO | 38
    assert judge(program, arch, clone, seccomp.CLONE_NEWUSER | 17) == refuse
    assert judge(program, arch, clone, 17) == seccomp.ALLOW
    assert judge(program, 0x40000003, 1) == seccomp.KILL
    if machine == "x86_64":
        assert judge(program, arch, seccomp.X32_BIT | 1) == refuse


def test_unknown_processors_have_no_filter():
    assert seccomp.filter_program("pdp11") is None


# --- the sandbox -----------------------------------------------------------------------------------------


def test_what_the_interpreter_needs_is_never_a_home_folder(monkeypatch, tmp_path):
    home = tmp_path / "home"
    (home / ".pyenv" / "versions" / "3" / "bin").mkdir(parents=True)
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: home))
    monkeypatch.setattr(sys, "base_prefix", str(home / ".pyenv" / "versions" / "3"))
    monkeypatch.setattr(sys, "base_exec_prefix", str(home))
    folders = sandbox.interpreter_folders()
    assert home / ".pyenv" / "versions" / "3" in folders
    assert home not in folders and tmp_path not in folders and Path("/") not in folders


def test_a_virtual_environment_is_left_out():
    if sys.prefix == sys.base_prefix:
        pytest.skip("not in a virtual environment")
    assert Path(sys.prefix) not in sandbox.interpreter_folders()
    assert not sandbox.interpreter().is_relative_to(sys.prefix)


# --- processes -------------------------------------------------------------------------------------------


async def test_a_process_is_known_until_it_ends():
    child = subprocess.Popen(["sleep", "600"])
    identity = Identity.of(child.pid)
    assert identity.lives()
    other = msgspec.structs.replace(identity, started="1")
    assert not other.lives()
    kill(other)
    kill_tree(other)
    assert identity.lives()
    waiting = asyncio.create_task(until_ended(identity))
    await asyncio.wait_for(until_ended(other), 5)
    assert not waiting.done()
    kill(identity)
    await asyncio.wait_for(waiting, 10)
    # Not reaped yet, and yet not alive.
    assert not identity.lives() and Identity.of(child.pid) is None
    child.wait()
    await asyncio.wait_for(until_ended(identity), 5)


# --- health ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.0 302 Found\r\n\r\n", ""),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "404"),
        (b"HTTP/1.1 503 No\r\n\r\n", "503"),
        (b"SSH-2.0\r\n", "not answered in HTTP"),
        (b"", "not answered in HTTP"),
        (b"x" * 200_000, "failed"),
        (None, "no answer"),
    ],
)
async def test_what_counts_as_healthy(tmp_path, answer, problem):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        assert asked.startswith(b"GET /up HTTP/1.1\r\nHost: localhost\r\n")
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()

    path = Place(tmp_path, tmp_path / "s.sock").endpoint
    async with await asyncio.start_unix_server(serve, path):
        found = await problem_of(path, "/up", 0.2)
    assert problem in found and bool(problem) == bool(found)
    assert "failed" in await problem_of(tmp_path / "nobody", "/up", 0.2)


@pytest.mark.parametrize("path", ["", "up", "/a b", "/a\r\nb", "/ä", "/" + "a" * 3000])
def test_paths_that_cannot_be_asked_for(path):
    with pytest.raises(EnvironmentFault):
        check_health_check(HealthCheck(path=path))

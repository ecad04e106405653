"""Files of the group on real processes: put and get while computers are killed, damage that is found and healed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import msgspec
import pytest
from computers import Computer, eventually, make_group, sees

from colla.client import types
from colla.model.contribution import Contribution
from colla.model.errors import CollaError

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

MIB = 1024 * 1024


def make_file(path: Path, mebibytes: int, seed: int = 1) -> Path:
    """Bytes that do not repeat."""
    random = Random(seed)
    with path.open("wb") as file:
        for _ in range(mebibytes):
            file.write(random.randbytes(MIB))
    return path


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.fixture
async def five(tmp_path: Path) -> AsyncIterator[list[Computer]]:
    computers = await make_group(tmp_path, "hashing", 5)
    yield computers
    for computer in computers:
        computer.unplug()


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[list[Computer]]:
    """Three computers that nobody else uses."""
    computers = await make_group(tmp_path, "hashing", 3)
    yield computers
    for computer in computers:
        computer.unplug()


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Computer]]:
    """Three computers for several tests: each uses names of its own and leaves them running."""
    computers = asyncio.run(make_group(tmp_path_factory.mktemp("trio"), "hashing", 3))
    yield computers
    for computer in computers:
        computer.unplug()


async def report_of(computer: Computer, name: str) -> types.ObjectReport | None:
    found = await computer.ask(lambda client: client.objects(name))
    return next((report for report in found if report.name == name), None)


async def has_copies(computer: Computer, name: str, count: int) -> bool:
    report = await report_of(computer, name)
    return report is not None and report.copies >= count


def chunk_files(computer: Computer) -> list[Path]:
    """Every stored chunk, manifests among them."""
    return sorted(path for path in (computer.folder / "objects" / "chunks").rglob("*") if path.is_file())


def holders(computers: list[Computer], object_id: str) -> list[Computer]:
    """Who has the whole object on its disk."""
    return [one for one in computers if (one.folder / "objects" / "held" / object_id).exists()]


def flip_bit(path: Path, seed: int = 0) -> None:
    data = bytearray(path.read_bytes())
    random = Random(seed)
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    path.write_bytes(data)


async def test_a_flipped_bit_in_any_stored_file_is_found_never_served_and_healed(
    trio: list[Computer], tmp_path: Path
) -> None:
    anna, ben, carl = trio
    source = tmp_path / "source"
    source.mkdir()
    make_file(source / "large", 4)
    for number in range(40):
        (source / f"small-{number}").write_bytes(Random(number).randbytes(3000))
    put = await anna.ask(lambda client: client.put(source, "things"))
    assert put.copies == 3
    files = chunk_files(ben)
    good = {path: path.read_bytes() for path in files}
    for seed, path in enumerate(files):
        flip_bit(path, seed)
    # Only damaged copies are left at Ben's; who gets the object from there gets it right nevertheless.
    await carl.ask(lambda client: client.get("things", tmp_path / "out"))
    await ben.ask(lambda client: client.check_objects())
    assert sorted(path.name for path in files) == sorted(_quarantined(ben))

    async def is_healed() -> bool:
        return all(path.exists() and path.read_bytes() == data for path, data in good.items())

    await eventually(is_healed, 30.0, "every file is as it was")
    again = await ben.ask(lambda client: client.check_objects())
    assert (again.chunks, again.damaged) == (len(files), 0)
    # Every copy has other damage: together they still have all of it.
    for number, computer in enumerate(trio):
        for place, path in enumerate(chunk_files(computer)):
            if place % 3 == number:
                flip_bit(path, place)
    for computer in trio:
        await computer.ask(lambda client: client.check_objects())
    for computer in trio:
        await eventually(
            lambda one=computer: _is_whole(one, good), 30.0, f"{computer.name} is healed by the others"
        )
    await anna.ask(lambda client: client.get("things", tmp_path / "again"))
    assert digest_of(tmp_path / "again/large") == digest_of(source / "large")


def _quarantined(computer: Computer) -> list[str]:
    return [path.name for path in (computer.folder / "objects" / "quarantine").iterdir()]


async def _is_whole(computer: Computer, good: dict[Path, bytes]) -> bool:
    present = {path.name: path.read_bytes() for path in chunk_files(computer)}
    return present == {path.name: data for path, data in good.items()}


async def test_files_and_folders_are_shared_under_names(trio: list[Computer], tmp_path: Path) -> None:
    anna, ben, carl = trio
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("hello")
    (folder / "deep" / "run").write_bytes(b"#!/bin/sh\n")
    (folder / "deep" / "run").chmod(0o755)
    async with anna.client() as client:
        put = await client.put(folder, "holidays/2026")
        assert (put.copies, put.wanted) == (3, 3)
        assert put.records >= 2
        with pytest.raises(CollaError) as caught:
            await client.put(folder, "../x")
        assert caught.value.code == "bad_name"
    await eventually(lambda: has_copies(ben, "holidays/2026", 3), 10.0, "the others list it")
    report = await report_of(ben, "holidays/2026")
    assert report is not None
    assert (report.owner, report.files, report.size_bytes, report.folder) == ("anna", 2, 15, True)
    async with carl.client() as client:
        got = await client.get("holidays/2026", tmp_path / "out")
        assert (got.owner, got.files) == ("anna", 2)
        assert (tmp_path / "out/a.txt").read_text() == "hello"
        assert os.access(tmp_path / "out/deep/run", os.X_OK)
        (tmp_path / "out/a.txt").write_text("mine now")
        with pytest.raises(CollaError) as caught:
            await client.get("holidays/2026", tmp_path / "out")
        assert caught.value.code == "target_exists"
        with pytest.raises(CollaError) as caught:
            await client.put(folder, "holidays/2026")
        assert caught.value.code == "name_taken"
        with pytest.raises(CollaError) as caught:
            await client.remove_object("holidays/2026")
        assert caught.value.code == "name_taken"
        (folder / "a.txt").write_text("hello again")
        await client.put(folder, "holidays/2026", replace=True)

    async def is_replaced() -> bool:
        versions = await anna.ask(lambda client: client.object_versions("holidays/2026"))
        return [one.standing for one in versions] == ["current", "earlier"]

    await eventually(is_replaced, 10.0, "the first owner sees who replaced it")
    await anna.ask(lambda client: client.remove_object("holidays/2026", replace=True))

    async def is_gone() -> bool:
        return await report_of(ben, "holidays/2026") is None

    await eventually(is_gone, 10.0, "it is listed nowhere")


async def test_what_is_sealed_opens_for_its_recipients_only(trio: list[Computer], tmp_path: Path) -> None:
    anna, ben, carl = trio
    names = [(await one.ask(lambda client: client.node())).member_name for one in trio]
    secret = make_file(tmp_path / "secret", 3, seed=4711)
    async with anna.client() as client:
        put = await client.put(secret, "secret", sealed_for=(names[1],))
        assert put.size_bytes == 3 * MIB
        with pytest.raises(CollaError) as caught:
            await client.put(secret, "other", sealed_for=("nobody",))
        assert caught.value.code == "unknown_member"
    await eventually(lambda: has_copies(carl, "secret", 3), 10.0, "all keep it")
    plain = secret.read_bytes()
    for computer in trio:
        stored = [path.read_bytes() for path in chunk_files(computer)]
        assert stored
        assert not any(plain[:64] in data or plain[-64:] in data for data in stored), (
            "nobody stores what it says"
        )
    await ben.ask(lambda client: client.get("secret", tmp_path / "for-ben"))
    assert digest_of(tmp_path / "for-ben") == digest_of(secret)
    report = await report_of(carl, "secret")
    assert report is not None
    assert (report.sealed, report.readable, sorted(report.sealed_for)) == (True, False, sorted(names[:2]))
    with pytest.raises(CollaError) as caught:
        await carl.ask(lambda client: client.get("secret", tmp_path / "for-carl"))
    assert caught.value.code == "not_recipient"
    await ben.ask(lambda client: client.share_object("secret", (names[2],)))

    async def carl_can() -> bool:
        found = await report_of(carl, "secret")
        return found is not None and found.readable

    await eventually(carl_can, 10.0, "who it is shared with can read it")
    await carl.ask(lambda client: client.get("secret", tmp_path / "for-carl"))
    assert digest_of(tmp_path / "for-carl") == digest_of(secret)


@pytest.mark.parametrize("mebibytes", [64, pytest.param(1024, marks=pytest.mark.slow)], ids=["64MiB", "1GiB"])
async def test_an_object_survives_any_two_holders_during_and_after_the_put(
    five: list[Computer], tmp_path: Path, mebibytes: int
) -> None:
    """The first two who are asked die in the middle; then two of the three who kept it."""
    anna, *others = five
    source = make_file(tmp_path / "large", mebibytes)
    putting = asyncio.create_task(anna.ask(lambda client: client.put(source, "large", transfer="put")))
    first = await eventually(lambda: _begun(others), 120.0, "two others began to fetch")
    for computer in first[:2]:
        computer.unplug()
    put = await putting
    left = [one for one in five if one not in first[:2]]
    assert put.copies == put.wanted == 3
    # On a quick machine one of the dead had acknowledged its copy before it died: two are left, which may do for long.
    kept = holders(left, put.object)
    assert len(kept) >= 2
    for computer in first[:2]:
        # They come back with empty disks: whatever is on them later was made again.
        shutil.rmtree(computer.folder / "objects")
        await computer.up()
    for computer in five:
        await eventually(lambda one=computer: sees(one, 5), 30.0, f"{computer.name} sees all again")
    # Two of the holders die for good. The last one that is left gives the object, and copies are made again.
    dead, survivors = [one for one in left if one is not kept[-1]], [kept[-1], *first[:2]]
    for computer in dead:
        computer.unplug()
    died_s = time.monotonic()
    began = await eventually(lambda: _begun(first[:2]), 60.0, "below two copies, remaking starts")
    assert len(began) == 2
    remade_s = time.monotonic() - died_s
    await survivors[1].ask(lambda client: client.get("large", tmp_path / "out"))
    assert digest_of(tmp_path / "out") == digest_of(source)
    await eventually(lambda: has_copies(survivors[2], "large", 3), 120.0, "three copies again")
    sys.stderr.write(
        f"\n{mebibytes} MiB: remaking began {remade_s:.1f} s after the second of two holders died\n"
    )


async def _begun(computers: list[Computer]) -> list[Computer] | None:
    """Those that hold a part or more of a large object, once there are two."""
    found = [one for one in computers if len(chunk_files(one)) > 2]
    return found if len(found) >= 2 else None


@pytest.mark.slow
async def test_a_put_goes_on_after_its_node_and_its_client_were_killed(
    alone: list[Computer], tmp_path: Path
) -> None:
    anna, *_ = alone
    source = make_file(tmp_path / "large", 256)
    command = [sys.executable, "-m", "colla", "put", "--home", str(anna.home), str(source), "large"]
    client = await asyncio.create_subprocess_exec(*command)

    async def half() -> bool:
        return len(chunk_files(anna)) > 100

    await eventually(half, 30.0, "a part is stored")
    client.kill()
    await client.wait()
    # The put belongs to the node: it goes on without whoever asked.
    (running,) = await anna.ask(lambda one: one.transfers())
    assert (running.kind, running.name) == ("put", "large")
    assert anna.process is not None
    os.kill((await anna.ask(lambda one: one.node())).pid, signal.SIGKILL)
    anna.process.wait(10)
    stored = {path: path.stat().st_mtime_ns for path in chunk_files(anna)}
    assert len(stored) > 100
    await anna.up()
    await eventually(lambda: sees(anna, 3), 30.0, "the node is back")
    kept = {path: path.stat().st_mtime_ns for path in chunk_files(anna)}
    assert len(kept) >= len(stored) - 8, "what had been stored is still there"
    put = await anna.ask(lambda one: one.put(source, "large"))
    assert put.copies == 3
    now = {path: path.stat().st_mtime_ns for path in chunk_files(anna)}
    assert all(now[path] == at for path, at in kept.items()), "and was not stored again"
    # The other way: a get is killed in the middle and goes on.
    for computer in alone:
        await eventually(lambda one=computer: has_copies(one, "large", 3), 10.0, "all have it")
    newcomer = Computer(tmp_path, "home9")
    answer = await anna.ask(lambda one: one.invite(types.InviteRequest()))
    newcomer.prepare(answer.ticket, Contribution(), member="newcomer")
    try:
        await newcomer.up()
        await eventually(lambda: sees(newcomer, 4), 30.0, "the newcomer sees all")
        getting = asyncio.create_task(newcomer.ask(lambda one: one.get("large", tmp_path / "out")))
        await eventually(lambda: _has_chunks(newcomer, 60), 30.0, "a part came")
        newcomer.unplug()
        with pytest.raises(CollaError):
            await getting
        came = {path.name: path.stat().st_mtime_ns for path in chunk_files(newcomer)}
        assert 40 < len(came) < 256
        assert not (tmp_path / "out").exists()
        await newcomer.up()
        await eventually(lambda: sees(newcomer, 4), 30.0, "the newcomer is back")
        await newcomer.ask(lambda one: one.get("large", tmp_path / "out"))
        assert digest_of(tmp_path / "out") == digest_of(source)
        now_there = {path.name: path.stat().st_mtime_ns for path in chunk_files(newcomer)}
        assert all(now_there[name] == at for name, at in came.items()), "what came was not fetched again"
    finally:
        newcomer.unplug()


async def _has_chunks(computer: Computer, count: int) -> bool:
    return len(chunk_files(computer)) > count


async def test_a_full_disk_is_refused_clearly(trio: list[Computer], tmp_path: Path) -> None:
    """The last one: afterwards nobody gives any room."""
    for computer in trio:
        async with computer.client() as client:
            gives = (await client.node()).contribution
            await client.contribute(msgspec.structs.replace(gives, disk_bytes=2 * MIB))
    source = make_file(tmp_path / "large", 5, seed=5)
    with pytest.raises(CollaError) as caught:
        await trio[0].ask(lambda client: client.put(source, "too-large"))
    assert caught.value.code == "no_room"
    assert "disk" in caught.value.message
    assert await report_of(trio[0], "too-large") is None


@pytest.mark.slow
async def test_who_comes_later_can_open_what_is_sealed_for_the_group(
    alone: list[Computer], tmp_path: Path
) -> None:
    anna = alone[0]
    source = make_file(tmp_path / "source", 2)
    await anna.ask(lambda client: client.put(source, "for-all", sealed_for=()))
    newcomer = Computer(tmp_path, "home9")
    answer = await anna.ask(lambda client: client.invite(types.InviteRequest()))
    newcomer.prepare(answer.ticket, Contribution(), member="newcomer")
    try:
        await newcomer.up()

        async def can_open() -> bool:
            report = await report_of(newcomer, "for-all")
            return report is not None and report.readable

        await eventually(can_open, 90.0, "the owner's computer wraps the key for it")
        await newcomer.ask(lambda client: client.get("for-all", tmp_path / "out"))
        assert digest_of(tmp_path / "out") == digest_of(source)
    finally:
        newcomer.unplug()

"""The shared calendar of `examples/calendar`: a CalDAV library that is not ours, through replicas that die."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import caldav
import pytest
import requests
from caldav.lib.error import DAVError
from computers import Computer, eventually, located, make_group
from example_folders import DirectDoor, copied, deployed, endpoint_of, with_packages

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]

SENT_BY_GATEWAYS = {"Host": "calendar.localhost", "X-Colla-Member": "anna"}
CALENDAR = "/everyone/calendar/"
EVENT = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//colla//example//EN
BEGIN:VEVENT
UID:{uid}
DTSTAMP:20261122T120000Z
DTSTART:20261201T180000Z
DTEND:20261201T190000Z
SUMMARY:{summary}
END:VEVENT
END:VCALENDAR
"""


class Diary:
    """The calendar as it is at one address. Blocking, like the libraries."""

    def __init__(self, address: str) -> None:
        self.url = f"http://{address}"
        self._session = requests.Session()
        self._session.headers.update(SENT_BY_GATEWAYS)
        self._client = caldav.DAVClient(url=f"{self.url}/", headers=SENT_BY_GATEWAYS)

    def calendar(self) -> caldav.Calendar:
        """Found as every client finds it: from the principal."""
        (calendar,) = self._client.principal().calendars()
        return calendar

    def create(self, uid: str, summary: str) -> None:
        self.calendar().save_event(EVENT.format(uid=uid, summary=summary))

    def edit(self, uid: str, summary: str) -> None:
        event = self.calendar().event_by_uid(uid)
        event.icalendar_component["SUMMARY"] = summary
        event.save()

    def delete(self, uid: str) -> None:
        self.calendar().event_by_uid(uid).delete()

    def summaries(self) -> dict[str, str]:
        components = [event.icalendar_component for event in self.calendar().events()]
        return {str(one["UID"]): str(one["SUMMARY"]) for one in components}

    def changed_since(self, token: str) -> tuple[str, set[str]]:
        """The sync token of now, and whose address has something new since that one."""
        changes = self.calendar().objects_by_sync_token(token or None)
        return changes.sync_token, {str(one.url).rpartition("/")[2] for one in changes}

    def etag(self, uid: str) -> str | None:
        return self._session.get(f"{self.url}{CALENDAR}{uid}.ics", timeout=10).headers.get("ETag")

    def put(self, uid: str, summary: str, **headers: str) -> int:
        text = EVENT.format(uid=uid, summary=summary)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._session.put(f"{self.url}{CALENDAR}{uid}.ics", text, headers=sent, timeout=10).status_code


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[list[Computer]]:
    computers = await make_group(tmp_path, "hashing", 2, ("process",))
    yield computers
    for computer in computers:
        computer.unplug()


async def both_run(computer: Computer) -> dict[str, str] | None:
    replicas = await located(computer, "calendar")
    return replicas if len(replicas) == 2 else None


async def all_show(diaries: list[Diary], wanted: dict[str, str]) -> None:
    for diary in diaries:

        async def shows(diary: Diary = diary) -> bool:
            try:
                return await asyncio.to_thread(diary.summaries) == wanted
            except (DAVError, OSError):  # The replica that was asked had just died.
                return False

        await eventually(shows, 15.0, f"{wanted} at {diary.url}")


async def edited_at_once(diaries: list[Diary]) -> str:
    """Both change what both have seen, at the same moment; the one edit that all replicas agree on."""
    seen = [await asyncio.to_thread(diary.etag, "lunch") for diary in diaries]
    assert seen[0] is not None and seen[0] == seen[1]
    texts = ["Lunch with Anna", "Lunch with Ben"]
    puts = [
        asyncio.to_thread(diary.put, "lunch", text, If_Match=seen[0])
        for diary, text in zip(diaries, texts, strict=True)
    ]
    statuses = await asyncio.gather(*puts)
    assert set(statuses) <= {204, 412} and 204 in statuses
    written = {text for text, status in zip(texts, statuses, strict=True) if status == 204}

    async def agreed() -> str | None:
        shown = {(await asyncio.to_thread(diary.summaries))["lunch"] for diary in diaries}
        return shown.pop() if len(shown) == 1 else None

    found = await eventually(agreed, 15.0, "all replicas show the same one of two concurrent edits")
    assert found in written
    return found


async def test_a_calendar_edited_through_two_replicas(group: list[Computer], tmp_path: Path) -> None:
    folder = copied("calendar", tmp_path)
    with_packages(folder, "radicale")
    await deployed(group[0], folder, 2)
    replicas = await eventually(lambda: both_run(group[0]), 30.0, "two replicas run")
    doors = [DirectDoor(endpoint_of(computer, replicas[computer.name])) for computer in group]
    one, two = diaries = [Diary(await door.open()) for door in doors]

    await asyncio.to_thread(one.create, "lunch", "Lunch")
    await all_show(diaries, {"lunch": "Lunch"})
    first = await asyncio.to_thread(one.etag, "lunch")
    assert first and first == await asyncio.to_thread(two.etag, "lunch")
    token, _ = await asyncio.to_thread(two.changed_since, "")
    await asyncio.to_thread(two.edit, "lunch", "Late lunch")
    await all_show(diaries, {"lunch": "Late lunch"})
    assert (await asyncio.to_thread(two.changed_since, token))[1] == {"lunch.ics"}
    # Who has not seen the edit cannot undo it, at whichever replica.
    assert await asyncio.to_thread(one.put, "lunch", "Early lunch", If_Match=first) == 412
    assert await asyncio.to_thread(one.put, "lunch", "Early lunch", If_None_Match="*") == 412
    agreed = await edited_at_once(diaries)

    await asyncio.to_thread(two.create, "dinner", "Dinner")
    await all_show(diaries, {"lunch": agreed, "dinner": "Dinner"})
    await asyncio.to_thread(one.delete, "lunch")
    await all_show(diaries, {"dinner": "Dinner"})

    # What was written through a computer that is no more is there, and it goes on, by the gateway as people use it.
    doors[1].close()
    group[1].unplug()
    left = Diary((await group[0].ask(lambda client: client.node())).gateway)
    await all_show([left], {"dinner": "Dinner"})

    async def edited() -> bool:
        # An edit with a condition is never repeated by the gateway: who sent it to the dead one does it again.
        try:
            await asyncio.to_thread(left.edit, "dinner", "Supper")
        except (DAVError, OSError):
            return False
        return True

    await eventually(edited, 30.0, "an edit at the replica that is left")
    await all_show([left, one], {"dinner": "Supper"})
    doors[0].close()

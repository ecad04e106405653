"""What the demo counts and measures: requests, dark intervals, the timeline, the laptop's view, the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from colla.cli.demo import offers, report, watching
from colla.cli.demo.asker import Asked
from colla.cli.demo.computers import Computer
from colla.cli.demo.requests import Dark, RequestLog, Tally, quantile, tally
from colla.cli.demo.watching import Moment, Timeline, changes, running
from colla.client import types
from colla.model.errors import CollaError


def asked(at_s: float, took_s: float = 0.01, error: str = "", replica: str = "r1") -> Asked:
    return Asked(at_s, took_s, "site", 200 if not error else 502, replica, error)


@pytest.mark.parametrize(
    ("values", "share", "value"),
    [
        ([1.0], 0.99, 1.0),
        ([1.0, 2.0], 0.5, 1.0),
        (list(range(1, 101)), 0.99, 99),
        (list(range(1, 101)), 1.0, 100),
    ],
)
def test_quantiles(values: list[float], share: float, value: float) -> None:
    assert quantile(values, share) == value


def test_requests_are_counted_within_an_interval() -> None:
    requests = [
        asked(1),
        asked(2, 0.5),
        asked(2.5, 0.1, "status 502", ""),
        asked(2.9, 2.1, replica="r2"),
        asked(3),
    ]
    found = tally(requests, 2, 3)
    assert (found.sent, found.failed, found.replicas, found.longest_ms) == (3, 2, 2, 2100)
    assert found.examples == ("site: status 502", "site: answered after 2.1 s")
    assert tally(requests, 5, 6) == Tally()


def test_requests_open_in_the_dark_do_not_count() -> None:
    dark = [Dark(10, 20), Dark(30)]
    requests = [
        asked(9, 0.5),
        asked(9.9, 0.5, "cut"),
        asked(15, 0.1, "no"),
        asked(19.9, 1, "no"),
        asked(20),
        asked(31),
    ]
    found = tally(requests, 0, float("inf"), dark)
    assert (found.sent, found.failed) == (2, 0)
    assert tally(requests, 0, float("inf")).failed == 3
    assert report.dark_seconds(dark[:1]) == 10


def test_the_log_is_read_on_as_it_grows(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "log")
    assert log.read() == 0
    lines = b"".join(msgspec.json.encode(asked(at_s)) + b"\n" for at_s in range(3))
    (tmp_path / "log").write_bytes(lines[:-20])
    assert log.read() == 2
    with (tmp_path / "log").open("ab") as stream:
        stream.write(lines[-20:])
    assert log.read() == 3 and [each.at_s for each in log.asked] == [0, 1, 2]


def test_the_first_of_several_moments() -> None:
    told: list[Moment] = []
    timeline = Timeline(told.append)
    for at_s, about, service in ((5, "a", ""), (3, "b", "site"), (4, "a", "site")):
        timeline.add(Moment(at_s, "absent", "", about=about, service=service))
    assert timeline.first("absent", 0) == 3 and timeline.first("absent", 3.5) == 4
    assert timeline.first("absent", 0, about=("a",)) == 4
    assert timeline.first("absent", 0, service="site", about=("b",)) == 3
    assert timeline.first("absent", 6) is None and timeline.first("present", 0) is None
    assert len(told) == 3


def computers(tmp_path: Path, *on: str) -> dict[str, Computer]:
    found = {name: Computer(tmp_path, name, "ana") for name in ("nas", "vps", "old")}
    for name in on:
        found[name].on = True
    return found


def test_a_replica_on_an_unplugged_computer_does_not_run(tmp_path: Path, samples: Any) -> None:
    here = computers(tmp_path, "vps")
    assert running(samples.service("site", "nas", "vps"), here) == ["vps"]


def test_changes_of_the_view(tmp_path: Path, samples: Any) -> None:
    here = computers(tmp_path, "nas", "vps", "old")
    before = types.StatusReport(samples.node, samples.computers, (samples.service("site", "nas", "vps"),))
    gone = msgspec.structs.replace(samples.computers[1], phase="absent")
    site = samples.service("site", "nas", master="nas")
    now = types.StatusReport(samples.node, (samples.computers[0], gone), (site,))
    moments = changes(before, now, here, 7.0)
    assert [(each.kind, each.about, each.service) for each in moments] == [
        ("absent", "vps", ""),
        (watching.RUNNING, "", "site"),
        (watching.MASTER_SEEN, "nas", "site"),
    ]
    assert "1 of 3 replicas, on nas" in moments[1].text and moments[0].at_s == 7.0
    assert changes(None, now, here, 7.0) == [] and changes(now, now, here, 7.0) == []


async def test_a_wait_in_vain_tells_what_was_seen(tmp_path: Path, samples: Any) -> None:
    here = computers(tmp_path, "nas")
    watcher = watching.Watcher(here["nas"], here, Timeline())
    with pytest.raises(CollaError, match="full number: not within 0 s") as raised:
        await watcher.until("full number", lambda view: True, 0.01)
    assert "does not answer" in raised.value.hint
    await watcher._see(types.StatusReport(samples.node, samples.computers, (samples.service("site", "nas"),)))
    await watcher.until("anything", lambda view: True, 1)
    with pytest.raises(CollaError) as raised:
        await watcher.until("more", lambda view: False, 0.01)
    assert "site: 1/3 by vps" in raised.value.hint and "old absent" in raised.value.hint


def test_notices_are_heard_once_and_named(tmp_path: Path, samples: Any) -> None:
    here, timeline = computers(tmp_path, "nas"), Timeline()
    watcher = watching.Watcher(here["nas"], here, timeline)
    watcher._names = {"11" * 16: "site"}
    for at_s in (1.0, 2.0, 2.0, 1.0, 3.0):
        watcher._hear("vps", types.NoticeReport(at_s, "took_over", "masters", "11" * 16))
    assert [each.at_s for each in timeline.moments] == [1.0, 2.0, 3.0]
    assert timeline.moments[0].service == "site" and timeline.moments[0].seen_by == "vps"


def test_the_table_and_missed_targets(capsys: pytest.CaptureFixture[str]) -> None:
    from colla.cli.output import Output

    acts = [
        report.Act("one dies", 10, detected_s=3.25, full_s=7.0, target_s=6),
        report.Act("two die", 20, full_s=0.0, target_s=6),
    ]
    log = RequestLog(Path("unused"))
    log.asked = [asked(9), asked(11), asked(12, 0.5, "no"), asked(25)]
    tallies = report.tally_acts(acts, log, ())
    assert [each.sent for each in tallies] == [2, 1]
    report.show(Output(), acts, tallies, tally(log.asked, 0, 99), 3.0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "one dies\t3.2 s\t–\t7.0 s\t≤ 6 s\t2\t1\t500 ms\t500 ms"
    assert lines[1].split("\t")[3] == "kept" and "4 requests, 1 failed" in lines[3] and "3.0 s" in lines[4]
    assert report.missed(acts) == ["one dies: 7.0 s instead of 6 s"]


def test_the_site_and_what_is_asked_of_it(tmp_path: Path) -> None:
    offers.write_site(tmp_path / "site", pages=5, pictures=2)
    paths = offers.site_paths(tmp_path / "site")
    assert len(paths) == 9 and paths["/pages/0.html"].read_text().startswith("<!doctype html>")
    (tmp_path / "site" / "large.bin").write_bytes(bytes(offers.FILE_BYTES_MAX + 1))
    assert "/large.bin" not in offers.site_paths(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CollaError):
        offers.site_paths(tmp_path / "empty")


def test_the_program_is_recognised_as_one(tmp_path: Path) -> None:
    from colla.client.deploying import plan_deploy

    offers.write_app(tmp_path / "app")
    offers.write_site(tmp_path / "site", pages=2, pictures=1)
    assert plan_deploy(tmp_path / "app").request.command == ("python3", "app.py")
    assert plan_deploy(tmp_path / "site").request.environment == "static"


def test_an_asked_request_is_a_line() -> None:
    assert json.loads(msgspec.json.encode(asked(1.5))) == [1.5, 0.01, "site", 200, "r1", ""]

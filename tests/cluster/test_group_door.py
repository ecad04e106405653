"""What a service's program asks of the group from inside its sandbox: names on which replicas agree, events, places."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from computers import Computer, deploy, eventually, located, make_group

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]

APP = """
import http.client, http.server, json, os, socket, urllib.request
class Door(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ["COLLA_GROUP_SOCKET"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked["only"] != os.environ["COLLA_REPLICA"]:
            self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers()
            self.wfile.write(b"{}")
            return
        if asked["method"] == "USE":
            with urllib.request.urlopen(os.environ[asked["path"]], timeout=10) as used:
                told = {"status": used.status, "etag": None, "body": used.read().decode()}
            return self.tell(told)
        door = Door("group", timeout=30)
        headers = {"X-Colla-Token": os.environ["COLLA_GROUP_TOKEN"]} | asked.get("headers", {})
        door.request(asked["method"], "/v1/group/" + asked["path"], asked.get("body", "").encode(), headers)
        answer = door.getresponse()
        told = {"status": answer.status, "etag": answer.headers.get("ETag"), "body": answer.read().decode()}
        self.tell(told)
    def tell(self, told):
        body = json.dumps(told).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[list[Computer]]:
    computers = await make_group(tmp_path, "hashing", 2, ("process", "static"))
    yield computers
    for computer in computers:
        computer.unplug()


class Program:
    """One replica, which passes on what it is told to ask."""

    def __init__(self, replica: str, gateway: str) -> None:
        self.replica, self.gateway = replica, gateway

    async def ask(self, method: str, path: str, body: str = "", **headers: str) -> tuple[int, Any, str]:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        asked = {"method": method, "path": path, "body": body, "headers": names, "only": self.replica}

        async def told_by_it() -> Any:
            # The gateway chooses which replica answers; the others do nothing.
            url, host = f"http://{self.gateway}/", {"Host": "app.localhost"}
            timeout = aiohttp.ClientTimeout(total=20)
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(url, json=asked, headers=host) as response,
            ):
                return await response.json(content_type=None) if response.status == 200 else None

        told = await eventually(told_by_it, 20.0, f"{self.replica} answers")
        text = told["body"]
        return told["status"], json.loads(text) if text.startswith("{") else text, told["etag"]


async def both(computer: Computer) -> bool:
    return len(await located(computer, "app")) == 2


async def program_on(computer: Computer) -> Program:
    gateway = (await computer.ask(lambda client: client.node())).gateway
    return Program((await located(computer, "app"))[computer.name], gateway)


async def test_replicas_agree_by_names_and_speak_to_the_group(group: list[Computer], tmp_path: Path) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "app.py").write_text(APP)
    page = tmp_path / "pages"
    page.mkdir()
    (page / "index.html").write_text("what it uses")
    await deploy(group[0], page, "our-pages", 1)
    command = ("python3", "app.py")
    await deploy(group[0], folder, "app", 2, environment="process", command=command, uses=("our-pages",))
    await eventually(lambda: both(group[0]), 30.0, "two replicas run")
    one, two = [await program_on(computer) for computer in group]

    status, own, _ = await one.ask("GET", "self")
    assert (status, own["service"], own["group"]) == (200, "app", "circle")
    assert (await one.ask("GET", "self", X_Colla_Token="wrong"))[0] == 403

    # Only one of two that make the same name wins; the other one sees it and changes it on purpose.
    status, first, _ = await one.ask("PUT", "names/notes/a.txt", "first", If_None_Match="*")
    assert status == 200 and first["records"] >= 1

    async def arrived() -> bool:
        return (await two.ask("GET", "names/notes/a.txt"))[1] == "first"

    await eventually(arrived, 10.0, "the name is known on the other computer")
    status, refused, _ = await two.ask("PUT", "names/notes/a.txt", "mine", If_None_Match="*")
    assert (status, refused["code"]) == (412, "changed_meanwhile")
    status, _, tag = await two.ask("GET", "names/notes/a.txt")
    assert (status, tag) == (200, f'"{first["object"]}"')
    assert (await two.ask("GET", "names/notes/a.txt", If_None_Match=tag))[0] == 304
    status, second, _ = await two.ask("PUT", "names/notes/a.txt", "second", If_Match=tag)
    assert status == 200 and second["object"] != first["object"]
    status, listed, _ = await two.ask("GET", "names?prefix=notes/")
    assert [(each["name"], each["size_bytes"]) for each in listed["names"]] == [("notes/a.txt", 6)]
    for wrong in ("names/../../other/a.txt", "names/%2e%2e/x", "names/a%5Cb"):
        assert (await two.ask("PUT", wrong, "x"))[0] in (400, 404)
    assert (await two.ask("DELETE", "names/notes/a.txt", If_Match=tag))[0] == 412
    assert (await two.ask("DELETE", "names/notes/a.txt", If_Match=f'"{second["object"]}"'))[0] == 200
    assert (await two.ask("GET", "names/notes/a.txt"))[0] == 404

    status, place, _ = await one.ask("GET", "services/app")
    assert status == 200 and {each["node"] for each in place["replicas"]} == {each.name for each in group}
    assert (await one.ask("GET", "services/nothing"))[0] == 404
    status, published, _ = await one.ask("POST", "events", '{"topic": "app.saved", "data": {"n": 1}}')
    assert status == 200 and published["copies"] >= 1

    assert (await one.ask("POST", "report", '{"text": "the disk of the printer is full"}'))[0] == 200
    assert (await one.ask("POST", "log", '{"text": "a line for the log"}'))[0] == 200
    assert (await one.ask("POST", "report", "nonsense"))[0] == 400
    async with group[0].client() as client:
        async for notice in client.notices():
            if notice.kind == "replica_reported":
                assert notice.text == "app: the disk of the printer is full"
                break

    # It reaches the service that it uses, wherever that runs: one of the two is on another computer.
    for program in (one, two):
        assert (await program.ask("USE", "COLLA_USES_OUR_PAGES"))[:2] == (200, "what it uses")

    # The token holds when the agent comes back; the program has gone on meanwhile.
    async with group[0].client() as client:
        await client.shut_down(keep_replicas=True)
    assert group[0].process is not None
    await asyncio.to_thread(group[0].process.wait, 20)
    await group[0].up()
    await eventually(lambda: both(group[0]), 20.0, "both replicas are known again")
    assert (await (await program_on(group[0])).ask("GET", "self"))[1] == own

"""The contributed door opens, moves and closes with the owner's decision, and lists nothing."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence

import aiohttp
import pytest

from colla.access.interface import ByteStream, ListedService, Located, TunnelError
from colla.model.errors import CollaError
from colla.model.ids import NodeId, ReplicaId, ServiceId
from colla.node.doors import Doors, parse_gateway


class Nobody:
    """Knows one private service; no tunnel leads anywhere."""

    private = Located(ServiceId(b"s"), "diary", "circle", ())

    def locate(self, host_name: str) -> Located | None:
        return self.private if host_name == "diary" else None

    def locate_domain(self, domain: str) -> Located | None:
        return None

    async def locate_fresh(self, host_name: str, timeout_s: float) -> Located | None:
        return self.locate(host_name)

    def report_failed(self, service: ServiceId, replica: ReplicaId) -> None:
        pass

    def services(self) -> Sequence[ListedService]:
        return [ListedService("diary", "diary", 0, 1, True, False)]

    def member_of_request(self, remote: str, headers: Mapping[str, str]) -> str | None:
        return "anna"

    async def open(self, node: NodeId, service: ServiceId, replica: ReplicaId) -> ByteStream:
        raise TunnelError("unreachable")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


async def get(port: int, host: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/", headers={"Host": host}) as response,
    ):
        return response.status, await response.text()


async def test_the_contributed_door_follows_the_owner_and_hides_what_is_private() -> None:
    nobody, port = Nobody(), free_port()
    doors = Doors(nobody, nobody)
    try:
        own = int((await doors.open_own(0, fixed=True)).rpartition(":")[2])
        await doors.contribute(f"127.0.0.1:{port}")
        assert "diary" in (await get(own, "localhost"))[1]
        # What is private looks from outside like what is not there at all.
        private = await get(port, "diary.localhost")
        unknown = await get(port, "sesame.localhost")
        assert private == (404, unknown[1].replace("sesame", "diary"))
        await doors.contribute("")
        with pytest.raises(aiohttp.ClientConnectorError):
            await get(port, "localhost")
    finally:
        await doors.close()


async def test_a_taken_port_is_an_error_only_when_it_was_chosen() -> None:
    nobody = Nobody()
    doors = Doors(nobody, nobody)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        try:
            with pytest.raises(CollaError, match="port"):
                await doors.open_own(port, fixed=True)
            assert await doors.open_own(port, fixed=False) != f"127.0.0.1:{port}"
        finally:
            await doors.close()


@pytest.mark.parametrize("text", ["80", ":80", "0.0.0.0:", "0.0.0.0:0", "0.0.0.0:70000", "0.0.0.0:http"])
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(CollaError, match="no address for a gateway"):
        parse_gateway(text)

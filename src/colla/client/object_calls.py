"""What `colla.Client` asks about objects: the group's files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from colla.client import types
from colla.client.calls import Calls, quoted

TRANSFER_TIMEOUT_S = 24 * 3600.0
COUNT_TIMEOUT_S = 60.0


class ObjectCalls(Calls):
    """Objects."""

    async def put(
        self,
        path: Path,
        name: str = "",
        *,
        sealed_for: tuple[str, ...] | None = None,
        replace: bool = False,
        expected: str | None = None,
        transfer: str = "",
    ) -> types.PutAnswer:
        """Store a folder or file, with copies on repository agents; with `name` as one of the group's files.

        `sealed_for`: only these members can read it (an empty tuple: only members). `replace`: also another member's
        name. `expected`: only if the name leads to this object now ("": to nothing). `transfer`: see `transfers`.
        Interrupted, the same put goes on where it stopped. Raises `CollaError`.
        """
        request = types.PutRequest(
            _absolute(path),
            name,
            sealed_for is not None,
            sealed_for or (),
            replace,
            expected,
            transfer,
        )
        return await self._call("POST", "objects", types.PutAnswer, request, timeout_s=TRANSFER_TIMEOUT_S)

    async def get(
        self, name: str, target: Path, *, version: str = "", replace: bool = False, transfer: str = ""
    ) -> types.GetAnswer:
        """Write what the name leads to (or `version`, an object's id) to the new file or folder `target`.

        Interrupted, the same get goes on where it stopped. Raises `CollaError`: `not_found`, `target_exists`,
        `not_recipient`, `fetch_failed`, …
        """
        request = types.GetRequest(name, _absolute(target), version, replace, transfer)
        return await self._call("POST", "objects/get", types.GetAnswer, request, timeout_s=TRANSFER_TIMEOUT_S)

    async def objects(
        self, prefix: str = "", *, after: str = "", limit: int = types.LISTED_MAX
    ) -> tuple[types.ObjectReport, ...]:
        """Named objects that begin with `prefix`, behind the name `after`, `limit` at most, in order."""
        query = {"prefix": prefix, "after": after, "limit": str(limit)}
        return await self._call(
            "GET", "objects", tuple[types.ObjectReport, ...], query=query, timeout_s=COUNT_TIMEOUT_S
        )

    async def all_objects(self, prefix: str = "") -> AsyncIterator[types.ObjectReport]:
        """All named objects that begin with `prefix`, however many."""
        after = ""
        while True:
            page = await self.objects(prefix, after=after)
            for report in page:
                yield report
            if len(page) < types.LISTED_MAX:
                return
            after = page[-1].name

    async def object_versions(self, name: str) -> tuple[types.VersionReport, ...]:
        """The current version of a name, concurrent ones that lost, earlier ones. Raises `CollaError("not_found")`."""
        return await self._call(
            "GET", "objects/versions", tuple[types.VersionReport, ...], query={"name": name}
        )

    async def remove_object(
        self, name: str, *, replace: bool = False, expected: str | None = None
    ) -> types.NamedAnswer:
        """Remove a name; `replace` and `expected` as in `put`. Raises `CollaError`."""
        query = {"name": name, "replace": "true" if replace else "false"}
        if expected is not None:
            query["expected"] = expected
        return await self._call("DELETE", "objects", types.NamedAnswer, query=query)

    async def share_object(self, name: str, members: tuple[str, ...] = ()) -> types.NamedAnswer:
        """Let these members as well (none: the whole group) read a sealed object. Raises `CollaError`."""
        return await self._call("POST", "objects/share", types.NamedAnswer, types.ShareRequest(name, members))

    async def check_objects(self, transfer: str = "") -> types.CheckAnswer:
        """Read everything that is stored on this computer now; damage is mended from other computers."""
        request = types.CheckRequest(transfer)
        return await self._call(
            "POST", "objects/check", types.CheckAnswer, request, timeout_s=TRANSFER_TIMEOUT_S
        )

    async def transfers(self) -> tuple[types.TransferReport, ...]:
        """Puts, gets and checks under way on this computer."""
        return await self._call("GET", "transfers", tuple[types.TransferReport, ...])

    async def stop_transfer(self, transfer: str) -> None:
        """Stop a transfer; asked for again, it goes on where it stopped. Raises `CollaError("not_found")`."""
        await self._call("DELETE", f"transfers/{quoted(transfer)}", dict[str, str])


def _absolute(path: Path) -> str:
    # The node has another working folder. A link at the end stays one: it names what is wanted.
    return str(path.absolute())

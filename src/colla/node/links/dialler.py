"""Dialling a peer at all its addresses at once and taking the first connection that comes up.

iroh itself tries every numeric address and one relay of a peer together. Names and further relays are tried
beside that, so that a slow resolver or a dead relay delays nobody. The caller bounds the time: left alone, iroh
tries a dead address for 30 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import iroh

from colla.model.ids import NodeId
from colla.node.links.addresses import ADDRESSES_MAX, resolve, sort_targets
from colla.node.links.endpoint import explain
from colla.node.links.interface import LinkError

ABANDONED = 3
"""The code with which a connection is closed that turned out not to be needed."""


async def connect_any(
    endpoint: iroh.Endpoint, peer: NodeId, addresses: Iterable[str], alpn: bytes
) -> iroh.Connection:
    """The first connection to `peer` at any of `addresses`. Raises `LinkError` when every attempt failed."""
    targets = sort_targets(addresses)
    attempts: list[Coroutine[Any, Any, iroh.Connection]] = []
    if targets.numeric or targets.relays:
        first_relay = targets.relays[0] if targets.relays else None
        attempts.append(_connect(endpoint, peer, targets.numeric, first_relay, alpn))
    attempts += [_connect(endpoint, peer, (), relay, alpn) for relay in targets.relays[1:]]
    if targets.names:
        attempts.append(_connect_by_name(endpoint, peer, targets.names, alpn))
    if not attempts:
        raise LinkError("no address is known")
    return await _first(attempts)


async def connect_known(
    endpoint: iroh.Endpoint,
    peer: NodeId,
    addresses: Callable[[], Iterable[str]],
    news: asyncio.Event,
    alpn: bytes,
) -> iroh.Connection:
    """Like `connect_any` at all `addresses()`, and again with all of them whenever `news` says that there are more.

    iroh takes no further addresses for an attempt under way, and a first guess that is wrong costs seconds.
    """
    while True:
        news.clear()
        attempt = asyncio.ensure_future(connect_any(endpoint, peer, addresses(), alpn))
        more = asyncio.ensure_future(news.wait())
        try:
            await asyncio.wait((attempt, more), return_when=asyncio.FIRST_COMPLETED)
            if attempt.done():
                return attempt.result()
        except asyncio.CancelledError:
            attempt.add_done_callback(_abandon)
            raise
        finally:
            more.cancel()
            attempt.cancel()
        attempt.add_done_callback(_abandon)


async def _connect(
    endpoint: iroh.Endpoint, peer: NodeId, numeric: Iterable[str], relay: str | None, alpn: bytes
) -> iroh.Connection:
    where = iroh.EndpointAddr(iroh.EndpointId.from_bytes(peer), relay, list(numeric))
    return await endpoint.connect(where, alpn)


async def _connect_by_name(
    endpoint: iroh.Endpoint, peer: NodeId, names: Iterable[tuple[str, int]], alpn: bytes
) -> iroh.Connection:
    found = await asyncio.gather(*(resolve(host, port) for host, port in names))
    numeric = tuple(address for addresses in found for address in addresses)[:ADDRESSES_MAX]
    if not numeric:
        raise LinkError("none of the names resolves")
    return await _connect(endpoint, peer, numeric, None, alpn)


async def _first(attempts: Iterable[Coroutine[Any, Any, iroh.Connection]]) -> iroh.Connection:
    waiting = {asyncio.ensure_future(attempt): None for attempt in attempts}
    everyone = list(waiting)
    failures: list[str] = []
    chosen: iroh.Connection | None = None
    try:
        while waiting and chosen is None:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in everyone:
                if task in done and waiting.pop(task, 0) is None:
                    chosen = _judge(task, chosen, failures)
    finally:
        for task in waiting:
            task.cancel()
            task.add_done_callback(_abandon)
    if chosen is None:
        raise LinkError("; ".join(dict.fromkeys(failures)))
    return chosen


def _judge(
    task: asyncio.Future[iroh.Connection], chosen: iroh.Connection | None, failures: list[str]
) -> iroh.Connection | None:
    error = task.exception()
    if isinstance(error, (iroh.IrohError, LinkError)):
        failures.append(explain(error))
        return chosen
    if chosen is None:
        return task.result()
    _abandon(task)
    return chosen


def _abandon(task: asyncio.Future[iroh.Connection]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close(ABANDONED, b"another path was faster")

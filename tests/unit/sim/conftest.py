"""Fixtures of the simulator's own tests."""

from __future__ import annotations

import pytest

from colla.sim.network import LAN, Network
from colla.sim.world import World


@pytest.fixture
def world() -> World:
    return World(7)


@pytest.fixture
def network(world: World) -> Network:
    return Network(world)


assert LAN.loss == 0.0  # These tests count on lines that lose nothing by chance.

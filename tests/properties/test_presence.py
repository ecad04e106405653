"""Whatever happens to a small group, once it is whole again all of its nodes agree on who is here."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from hypothesis import given, settings
from hypothesis import strategies as st

SUPPORT = Path(__file__).parent.parent / "unit/protocol/presence/support_presence.py"
NODES = 4

FAULT = st.tuples(
    st.sampled_from(["crash", "restart", "leave", "stall", "cut", "cut one way", "heal", "change"]),
    st.integers(0, NODES - 1),
    st.integers(0, NODES - 1),
    st.sampled_from([0.0, 0.3, 1.0, 4.0, 9.0]),
)


def load_support() -> ModuleType:
    name = "support_presence"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, SUPPORT)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@given(faults=st.lists(FAULT, max_size=10), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_a_group_that_is_whole_again_agrees(faults: list[tuple[str, int, int, float]], seed: int) -> None:
    net = load_support().Network(NODES, seed=seed, loss=0.05, delay_s=(0.01, 0.2))
    net.start(settle_s=5.0)
    for fault, first, second, wait_s in faults:
        node, other = net.nodes[first], net.nodes[second]
        match fault:
            case "crash":
                net.crash(node)
            case "restart":
                net.restart(node)
            case "leave" if node.alive:
                node.call(node.presence.stopping)
                net.run(0.5)
                net.crash(node)
            case "stall" if node.alive:
                net.stall(node, wait_s)
            case "cut":
                net.partition([node, other], [one for one in net.nodes if one not in (node, other)])
            case "cut one way":
                net.blocked = lambda sender, receiver, node=node: receiver is node
            case "heal":
                net.heal()
            case "change" if node.alive:
                node.call(node.presence.contribution_changed)
            case _:
                pass
        net.run(wait_s)
    net.heal()
    for node in net.nodes:
        if not node.alive:
            net.restart(node)
    # Both sides of a healed cut dial each other about once in 10 to 60 s, each a random while apart.
    assert net.run(240.0, net.all_see_all)
    assert net.run(240.0, lambda: len({node.presence._table.digest() for node in net.nodes}) == 1)
    assert net.all_see_all()

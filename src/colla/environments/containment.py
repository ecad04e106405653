"""What keeps a program from its computer: bubblewrap, else Landlock, else nothing; and what that does not keep it from."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from colla.environments.cgroups import ControlGroups
from colla.environments.driver import fault
from colla.environments.landlock import Landlock
from colla.environments.protocol import THREATS, LimitName
from colla.environments.sandbox import Bubblewrap

BOMBS: Final[dict[str, LimitName]] = {"fork_bomb": "pids", "memory_bomb": "memory_bytes"}
"""Only a limit of the control groups keeps a program from these."""


def find_containment(folder: Path, wanted: str) -> tuple[Bubblewrap | Landlock | None, str]:
    """The strongest that works here, or the one that is wanted and no other; with why there is none.

    `wanted` is auto, bubblewrap, landlock or none. Raises `EnvironmentFault("no_sandbox")`.
    """
    if wanted == "none":
        return None, "it was switched off"
    reasons = []
    for name, kind in (("bubblewrap", Bubblewrap), ("landlock", Landlock)):
        if wanted in ("auto", name):
            found = kind.find(folder)
            if not isinstance(found, str):
                return found, ""
            reasons.append(found)
    why_not = ", and ".join(reasons)
    if wanted != "auto":
        raise fault("no_sandbox", f"There is no sandbox: {why_not}.", "Install bubblewrap.")
    return None, why_not


def not_contained(containment: Bubblewrap | Landlock | None, groups: ControlGroups) -> tuple[str, ...]:
    """Those of `THREATS` that remain."""
    if containment is None:
        return tuple(THREATS)
    remaining = [threat for threat, limit in BOMBS.items() if limit not in groups.limits]
    return ("names", *remaining) if isinstance(containment, Landlock) else tuple(remaining)

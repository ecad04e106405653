"""All routes of the local API, area by area."""

from __future__ import annotations

from typing import Any, Final

from colla.node.api import (
    administration,
    communication,
    computer,
    environments,
    group,
    objects,
    secrets,
    services,
)
from colla.node.api.routes import Route

ROUTES: Final[tuple[Route[Any, Any], ...]] = (
    *computer.ROUTES,
    *group.ROUTES,
    *administration.ROUTES,
    *services.ROUTES,
    *secrets.ROUTES,
    *objects.ROUTES,
    *communication.ROUTES,
    *environments.ROUTES,
)

"""The local HTTP API: JSON over a Unix socket in the group's folder, for CLI, dashboard and programs.

`table.ROUTES` is all that it can do: one `Route` each, in one module per area. `serving` admits requests and carries
them to their handlers; `openapi` describes the same table.
"""

from colla.node.api.serving import Api
from colla.node.api.table import ROUTES

__all__ = ["ROUTES", "Api"]

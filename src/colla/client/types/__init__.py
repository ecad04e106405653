"""The types of the local HTTP API: what the node serves and what CLI, dashboard and programs read.

JSON; identifiers are hexadecimal text; times are Unix seconds; every name has its unit. Frozen structs, so that
an answer can be kept and compared. Fields with defaults may be added by later versions. One module per area.
"""

from __future__ import annotations

import msgspec

from colla.client.types.administration import *  # noqa: F403
from colla.client.types.communication import *  # noqa: F403
from colla.client.types.computer import *  # noqa: F403
from colla.client.types.environments import *  # noqa: F403
from colla.client.types.group import *  # noqa: F403
from colla.client.types.objects import *  # noqa: F403
from colla.client.types.secrets import *  # noqa: F403
from colla.client.types.services import *  # noqa: F403

API_VERSION = "v1"
SOCKET_NAME = "api.sock"
TOKEN_NAME = "api.token"
TOKEN_HEADER = "X-Colla-Token"


class ApiError(msgspec.Struct, frozen=True):
    """Why a request failed: `code` is stable, `message` is for people, `hint` says what to do."""

    code: str
    message: str
    hint: str = ""


class Done(msgspec.Struct, frozen=True):
    """It was done; there is nothing more to say."""

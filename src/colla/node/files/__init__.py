"""The group's files, for people and programs of this computer: putting, getting, listing, sharing, checking.

`Files` is what the API asks; `transfers` shows what is under way, `keys` seals for members.
"""

from colla.node.files.files import Files, GetOrder, PutOrder, is_left_out
from colla.node.files.transfers import Transfer, Transfers

__all__ = ["Files", "GetOrder", "PutOrder", "Transfer", "Transfers", "is_left_out"]

"""The node's log: a file in the group's folder that turns over, and stderr for who watches."""

from __future__ import annotations

import logging
import logging.handlers
import sys
from pathlib import Path

from colla.client.folders import LOG_NAME
from colla.client.text import clean

LOG_BYTES_MAX = 2_000_000
LOG_FILES_OLD = 2


class LogFormatter(logging.Formatter):
    """One readable line per event. What others wrote cannot reach the terminal as control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """As `logging.Formatter`; line breaks stay."""
        return "\n".join(clean(line) for line in super().format(record).split("\n"))


def log_to(folder: Path, *, quiet: bool, level: int = logging.INFO) -> None:
    """Send the log of colla to the folder's log file, and to stderr unless `quiet`."""
    formatter = LogFormatter("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S")
    handlers: list[logging.Handler] = [
        logging.handlers.RotatingFileHandler(
            folder / LOG_NAME, maxBytes=LOG_BYTES_MAX, backupCount=LOG_FILES_OLD, encoding="utf-8"
        )
    ]
    if not quiet:
        handlers.append(logging.StreamHandler(sys.stderr))
    # A log that cannot be written, on a full disk, is lost; a traceback for each of its lines helps nobody.
    logging.raiseExceptions = False
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    logging.getLogger("colla").setLevel(level)
    logging.getLogger("zeroconf").setLevel(logging.ERROR)  # It warns of every interface that is down.
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)

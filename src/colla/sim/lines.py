"""How computers are connected to the others: the line of each, and how far apart the regions of the world are.

A line is a home's or data centre's way to the Internet's middle: its own share of the one-way delay, jitter, loss and
rates. Between two lines lies `Distances`: one-way delays from region to region, for those lines that name one.

Sources, rounded: delays of access lines are half of the idle round trips that public measurements of fixed and mobile
broadband show (Ofcom, FCC "Measuring Broadband America"); distances are half of the round trips between the cities'
data centres that cloud operators publish. They are orders of magnitude for scenarios, not measurements of ours.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Line(msgspec.Struct, frozen=True):
    """A computer's way to the others: one-way delay of its own part, mean of the jitter, loss, rates, where it is."""

    delay_s: float = 0.008
    jitter_s: float = 0.002
    loss: float = 0.0
    upload_bytes_s: float = 2_500_000.0
    download_bytes_s: float = 12_500_000.0
    region: str = ""
    """A region of `Distances`; no distance counts to and from a line that names none."""

    def at(self, region: str) -> Line:
        """The same line in that region."""
        return msgspec.structs.replace(self, region=region)

    def losing(self, loss: float) -> Line:
        """The same line with that share of packets lost at random."""
        return msgspec.structs.replace(self, loss=loss)


LAN = Line(delay_s=0.0002, jitter_s=0.0001, upload_bytes_s=100e6, download_bytes_s=100e6)
HOME = Line()
FIBRE = Line(delay_s=0.003, jitter_s=0.0005, upload_bytes_s=25e6, download_bytes_s=60e6)
CABLE = Line(delay_s=0.009, jitter_s=0.003, upload_bytes_s=2.5e6, download_bytes_s=30e6)
DSL = Line(delay_s=0.012, jitter_s=0.002, loss=0.001, upload_bytes_s=1.25e6, download_bytes_s=6e6)
MOBILE = Line(delay_s=0.025, jitter_s=0.015, loss=0.01, upload_bytes_s=1.25e6, download_bytes_s=5e6)
SATELLITE = Line(delay_s=0.300, jitter_s=0.020, loss=0.01, upload_bytes_s=0.4e6, download_bytes_s=3e6)
DATA_CENTRE = Line(delay_s=0.0005, jitter_s=0.0002, upload_bytes_s=125e6, download_bytes_s=125e6)

LINES: Mapping[str, Line] = {
    "lan": LAN,
    "home": HOME,
    "fibre": FIBRE,
    "cable": CABLE,
    "dsl": DSL,
    "mobile": MOBILE,
    "satellite": SATELLITE,
    "data centre": DATA_CENTRE,
}
"""All of them by name, for scenario files."""


class Distances:
    """One-way delays between regions, in seconds. Within one region it is `inside_s`."""

    def __init__(self, between_s: Mapping[tuple[str, str], float], inside_s: float = 0.004) -> None:
        self._inside_s = inside_s
        self._between_s = dict(between_s)
        self._between_s.update({(other, one): delay_s for (one, other), delay_s in between_s.items()})
        self.regions = tuple(sorted(dict.fromkeys(region for pair in self._between_s for region in pair)))

    def delay_s(self, one: Line, other: Line) -> float:
        """The delay between two lines. Raises `KeyError` for a region that is not on this map."""
        if not one.region or not other.region:
            return 0.0
        if one.region == other.region:
            return self._inside_s
        return self._between_s[one.region, other.region]


WORLD_MAP = Distances(
    {
        ("europe", "north america east"): 0.040,
        ("europe", "north america west"): 0.070,
        ("europe", "south america"): 0.100,
        ("europe", "africa south"): 0.080,
        ("europe", "india"): 0.065,
        ("europe", "asia east"): 0.110,
        ("europe", "oceania"): 0.135,
        ("north america east", "north america west"): 0.032,
        ("north america east", "south america"): 0.058,
        ("north america east", "africa south"): 0.115,
        ("north america east", "india"): 0.095,
        ("north america east", "asia east"): 0.080,
        ("north america east", "oceania"): 0.100,
        ("north america west", "south america"): 0.088,
        ("north america west", "africa south"): 0.145,
        ("north america west", "india"): 0.115,
        ("north america west", "asia east"): 0.052,
        ("north america west", "oceania"): 0.070,
        ("south america", "africa south"): 0.170,
        ("south america", "india"): 0.150,
        ("south america", "asia east"): 0.130,
        ("south america", "oceania"): 0.155,
        ("africa south", "india"): 0.130,
        ("africa south", "asia east"): 0.180,
        ("africa south", "oceania"): 0.205,
        ("india", "asia east"): 0.062,
        ("india", "oceania"): 0.075,
        ("asia east", "oceania"): 0.055,
    }
)
"""A data centre's city stands for each region: Frankfurt, Virginia, California, São Paulo, Cape Town, Mumbai, Tokyo,
Sydney. Computers whose line names no region are in the middle of everything."""

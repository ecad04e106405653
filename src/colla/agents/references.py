"""What refers to objects: everything that must never be collected, and that copies are kept of.

Services by what they run and by what they ran before (also as other nodes wrote it: a rollback needs it), and named
objects, with the losers of conflicts. What goes on at one node only (puts, copies on their way) is added where
forgetting is decided.
"""

from __future__ import annotations

from colla.model.ids import ObjectId
from colla.model.record import TOPIC_CATALOGUE, TOPIC_MEMBERSHIP, Key
from colla.protocol.catalogue.authority import authorised
from colla.protocol.catalogue.bodies import KIND_SPEC, decode_spec
from colla.protocol.naming.names import Names
from colla.protocol.views import CatalogueView, MembershipView, RecordsView


class References:
    """See the module. Computed when asked, from the views."""

    def __init__(
        self, records: RecordsView, membership: MembershipView, catalogue: CatalogueView, names: Names
    ) -> None:
        self._records = records
        self._membership = membership
        self._catalogue = catalogue
        self._names = names
        self._contents = (b"", b"")
        self._of_services: dict[ObjectId, int] = {}

    def of_services(self) -> dict[ObjectId, int]:
        """The objects of existing services, older versions included, with their sizes in bytes."""
        # All that they follow from are the records of two topics, which seldom change.
        contents = (self._records.contents(TOPIC_CATALOGUE), self._records.contents(TOPIC_MEMBERSHIP))
        if contents != self._contents:
            self._contents, self._of_services = contents, self._look()
        return self._of_services

    def _look(self) -> dict[ObjectId, int]:
        found: dict[ObjectId, int] = {}
        for service in self._catalogue.services():
            versions = self._records.versions(TOPIC_CATALOGUE, Key(KIND_SPEC, service.id))
            changing = (service.specification.owner, service.owner, *service.delegates)
            for record in authorised(self._membership, versions, *changing):
                older = decode_spec(record.body).specification
                found[older.object] = older.object_bytes
            found[service.specification.object] = service.specification.object_bytes
        return found

    def objects(self) -> dict[ObjectId, int]:
        """All of them, with their sizes in bytes."""
        return self._names.referenced() | self.of_services()

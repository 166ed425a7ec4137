"""What the agent sessions need to know of the declarations, answered from the store."""

from farshore.sightings import Seat
from farshore.store import keys
from farshore.store.records import Records
from farshore_schema.messages import Assign


class StoreDirectory:
    """Sites, enrolments and assignments. The first two are kept until `forget` says that they changed."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._sites: frozenset[str] | None = None
        self._enrolled: frozenset[str] | None = None

    def sites(self) -> frozenset[str]:
        """Return every declared site."""
        if self._sites is None:
            self._sites = self._names(keys.SITES)
        return self._sites

    def enrolled(self) -> frozenset[str]:
        """Return the sites that have an enrolled agent, whether it is connected or not."""
        if self._enrolled is None:
            self._enrolled = self._names(keys.AGENTS)
        return self._enrolled

    def forget(self) -> None:
        """Look again at the next question: a site or an enrolment changed."""
        self._sites = self._enrolled = None

    def assignment(self, seat: Seat) -> Assign | None:
        """Return what the side's agent should be told now, None when the pair is no more."""
        pair, side = seat
        spec = self._records.spec(pair)
        if spec is None:
            return None
        role = self._records.role(pair)
        return Assign(
            pair=pair,
            side=side,
            incarnation=spec.value.incarnation,
            generation=spec.value.generation,
            document=spec.value.document,
            active=role.value.active if role else None,
            epoch=role.value.epoch if role else 0,
        )

    def _names(self, prefix: str) -> frozenset[str]:
        return frozenset(item.key[len(prefix) :] for item in self._records.store.list(prefix).items)

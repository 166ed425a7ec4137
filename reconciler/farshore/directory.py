"""What the agent sessions need to know of the declarations, answered from the store."""

from collections.abc import Mapping

from farshore.sightings import Seat
from farshore.store import Delete, keys
from farshore.store.records import AgentRecord, Records, put
from farshore.store.records import Record as StoredRecord
from farshore_schema.messages import Assign
from farshore_schema.roles import Record


class HandoverRecord(StoredRecord):
    """An agent's durable record on its way to the side's next agent."""

    record: Record


class StoreDirectory:
    """Sites, enrolments, assignments. The first two are kept until `forget` says that they changed."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._handovers: set[str] | None = None  # keys
        self._sites: frozenset[str] | None = None
        self._enrolled: dict[str, str] | None = None

    def sites(self) -> frozenset[str]:
        """Return every declared site."""
        if self._sites is None:
            self._sites = self._names(keys.SITES)
        return self._sites

    def enrolled(self) -> Mapping[str, str]:
        """Return the sites that have an enrolled agent, connected or not, with the hash of its credential."""
        if self._enrolled is None:
            found = [
                self._records.parsed(item, AgentRecord).value for item in self._records.store.list(keys.AGENTS).items
            ]
            self._enrolled = {agent.site: agent.token_hash for agent in found}
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
            record=self._handover(seat),
        )

    def hand_over(self, seat: Seat, record: Record) -> None:
        """Keep the record with which a side changes hands, until it was `handed`."""
        key = keys.handover(*seat)
        self._records.store.txn((), (put(key, HandoverRecord(record=record)),))
        self._waiting().add(key)

    def handed(self, seat: Seat) -> None:
        """The side's agent has a record: what was kept for it is of no use any more. Idempotent and cheap."""
        key = keys.handover(*seat)
        if key in self._waiting():
            self._records.store.txn((), (Delete(key),))
            self._waiting().discard(key)

    def _handover(self, seat: Seat) -> Record | None:
        key = keys.handover(*seat)
        found = self._records.read(key, HandoverRecord) if key in self._waiting() else None
        return found.value.record if found is not None else None

    def _waiting(self) -> set[str]:
        if self._handovers is None:
            self._handovers = {item.key for item in self._records.store.list(keys.HANDOVERS).items}
        return self._handovers

    def _names(self, prefix: str) -> frozenset[str]:
        return frozenset(item.key[len(prefix) :] for item in self._records.store.list(prefix).items)

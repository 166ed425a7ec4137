"""The mutations: which promise is broken, by which edits of the product's source, and which runs must find it."""

from typing import Final, NamedTuple

PLAN: Final = "reconciler/farshore/plan/"
ADMISSION: Final = "agent/farshore_agent/admission.py"
COMMANDS: Final = "agent/farshore_agent/commands.py"
RECORDS: Final = "agent/farshore_agent/records.py"
PHYSICS: Final = "tests/simulation/physics.py"
MOVES: Final = "tests/simulation/moves.py"
FAKE: Final = "agent/farshore_agent/engines/fake.py"
GAPS: Final = "reconciler/farshore/gaps.py"
VISIT: Final = "reconciler/farshore/visit.py"
CLOSING: Final = "reconciler/farshore/admission/closing.py"
SIMULATE: Final = ("simulate --seeds 60 --stop",)

# Passages that several mutations, or long lines, name.
STEADY_FENCE: Final = "is_up(standby) and standby.writable and not is_untouched"
RECEIPT_OF_THIS_FENCE: Final = "own is not None and own.epoch == op.epoch and not source.writable"
NOTED_PROMOTION: Final = "promoted_epoch=step.epoch, receipt=None, stream_epoch=0"
SHOWN_RECEIPT: Final = "receipt=record.receipt if site.up and not site.writable else None"
WAS_ACTIVE: Final = (
    '    if record.promoted_epoch > record.fenced_epoch:\n        return Refused("wrong_role", "this side was active'
)
CHECKED_AGAIN: Final = (
    "            overtaken = still_holds(self._keeper.load(), order)\n        if overtaken is not None:\n            "
)
NOT_CHECKED: Final = "            overtaken = None\n        if overtaken is not None:\n            "

TRY_AGAIN: Final = """\
    role, wanted = snapshot.decided(), snapshot.spec.value.document.primary_site
    if role is not None and snapshot.core() is None and wanted not in (None, snapshot.site(role.active)):
        to = "b" if role.active == "a" else "a"
        return operations.birth(
            id=desk.new_operation_id(), pair=snapshot.pair, verb="switchover", to=to, to_site=snapshot.site(to),
            epoch=role.epoch + 2, created=desk.clock.now(),
        )
"""


class Edit(NamedTuple):
    """One passage, which must occur exactly once, and what replaces it."""

    file: str
    old: str
    new: str


class Mutant(NamedTuple):
    """One broken rule. `runs`, in the order of their cost: the first one that finds it ends the hunt."""

    name: str
    edits: tuple[Edit, ...]
    runs: tuple[str, ...] = ("explore 0 0 2 1",)
    quick: bool = True  # hunted in `make test` too


MUTANTS: Final[tuple[Mutant, ...]] = (
    Mutant(
        "an agent obeys an old epoch and forgets its own fence",
        (
            Edit(ADMISSION, "if step.epoch < record.epoch:", "if False:"),
            Edit(ADMISSION, "if record.fenced_epoch >= step.epoch:", "if False:"),
        ),
        ("explore 0 0 2 2",),
    ),
    Mutant(
        "a switchover does not fence",
        (
            Edit(
                PLAN + "view.py",
                "return own if own is not None and own.epoch == op.epoch and not source.writable else None",
                'return own or Receipt(side, op.epoch, "0")',
            ),
        ),
        ("explore 1 0 2 1",),
    ),
    Mutant(
        "a switchover does not drain",
        (
            Edit(
                PLAN + "changes.py",
                "if receipt is not None and target is not None and target.drained == receipt:",
                "if receipt is not None and target is not None:",
            ),
        ),
        ("explore 1 0 2 1",),
    ),
    Mutant(
        "a failover of a silent source does not stop acknowledging",
        (
            Edit(PLAN + "changes.py", "if target.receiving or target.epoch < op.epoch:", "if False:"),
            Edit(PHYSICS, "self._set(receiving=False, zero=False, prepared=0)", "self._set(zero=False, prepared=0)"),
        ),
        ("explore 1 0 2 1 --sync",),
    ),
    Mutant(
        "a silent source needs no evidence",
        (Edit(PLAN + "changes.py", "    if op.attested:\n", "    if True:\n"),),
    ),
    Mutant(
        "an abort takes the epoch that the operation burned",
        (Edit(PLAN + "changes.py", "Role(role.active, next_even(op.epoch), ", "Role(role.active, op.epoch, "),),
    ),
    Mutant(
        "an abort keeps the old epoch",
        (Edit(PLAN + "changes.py", "Role(role.active, next_even(op.epoch), ", "Role(role.active, role.epoch, "),),
    ),
    Mutant(
        "a promotion trusts the report about what was applied",
        (Edit(PHYSICS, "if self.site.received & ~self.site.executed:", "if False:"),),
        ("explore 1 1 1 1 --sync",),
    ),
    Mutant(
        "being open from an older decision is good enough",
        (
            Edit(PLAN + "view.py", "        and active.epoch == role.epoch\n", ""),
            Edit(PLAN + "view.py", "        and active.promoted_epoch == role.epoch\n", ""),
        ),
    ),
    Mutant(
        "an old active side that returns is left alone",
        (
            Edit(PLAN + "steady.py", STEADY_FENCE, "False and is_untouched"),
            Edit(PLAN + "steady.py", "if not is_fenced(standby, role):", "if False:"),
        ),
    ),
    Mutant(
        "a decision is not guarded by the owner's token",
        (
            Edit(
                MOVES,
                "            if step.name not in STORE_STEPS:  # the",
                "            if step.name == 'decide':\n"
                "                stored = self.tables.roles.number(step.role)\n"
                "                yield Move(w._replace(role=stored), 'fault', 'a replaced owner decides')\n"
                "            if step.name not in STORE_STEPS:  # the",
            ),
        ),
        ("explore 0 1 1 1",),
    ),
    Mutant(
        "a failover cuts off a source that answers",
        (
            Edit(
                PLAN + "changes.py",
                '        if receipt is None:\n            return command(Step("fence", role.active',
                "        if target.receiving or target.epoch < op.epoch:\n"
                '            return command(Step("stop_acks", op.to, op.epoch), role, op, seen)\n'
                '        if receipt is None:\n            return command(Step("fence", role.active',
            ),
            Edit(PLAN + "changes.py", "        if target.drained == receipt:\n", "        if True:\n"),
        ),
        ("explore 1 0 2 1",),
    ),
    Mutant(
        "one agent keeps one record for two sites",
        (Edit(RECORDS, 'return root / "sides" / pair / side', 'return root / "sides" / pair'),),
        ("explore 0 0 2 1 --one-agent",),
    ),
    Mutant(
        "a restart of the database undoes its fence",
        (Edit(PHYSICS, "self._set(writable=False, lasting=False)", "self._set(writable=False)"),),
        ("explore 0 1 1 1",),
    ),
    Mutant(
        "a copy is made without a consent",
        (
            Edit(
                PLAN + "copies.py",
                "    consent = op.consent\n",
                "    from farshore_schema.roles import Consent\n"
                '    consent = op.consent or Consent(side, standby.server, op.epoch, "nobody")\n',
            ),
        ),
        ("explore 1 0 2 2",),
    ),
    Mutant(
        "a consent is good for two copies",
        (
            Edit(ADMISSION, "if order.operation and order.operation", "if False and order.operation"),
            Edit(PLAN + "copies.py", 'if standby.base == "complete" and standby.seeded_for == op.id:', "if False:"),
        ),
        ("explore 1 0 2 1 --new-pair",),
    ),
    Mutant(
        "a copy overwrites the active side",
        (
            Edit(
                PLAN + "copies.py",
                "    side: Side = peer(role.active)\n    consent = op.consent\n",
                "    from farshore_schema.roles import Consent\n"
                '    side: Side = role.active\n    consent = Consent(side, f"server-{side}", op.epoch, "whoever")\n',
            ),
            Edit(PLAN + "copies.py", "    if consent.server != standby.server:\n", "    if False:\n"),
            Edit(
                ADMISSION,
                WAS_ACTIVE,
                WAS_ACTIVE.replace("record.promoted_epoch > record.fenced_epoch", "False"),
            ),
        ),
        ("explore 1 0 2 1 --new-pair",),
    ),
    Mutant(
        "an order of an ended life enrols the side again",
        (Edit(ADMISSION, "not record.enrolled and 0 < record.epoch >= step.epoch", "False"),),
        ("explore 1 0 2 1 --new-pair",),
    ),
    Mutant(
        "an emergency decision is not noticed",
        (Edit(PLAN + "view.py", "return side != role.active or facts.promoted_epoch > role.epoch", "return False"),),
        ("explore 0 0 2 1 1",),
    ),
    Mutant(
        "an emergency is adopted in an epoch that an operation burned",
        (Edit(PLAN + "decision.py", "    if spent > claimed:\n", "    if False:\n"),),
        ("explore 0 0 2 1 1",),
    ),
    Mutant(
        "a side with an emergency decision obeys steps meant for a standby",
        (
            Edit(ADMISSION, "if step.name in STANDBY_STEPS and", "if False and"),
            Edit(PLAN + "view.py", "facts.promoted_epoch % 2 == 0", "facts.epoch % 2 == 0"),
        ),
        ("explore 0 0 2 1 1",),
    ),
    Mutant(
        "a receipt of an older fence is evidence",
        (
            Edit(PLAN + "view.py", RECEIPT_OF_THIS_FENCE, "own is not None"),
            Edit(PLAN + "steady.py", STEADY_FENCE, "False and is_untouched"),
            Edit(ADMISSION, NOTED_PROMOTION, "promoted_epoch=step.epoch, stream_epoch=0"),
            Edit(PHYSICS, SHOWN_RECEIPT, "receipt=record.receipt"),
        ),
        ("explore 0 0 2 2",),
    ),
    Mutant(
        "an order is not checked again right before its effect",
        (
            Edit(COMMANDS, CHECKED_AGAIN + "return", NOT_CHECKED + "return"),
            Edit(COMMANDS, CHECKED_AGAIN + "raise", NOT_CHECKED + "raise"),
        ),
        ("explore 0 1 2 2 --live-every 1000000",),
        quick=False,
    ),
    Mutant(
        "a copy that was taken back may still begin",
        (Edit(PLAN + "copies.py", "if is_recorded(standby) and standby.epoch >= role.epoch:", "if True:"),),
        ("explore 0 0 2 0 --new-pair",),
    ),
    Mutant(
        "the engine's fence is not made to last",
        (
            Edit(
                FAKE,
                "self._database.set_read_only(True, persist=True)",
                "self._database.set_read_only(True, persist=False)",
            ),
        ),
        SIMULATE,
    ),
    Mutant(
        "the engine opens before everything is applied",
        (
            Edit(FAKE, "            if self._world.backlog(self._side):\n", "            if False:\n"),
            Edit(FAKE, '            if evidence == "fenced" and (', "            if False and ("),
            Edit(PLAN + "changes.py", "target is not None and target.drained == receipt:", "target is not None:"),
        ),
        SIMULATE,
    ),
    Mutant(
        "an agent acts before its note is durable",
        (Edit(COMMANDS, "            if noted != record:\n                self._keeper.save(noted)\n", ""),),
        SIMULATE,
    ),
    Mutant(
        "one agent keeps one record for two sites (by chance)",
        (Edit(RECORDS, 'return root / "sides" / pair / side', 'return root / "sides" / pair'),),
        SIMULATE,
    ),
    Mutant(
        "a declared switchover is tried again by itself",
        (
            Edit(CLOSING, "    if well or undo is None:\n", "    if True:\n"),
            Edit(GAPS, "    role = snapshot.decided()\n", TRY_AGAIN),
        ),
        SIMULATE,
    ),
    Mutant(
        "a store transaction is not guarded by what it was decided on",
        (
            Edit(VISIT, "            self.owner.guard(),\n", ""),
            Edit(VISIT, "            unchanged(keys.role(self.pair), self.snapshot.role),\n", ""),
            Edit(VISIT, "            unchanged(keys.operation(self.pair), self.snapshot.operation),\n", ""),
        ),
        SIMULATE,
    ),
)

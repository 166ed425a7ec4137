"""Why a pair waits, or why an operation is refused: stable codes, a sentence, and the commands that lead on or back.

Codes are part of the API: they are never renamed. Sentences may name `{pair}`, `{active}` and `{standby}` (the names of
the pair, of its active site and of the other one) and are filled in by `explain`.
"""

from typing import Final, NamedTuple


class Reason(NamedTuple):
    """What is awaited, and the two ways to end the wait."""

    sentence: str
    go_on: str
    go_back: str


_BACK: Final = "farshore abort {pair}"
_DESCRIBE: Final = "farshore describe {pair}"
_DOCTOR: Final = "farshore doctor {pair}"
_RESEED: Final = "farshore reprotect {pair}"
_REBIND: Final = "farshore rebind {pair}"

REASONS: Final[dict[str, Reason]] = {
    # a part that is needed does not answer
    "active_unreachable": Reason(
        "no gateway answers for {active}, the active site; its database may still be serving clients",
        "start the agent of {active}: farshore-agent run",
        _BACK,
    ),
    "standby_unreachable": Reason(
        "no gateway answers for {standby}, the standby site", "start the agent of {standby}: farshore-agent run", _BACK
    ),
    "active_db_down": Reason("the database at {active} is down or does not answer its gateway", _DOCTOR, _BACK),
    "standby_db_down": Reason("the database at {standby} is down or does not answer its gateway", _DOCTOR, _BACK),
    # work under way
    "no_operation": Reason("nothing has asked to protect {pair} yet", "farshore apply FILE", "pulumi destroy"),
    "seeding": Reason("the full copy to {standby} is still running", _DESCRIBE, _BACK),
    "draining": Reason("{standby} still applies what {active} committed before it was fenced", _DESCRIBE, _BACK),
    "following": Reason("{standby} does not follow {active} yet", _DESCRIBE, _BACK),
    "operation_open": Reason("another operation of {pair} is still open", _DESCRIBE, _BACK),
    "overdue": Reason("{standby} did not drain in time; {active} is opened again", _DOCTOR, _DESCRIBE),
    "aborted": Reason("the operation was taken back; {active} is opened again", _DESCRIBE, _DOCTOR),
    "role_moved": Reason("the active site was moved by another decision meanwhile", _DESCRIBE, _DOCTOR),
    # consent (R8, R9)
    "no_consent": Reason(
        "copying to {standby} overwrites what is there, and nobody consented to it",
        _RESEED,
        "set on_existing_data or on_gap in the declaration and apply it again",
    ),
    "other_server": Reason(
        "the server at {standby} is not the one that the consent names", "apply the declaration again", _DOCTOR
    ),
    "unknown_server": Reason("the server at {standby} has not said which one it is", _DOCTOR, _BACK),
    # the standby as it is
    "not_decided": Reason("the pair has no active site yet", _DESCRIBE, _DOCTOR),
    "not_seeded": Reason("{standby} holds no complete copy", _RESEED, _DESCRIBE),
    "not_following": Reason("{standby} does not follow {active}", _DOCTOR, _RESEED),
    "not_open": Reason("{active} does not accept writes under the present decision", _DOCTOR, _DESCRIBE),
    "not_fenced": Reason("{standby} is not durably fenced in the present epoch", _DOCTOR, _DESCRIBE),
    "standby_stopped": Reason("the stream into {standby} stopped", _DOCTOR, _RESEED),
    "applier_stopped": Reason("the applier at {standby} stopped on an error", _DOCTOR, _RESEED),
    "diverged": Reason("a side holds transactions that the other one does not", _DESCRIBE, _RESEED),
    "source_purged": Reason("{active} no longer has what {standby} needs next", _RESEED, _DESCRIBE),
    "history_reset": Reason("{active} began a new history", _RESEED, _DESCRIBE),
    "source_replaced": Reason("another server answers at {active}", _REBIND, _DESCRIBE),
    "corrupt_journal": Reason("a journal file at {standby} does not match its checksum", _DOCTOR, _RESEED),
    "disk_full": Reason("the journal's disk at {standby} is full", _DOCTOR, _DESCRIBE),
    "peer_not_ready": Reason("a gateway cannot log in at the other site", _DOCTOR, _DESCRIBE),
    "peer_unknown": Reason("it is not known whether the gateways can log in at the other site", _DOCTOR, _DESCRIBE),
    # another server at the active site (R3)
    "not_replaced": Reason(
        "{active} still has the server that the pair is bound to; one that was replaced at {standby} is copied anew by "
        "a reprotect",
        _DESCRIBE,
        _RESEED,
    ),
    "unknown_active": Reason("the server at {active} has not said which one it is", _DOCTOR, _DESCRIBE),
    "replaced_again": Reason(
        "the server at {active} is not the one that the rebind was decided for, but another one again", _DOCTOR, _BACK
    ),
    "other_active": Reason("the server at {active} is not the one that the rebind names", _REBIND, _DESCRIBE),
    "not_rebound": Reason("taken back before anything was changed", _REBIND, _DESCRIBE),
    "rebound_alone": Reason(
        "{active} is bound to its new server, but {standby} does not follow it yet", _REBIND, _RESEED
    ),
    # failover and emergency (R15, R16)
    "evidence_missing": Reason(
        "{active} is silent, and nothing proves that it cannot complete a commit",
        "bring {active} back: its fence is the proof that is missing",
        _BACK,
    ),
    "unadopted_claim": Reason(
        "the gateway of a site reports an emergency decision that is being adopted", _DESCRIBE, _DOCTOR
    ),
    "two_claims": Reason(
        "both sites claim to be active by decisions taken without each other; neither is touched",
        _DESCRIBE,
        "isolate one site from clients, then decide by hand with support of docs/protocol.md",
    ),
    "failed_over": Reason("{pair} failed over; the old side follows only after a reprotect", _RESEED, _DESCRIBE),
    "already_protected": Reason("{standby} already follows {active}", _DESCRIBE, _DESCRIBE),
    "already_active": Reason("{active} is active already", _DESCRIBE, _DESCRIBE),
}


def explain(code: str, *, pair: str, active: str, standby: str) -> Reason:
    """Return the reason with the names filled in; an unknown code of a newer release is shown as it is."""
    names = {"pair": pair, "active": active, "standby": standby}
    reason = REASONS.get(code, Reason(code, _DESCRIBE, _DOCTOR))
    return Reason(*(part.format(**names) for part in reason))

"""Every error a user can meet: a stable code, what was seen, the next command, and where it belongs.

The tree, drawn once::

    FarshoreError
    ├── Transient      try again after `retry_seconds`; nothing for a person to do yet
    └── Permanent      will not heal by itself; `hint` is the next command to run
        ├── Refused    the request was understood and declined; nothing was changed
        ├── Conflict   the caller decided on an old truth; `current` is the present one
        └── Bug        a promise of ours is broken

`TABLE` is the one place where codes, HTTP statuses and exit codes meet; docs and OpenAPI are generated from it.
"""

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict


class Row(NamedTuple):
    """One line of the errors table."""

    status: int  # HTTP
    exit: int  # of the command-line program
    meaning: str


TABLE: dict[str, Row] = {
    # the request itself
    "invalid_document": Row(422, 2, "a field of a document is unknown, missing or out of range"),
    "unsupported_version": Row(422, 2, "the document names a format version this release does not know"),
    "invalid_request": Row(422, 2, "the request around the document is malformed"),
    "body_too_large": Row(413, 2, "the request body is over the limit"),
    # who asks
    "unauthenticated": Row(401, 3, "no token, or a token that is not known"),
    "forbidden": Row(403, 3, "the token's role does not allow this"),
    # what is asked about
    "not_found": Row(404, 4, "no site, pair, operation or agent of that name"),
    "unknown_site": Row(422, 4, "the pair names a site that does not exist"),
    "site_in_use": Row(409, 5, "the site still has pairs"),
    "owned_elsewhere": Row(409, 5, "another stack declares this pair"),
    "identity_change": Row(409, 5, "an endpoint's identity cannot change in place"),
    "stale_generation": Row(409, 5, "the declaration was changed by someone else since it was read"),
    "stale_epoch": Row(409, 5, "the active site moved since the caller last looked"),
    "role_moved": Row(409, 5, "the active site was moved outside this declaration"),
    # roles
    "operation_open": Row(409, 5, "another operation of the pair is still open"),
    "not_possible_now": Row(409, 5, "the pair's present state does not allow the operation"),
    "operation_failed": Row(409, 6, "the operation ended without doing what was asked"),
    "failed_over": Row(409, 5, "the pair is failed over; deleting it now would leave the wrong side in charge"),
    "site_unreachable": Row(409, 5, "a side that is needed does not answer"),
    # what was found at the endpoints
    "unreachable": Row(422, 7, "nothing answers at that host and port"),
    "unknown_host": Row(422, 7, "the host name does not resolve"),
    "access_denied": Row(422, 7, "the server refused the user or the password"),
    "tls_mismatch": Row(422, 7, "the server's TLS does not satisfy the declared mode"),
    "secret_missing": Row(422, 7, "a secret reference does not resolve on the agent that needs it"),
    "same_server": Row(422, 7, "both endpoints lead to one server"),
    "server_in_other_pair": Row(409, 7, "the server is an endpoint of another pair"),
    "missing_privilege": Row(422, 7, "an account lacks a privilege"),
    "unsuitable_server": Row(422, 7, "a server setting makes protection impossible"),
    "unsupported_server_version": Row(422, 7, "the server's release series is not one that is tested"),
    "version_mismatch": Row(422, 7, "the two servers' versions do not allow replication"),
    "target_has_data": Row(422, 7, "the target holds data and the declaration does not consent to overwrite it"),
    "wrong_direction": Row(409, 7, "the target looks like the side that is in use"),
    # streams
    "source_replaced": Row(409, 8, "the server behind an endpoint is another one"),
    "source_purged": Row(409, 8, "the source no longer has what the journal needs"),
    "history_reset": Row(409, 8, "the source began a new history"),
    "diverged": Row(409, 8, "a side holds transactions that the other does not"),
    "applier_stopped": Row(409, 8, "the standby's applier stopped on an error"),
    "fence_violated": Row(409, 8, "a fenced side was found writable"),
    "corrupt_journal": Row(500, 8, "a journal file does not match its checksum"),
    "disk_full": Row(507, 8, "a disk is full"),
    # the service
    "reconciler_unreachable": Row(503, 9, "the reconciler does not answer"),
    "agent_unreachable": Row(503, 9, "no agent serves the site at the moment"),
    "store_failed": Row(500, 9, "the reconciler's own storage cannot be read or written"),
    "directory_in_use": Row(409, 9, "another reconciler runs on this directory"),
    "newer_format": Row(500, 9, "the store or journal was written by a newer release"),
    "protocol_mismatch": Row(409, 9, "agent and reconciler speak different protocol versions"),
    "second_agent": Row(409, 9, "another live agent already serves the site"),
    "stale_token": Row(409, 9, "the command comes from a reconciler that was replaced"),
    "stale_epoch_command": Row(409, 9, "the command belongs to an older decision than the agent has durably seen"),
    "not_enrolled": Row(409, 9, "the agent has no record of this side and takes no command but enrolment"),
    "evidence_missing": Row(409, 9, "the command lacks the evidence, receipt or consent that its step needs"),
    "wrong_role": Row(409, 9, "the side's own durable record forbids the step"),
    "corrupt_record": Row(500, 9, "a durable record of an agent is damaged; the agent obeys nothing for that side"),
    "timeout": Row(504, 9, "the answer did not come in time"),
    "bug": Row(500, 70, "a promise of Farshore itself is broken"),
}


class ErrorBody(BaseModel):
    """How an error travels: in API answers, agent results and operation journals."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    code: str
    message: str
    hint: str = ""
    field: str | None = None
    current: dict[str, object] | None = None
    retry_seconds: float | None = None  # heals by itself or by trying again after so long; None: it will not


class FarshoreError(Exception):
    """The root of every error we raise on purpose."""

    def __init__(self, code: str, message: str, *, hint: str = "", field: str | None = None) -> None:
        super().__init__(message)
        if code not in TABLE:
            raise ValueError(f"error code {code!r} is not in the errors table")
        self.code, self.message, self.hint, self.field = code, message, hint, field
        self.current: dict[str, object] | None = None

    @property
    def status(self) -> int:
        """The HTTP status of this error."""
        return TABLE[self.code].status

    @property
    def exit_code(self) -> int:
        """The exit code of a command that ends with this error."""
        return TABLE[self.code].exit

    def body(self) -> ErrorBody:
        """Return the error as it travels."""
        return ErrorBody(code=self.code, message=self.message, hint=self.hint, field=self.field, current=self.current)


class Transient(FarshoreError):
    """Will heal by itself or by trying again."""

    def __init__(
        self, code: str, message: str, *, retry_seconds: float = 1.0, hint: str = "", field: str | None = None
    ) -> None:
        super().__init__(code, message, hint=hint, field=field)
        self.retry_seconds = retry_seconds

    def body(self) -> ErrorBody:
        """Return the error as it travels, with when to try again."""
        return super().body().model_copy(update={"retry_seconds": self.retry_seconds})


class Permanent(FarshoreError):
    """Needs a person; the hint is the next command to run."""


class Refused(Permanent):
    """The request was declined and nothing was changed."""


class Conflict(Permanent):
    """The caller decided on an old truth."""

    def __init__(
        self, code: str, message: str, *, current: dict[str, object], hint: str = "", field: str | None = None
    ) -> None:
        super().__init__(code, message, hint=hint, field=field)
        self.current = current


class Bug(Permanent):
    """A promise of ours is broken; says which."""

    def __init__(self, message: str) -> None:
        super().__init__("bug", message, hint="run `farshore describe PAIR --json` and report it with the log")


def from_body(body: ErrorBody) -> FarshoreError:
    """Rebuild an error that travelled. Unknown codes of a newer release become `bug` with the code in the message."""
    if body.code not in TABLE:
        return Permanent("bug", f"{body.code}: {body.message}", hint=body.hint, field=body.field)
    if body.retry_seconds is not None:
        return Transient(body.code, body.message, retry_seconds=body.retry_seconds, hint=body.hint, field=body.field)
    error = Permanent(body.code, body.message, hint=body.hint, field=body.field)
    error.current = body.current
    return error

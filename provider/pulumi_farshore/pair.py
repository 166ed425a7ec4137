"""What the Pulumi engine's calls mean for a pair (R11, R20, R24).

Declaring returns on acceptance; only a declared switchover is waited for, because its refusal must fail the update.
The id is `<name>/<incarnation>`: deleting an older incarnation is a success that changes nothing, so a moved or
replaced resource never loses protection.
"""

import time
from collections.abc import Mapping
from typing import Any

from pulumi.dynamic import CheckFailure, CheckResult, CreateResult, DiffResult, ReadResult, UpdateResult
from pydantic import TypeAdapter, ValidationError

from farshore_schema.documents import FORMAT, MySQLPair
from farshore_schema.errors import ErrorBody, FarshoreError, Permanent, from_body
from farshore_schema.quantities import Duration, seconds
from farshore_schema.status import Owner, PlanResult
from pulumi_farshore import changes, client
from pulumi_farshore.reporting import describe, failed, say, warn

KIND = "MySQLPair"
INITIAL_EPOCH = 2  # what the store decides first for every pair
SWITCHOVER_SECONDS = 120.0
REMOVAL_SECONDS = 120.0
WAIT_TIMEOUT = "10m"
POLL_SECONDS = 1.0
REACHED = {"seeded": {"catching_up", "protected", "switching"}, "protected": {"protected", "switching"}}


# ---- check


def check(olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
    """Normalise and validate, then ask the reconciler for a dry run; an absent reconciler is only a warning."""
    checked = changes.check(MySQLPair, news)
    failures = list(checked.failures) + _wrong_options(changes.options(news))
    if not failures and checked.document is not None and not _is_settled(checked.document, olds):
        failures += _dry_run(checked.document, olds, news)
    inputs = checked.inputs | changes.options(news) | hidden(news)
    return CheckResult(inputs, [CheckFailure(f.field, f.reason) for f in failures])


def _wrong_options(news: Mapping[str, Any]) -> list[changes.Failure]:
    wrong = []
    if news.get("wait_for", "accepted") not in ("accepted", "seeded", "protected", changes.UNKNOWN):
        wrong.append(changes.Failure("wait_for", 'must be "accepted", "seeded" or "protected"'))
    for field in ("wait_timeout", "switchover_timeout"):
        value = news.get(field)
        if value in (None, changes.UNKNOWN):
            continue
        try:
            TypeAdapter[str](Duration).validate_python(value)
        except ValidationError:
            wrong.append(changes.Failure(field, f'"{value}" is not a duration; write for example "30s" or "10m"'))
    return wrong


def _is_settled(document: dict[str, Any], olds: Mapping[str, Any]) -> bool:
    """Whether a dry run has nothing to say: nothing changes, and the site that is declared active is."""
    if not olds or changes.changed_fields(olds, document):
        return False
    try:
        known = client.active_sites()
    except FarshoreError:
        return False  # the dry run says why
    active = known.get(document["name"])
    return active is not None and document.get("primary_site") in (None, active)


def _dry_run(document: dict[str, Any], olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[changes.Failure]:
    name = document["name"]
    try:
        body = {"document": _versioned(document), "owner": owner_of(news), "if_epoch": olds.get("role_epoch")}
        plan = PlanResult.model_validate(client.call("POST", "/v1/plan", body=body))
    except FarshoreError as error:
        if error.code in ("reconciler_unreachable", "unauthenticated"):
            # In a disaster code must still preview; `up` will insist.
            warn(KIND, name, f"not checked against the reconciler: {describe(error)}")
            return []
        return [changes.Failure(error.field or "name", describe(error))]
    for warning in plan.warnings:
        warn(KIND, name, warning)
    if plan.role_change and not plan.failures:
        say(_switchover_line(name, plan))
    # A site that this very program declares may not exist yet; the pair is made after it.
    coming = set(news.get("program_sites") or ())
    awaited = {f"{end}.site" for end in ("site_a", "site_b") if document[end]["site"] in coming}
    judged = [f for f in plan.failures if not (f.code == "unknown_site" and f.field in awaited)]
    return [changes.Failure(f.field or "name", describe(f)) for f in judged]


def _switchover_line(name: str, plan: PlanResult) -> str:
    change = plan.role_change
    if change is None:
        return ""
    lag = "unknown" if change.lag_seconds is None else f"{change.lag_seconds:.1f} s"
    about = (
        ""
        if change.estimate_seconds is None
        else f", write outage about {change.estimate_seconds:.1f} s by earlier runs"
    )
    return (
        f"{KIND} {name}: PLANNED SWITCHOVER {change.from_site} -> {change.to_site}: lag {lag}, "
        f"peer ready {change.peer_ready}{about}; steps: {', '.join(change.steps)}; "
        "no transaction is lost or it is refused"
    )


# ---- diff


def diff(olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
    """Compare declared fields. Roles are never work here, and no field replaces but the name, which is the identity."""
    changed = changes.changed_fields(olds, news)
    return DiffResult(changes=bool(changed), replaces=["name"] if "name" in changed else [])


# ---- create, update


def create(props: dict[str, Any]) -> CreateResult:
    """Declare the pair, or adopt it when this stack declared it before; a repeat after a crash adopts."""
    name = str(props["name"])
    with failed(KIND, name):
        result = _put(props, create=True)
        _await_phase(name, props)
    return CreateResult(f"{name}/{result['view']['incarnation']}", outputs(result["view"], props))


def update(id_: str, olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
    """Declare the changed pair. A changed `primary_site` waits for its switchover, and a refusal fails the update."""
    name = str(news["name"])
    with failed(KIND, name):
        result = _put(news, create=False, if_epoch=olds.get("role_epoch"))
        view = result["view"]
        if result.get("operation"):
            _await_switchover(name, str(result["operation"]), news)
            view = client.call("GET", client.path("pairs", name))
        _await_phase(name, news)
    return UpdateResult(outputs(view, news))


def _put(props: dict[str, Any], *, create: bool, if_epoch: int | None = None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "document": _versioned(changes.declared(props)),
        "owner": owner_of(props),
        "create": create,
    }
    if if_epoch is not None:
        body["if_epoch"] = int(if_epoch)
    return client.call("PUT", client.path("pairs", str(props["name"])), body=body)


def _versioned(document: dict[str, Any]) -> dict[str, Any]:
    return {"version": FORMAT, "kind": KIND} | document


def _await_switchover(name: str, operation: str, props: Mapping[str, Any]) -> None:
    limit = seconds(str(props["switchover_timeout"])) if props.get("switchover_timeout") else SWITCHOVER_SECONDS
    view = client.wait_for_operation(name, operation, limit)
    if view["state"] == "done":
        return
    if view["state"] in ("open", "waiting"):
        reason = view.get("waiting_for") or view.get("label") or "still running"
        raise Permanent(
            "timeout",
            f"the switchover {operation} has not ended after {limit:.0f} s ({reason})",
            hint=f"`farshore status {name}` shows it; it ends finished or rolled back by itself",
        )
    error = view.get("error")
    if error:
        raise from_body(ErrorBody.model_validate(error))
    raise Permanent(
        "operation_failed",
        f"the switchover {operation} ended {view['state']}: {view.get('abort_reason') or 'no reason recorded'}",
        hint=f"`farshore describe {name}` shows every step; run `pulumi up` again when the cause is gone",
    )


def _await_phase(name: str, props: Mapping[str, Any]) -> None:
    wanted = REACHED.get(str(props.get("wait_for", "accepted")))
    if wanted is None:
        return
    deadline = time.monotonic() + seconds(str(props.get("wait_timeout") or WAIT_TIMEOUT))
    while True:
        phase = client.call("GET", client.path("pairs", name))["status"]["phase"]
        if phase in wanted:
            return
        if phase == "stopped" or time.monotonic() > deadline:
            wanted_word = props["wait_for"]
            say(f"warning: {KIND} {name}: {phase}, not yet {wanted_word}; it goes on: `farshore status {name} --watch`")
            return
        time.sleep(POLL_SECONDS)


def owner_of(props: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stack that declares the resource, as its constructor recorded it."""
    owner = props.get("owner")
    return Owner.model_validate(owner if isinstance(owner, Mapping) else {}).model_dump()


def outputs(view: Mapping[str, Any], props: Mapping[str, Any]) -> dict[str, Any]:
    """Return all inputs and what the decision says of roles; no lag and no time, so that a refresh is quiet."""
    role = view["status"].get("role") or {}
    asked = view["status"].get("operation") or {}
    document = view["document"]
    first = document.get("primary_site") or document["site_a"]["site"]
    computed = {
        "active_site": role.get("active_site") or first,
        # Before the first decision: the epoch that the request to protect will be decided in.
        "role_epoch": role.get("epoch") or asked.get("epoch") or INITIAL_EPOCH,
        "incarnation": view["incarnation"],
    }
    return changes.declared(props) | changes.options(props) | hidden(props) | computed


def hidden(props: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the constructor added for the provider alone and must last. `program_sites` is read by `check` only:
    kept, it would be in the state once for each pair."""
    return {"owner": props.get("owner")}


# ---- read, delete


def read(id_: str, props: dict[str, Any]) -> ReadResult:
    """Return the truth about the pair: what is declared there now, and who is active."""
    name = id_.rpartition("/")[0] or id_
    try:
        view = client.call("GET", client.path("pairs", name))
    except FarshoreError as error:
        if error.code == "not_found":
            return ReadResult("", {})
        with failed(KIND, name):
            raise
    if "/" not in id_:
        id_ = f"{name}/{view['incarnation']}"
    declared = changes.canonical(MySQLPair.model_validate(view["document"]))
    inputs = declared | changes.options(props) | hidden(props)
    return ReadResult(id_, outputs(view, inputs), inputs)


def delete(id_: str, props: dict[str, Any]) -> None:
    """End protection and keep both databases. An older incarnation, or a pair that is gone, is a success."""
    name, _, incarnation = id_.rpartition("/")
    with failed(KIND, name):
        try:
            client.call(
                "DELETE",
                client.path("pairs", name),
                incarnation=int(incarnation),
                force=bool(props.get("force_destroy")) or None,
                delete_journal=bool(props.get("delete_journal")) or None,
            )
            _await_gone(name, int(incarnation))
        except FarshoreError as error:
            if error.code != "not_found":
                raise


def _await_gone(name: str, incarnation: int) -> None:
    deadline = time.monotonic() + REMOVAL_SECONDS
    while client.call("GET", client.path("pairs", name))["incarnation"] == incarnation:
        if time.monotonic() > deadline:
            raise Permanent(
                "timeout",
                f"protection of {name} has not ended after {REMOVAL_SECONDS:.0f} s",
                hint=f"`farshore status {name}` shows what it waits for; `pulumi destroy` again goes on",
            )
        time.sleep(POLL_SECONDS / 4)

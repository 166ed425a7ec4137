"""What the gateways saw at the endpoints of a declaration, and which of it refuses the declaration.

A gateway that does not answer is a warning, never a refusal: declarations must be possible while a site is down. What
was seen and is wrong refuses a new pair; for a pair that exists it refuses only what the request itself changes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from farshore.admission.desk import preferred_side, site_of
from farshore_schema.documents import MySQLPair
from farshore_schema.errors import TABLE, FarshoreError, Refused
from farshore_schema.observed import Finding
from farshore_schema.roles import SIDES, Side, peer


@dataclass(frozen=True, kw_only=True)
class Look:
    """Both gateways' answers, merged. A side that is missing in `servers` or `empty` was not seen."""

    findings: tuple[Finding, ...] = ()
    servers: Mapping[Side, str] = field(default_factory=dict)
    empty: Mapping[Side, bool] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()  # why a gateway could not look, as sentences


NOT_LOOKED = Look()


def failures(document: MySQLPair, look: Look, *, new: bool, changed: Iterable[str]) -> list[FarshoreError]:
    """Return why what was seen refuses the declaration. `changed`: the document paths that the request changes."""
    paths = tuple(changed)
    found: list[FarshoreError] = [
        _refusal(finding)
        for finding in look.findings
        if finding.severity == "error" and (new or _concerns(finding.field, paths))
    ]
    codes = {error.code for error in found}
    if "same_server" not in codes and look.servers.get("a") and look.servers.get("a") == look.servers.get("b"):
        found.append(
            Refused(
                "same_server",
                f"site_a and site_b both lead to server {look.servers['a']}",
                hint="name two different servers; a DNS alias or a floating address may lead to the same one",
                field="site_b.host",
            )
        )
    if new and "target_has_data" not in codes and not codes & {"same_server"}:
        found += _target_has_data(document, look)
    return found


def warnings(look: Look, *, new: bool, changed: Iterable[str]) -> tuple[str, ...]:
    """Return what a person should know although it refuses nothing."""
    paths = tuple(changed)
    told = [
        f"{finding.message} ({finding.hint})" if finding.hint else finding.message
        for finding in look.findings
        if finding.severity == "warning"
        or (finding.severity == "error" and not (new or _concerns(finding.field, paths)))
    ]
    return (*look.unseen, *told)


def merged(answers: Iterable[tuple[Side, Look]]) -> Look:
    """Return one look out of both gateways' answers; of its own server each gateway is the better witness."""
    servers: dict[Side, str] = {}
    empty: dict[Side, bool] = {}
    findings: dict[tuple[str, str | None, str], Finding] = {}
    unseen: list[str] = []
    for own, look in answers:
        unseen += look.unseen
        for finding in look.findings:
            findings.setdefault((finding.code, finding.field, finding.message), finding)
        for side in SIDES:
            if side in look.servers and (side == own or side not in servers):
                servers[side] = look.servers[side]
            if side in look.empty and (side == own or side not in empty):
                empty[side] = look.empty[side]
    return Look(findings=tuple(findings.values()), servers=servers, empty=empty, unseen=tuple(unseen))


def _target_has_data(document: MySQLPair, look: Look) -> list[FarshoreError]:
    target = peer(preferred_side(document))
    if look.empty.get(target) is not False or document.on_existing_data == "overwrite":
        return []
    site = site_of(document, target)
    return [
        Refused(
            "target_has_data",
            f"the server at {site}, which would be overwritten by the first copy, holds data",
            hint=(
                "empty it, or consent with on_existing_data: overwrite; "
                f"if {site} is the side in use, set primary_site: {site}"
            ),
            field="on_existing_data",
        )
    ]


def _concerns(field_path: str | None, changed: tuple[str, ...]) -> bool:
    if field_path is None:
        return False
    return any(
        field_path == path or field_path.startswith(path + ".") or path.startswith(field_path + ".") for path in changed
    )


def _refusal(finding: Finding) -> FarshoreError:
    code = finding.code if finding.code in TABLE else "unsuitable_server"
    return Refused(code, finding.message, hint=finding.hint, field=finding.field)

"""What the Pulumi engine's calls mean for a site. Idempotent by contract: each is a PUT or DELETE by name."""

from typing import Any

from pulumi.dynamic import CheckFailure, CheckResult, CreateResult, DiffResult, ReadResult, UpdateResult

from farshore_schema.documents import FORMAT, Site
from farshore_schema.errors import FarshoreError
from pulumi_farshore import changes, client
from pulumi_farshore.reporting import failed


def check(news: dict[str, Any]) -> CheckResult:
    """Validate the declaration; nothing about a site needs the reconciler."""
    checked = changes.check(Site, news)
    return CheckResult(dict(checked.inputs), [CheckFailure(f.field, f.reason) for f in checked.failures])


def diff(olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
    """Compare declared fields only. Another name is another site."""
    changed = changes.changed_fields(olds, news)
    return DiffResult(changes=bool(changed), replaces=["name"] if "name" in changed else [])


def create(props: dict[str, Any]) -> CreateResult:
    """Declare the site; an existing one of that name is adopted."""
    return CreateResult(str(props["name"]), _put(props))


def update(news: dict[str, Any]) -> UpdateResult:
    """Declare the site anew."""
    return UpdateResult(_put(news))


def _put(props: dict[str, Any]) -> dict[str, Any]:
    document = changes.declared(props)
    with failed("Site", document["name"]):
        client.call("PUT", client.path("sites", document["name"]), body={"version": FORMAT, "kind": "Site"} | document)
    return document


def read(id_: str, props: dict[str, Any]) -> ReadResult:
    """Return what the reconciler has, or that the site is gone."""
    try:
        found = client.call("GET", client.path("sites", id_))
    except FarshoreError as error:
        if error.code == "not_found":
            return ReadResult("", {})
        with failed("Site", id_):
            raise
    document = changes.canonical(Site.model_validate(found.get("document", found)))
    return ReadResult(id_, dict(document), dict(document))


def delete(id_: str) -> None:
    """Remove the site; one that is gone already is a success."""
    with failed("Site", id_):
        try:
            client.call("DELETE", client.path("sites", id_))
        except FarshoreError as error:
            if error.code != "not_found":
                raise

"""What the Pulumi engine's calls mean for a site. Idempotent by contract: each is a PUT or DELETE by name.

As with pairs the id is `<name>/<incarnation>`, so that a moved or replaced resource does not take its site away (R24).
"""

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
    name = str(props["name"])
    view = _put(props, create=True)
    return CreateResult(f"{name}/{view['incarnation']}", changes.declared(props))


def update(news: dict[str, Any]) -> UpdateResult:
    """Declare the site anew."""
    _put(news)
    return UpdateResult(changes.declared(news))


def _put(props: dict[str, Any], *, create: bool = False) -> dict[str, Any]:
    document = changes.declared(props)
    body = {"version": FORMAT, "kind": "Site"} | document
    with failed("Site", document["name"]):
        return client.call("PUT", client.path("sites", document["name"]), body=body, create=create or None)


def read(id_: str, props: dict[str, Any]) -> ReadResult:
    """Return what the reconciler has, or that the site is gone."""
    name = id_.partition("/")[0]
    try:
        view = client.call("GET", client.path("sites", name))
    except FarshoreError as error:
        if error.code == "not_found":
            return ReadResult("", {})
        with failed("Site", name):
            raise
    document = changes.canonical(Site.model_validate(view["document"]))
    return ReadResult(id_, dict(document), dict(document))


def delete(id_: str) -> None:
    """Remove the site; one that is gone already, or was adopted by a newer resource, is a success."""
    name, _, incarnation = id_.partition("/")
    with failed("Site", name):
        try:
            client.call("DELETE", client.path("sites", name), incarnation=int(incarnation))
        except FarshoreError as error:
            if error.code != "not_found":
                raise

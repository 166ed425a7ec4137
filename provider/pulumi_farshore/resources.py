"""The typed resources of a Pulumi program: `Site` and `MySQLPair`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import pulumi
import yaml
from pulumi.dynamic import Resource

from pulumi_farshore.dynamic import MySQLPairProvider, SiteProvider


class Credential(TypedDict):
    """A database login; the password is a reference (`env:NAME`, `file:/PATH`) that the agent resolves."""

    user: pulumi.Input[str]
    password: pulumi.Input[str]


class Tls(TypedDict, total=False):
    """How the connection to a server is protected."""

    mode: pulumi.Input[Literal["required", "verify_ca", "verify_identity", "disabled"]]
    ca_file: pulumi.Input[str]


class MySQLEndpoint(TypedDict):
    """How one site's MySQL server is reached."""

    site: pulumi.Input[str]
    host: pulumi.Input[str]
    port: NotRequired[pulumi.Input[int]]
    admin: pulumi.Input[Credential]
    replication: pulumi.Input[Credential]
    tls: NotRequired[pulumi.Input[Tls]]


class JournalSettings(TypedDict, total=False):
    """How long a site keeps the journal of what it received."""

    keep: pulumi.Input[str]
    keep_bytes: pulumi.Input[str]


_sites: dict[tuple[str, str, str], dict[str, "Site"]] = {}


def _this_stack() -> tuple[str, str, str]:
    return pulumi.get_organization(), pulumi.get_project(), pulumi.get_stack()


def _sites_of_this_program() -> dict[str, "Site"]:
    """Return the sites declared so far: a pair may name them in plain text, and is then made after them."""
    return _sites.setdefault(_this_stack(), {})


class Site(Resource, module="farshore", name="Site"):
    """A place that can be lost as a whole."""

    name: pulumi.Output[str]
    description: pulumi.Output[str | None]

    def __init__(
        self,
        resource_name: str,
        *,
        name: pulumi.Input[str] | None = None,
        description: pulumi.Input[str] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare a site; its name is the resource's name unless said otherwise."""
        props: dict[str, Any] = {"name": name or resource_name, "description": description}
        super().__init__(SiteProvider(), resource_name, props, opts)
        if isinstance(props["name"], str):
            _sites_of_this_program()[props["name"]] = self


class MySQLPair(Resource, module="farshore", name="MySQLPair"):
    """One whole MySQL server protected between two sites."""

    name: pulumi.Output[str]
    primary_site: pulumi.Output[str | None]
    active_site: pulumi.Output[str]
    role_epoch: pulumi.Output[int]
    incarnation: pulumi.Output[int]

    def __init__(
        self,
        resource_name: str,
        *,
        site_a: pulumi.Input[MySQLEndpoint],
        site_b: pulumi.Input[MySQLEndpoint],
        name: pulumi.Input[str] | None = None,
        description: pulumi.Input[str] | None = None,
        primary_site: pulumi.Input[str] | None = None,
        mode: pulumi.Input[Literal["async"]] | None = None,
        on_existing_data: pulumi.Input[Literal["refuse", "overwrite"]] | None = None,
        on_gap: pulumi.Input[Literal["stop", "reseed"]] | None = None,
        seed_ddl: pulumi.Input[Literal["block", "retry"]] | None = None,
        seed_workers: pulumi.Input[int] | None = None,
        standby_durability: pulumi.Input[Literal["auto", "full", "relaxed"]] | None = None,
        drain_timeout: pulumi.Input[str] | None = None,
        journal: pulumi.Input[JournalSettings] | None = None,
        allow_unverified_version: pulumi.Input[bool] | None = None,
        acknowledge_epoch: pulumi.Input[int] | None = None,
        wait_for: pulumi.Input[Literal["accepted", "seeded", "protected"]] | None = None,
        wait_timeout: pulumi.Input[str] | None = None,
        switchover_timeout: pulumi.Input[str] | None = None,
        force_destroy: pulumi.Input[bool] | None = None,
        delete_journal: pulumi.Input[bool] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare protection of one server.

        `primary_site` names the site that is to be active; None means that code never moves roles, and changing it is
        a planned switchover (lossless or refused) that `pulumi up` waits for, at most `switchover_timeout` (120s).
        `wait_for` makes the first `up` wait (at most `wait_timeout`, 10m) instead of returning on acceptance.
        Destroying ends protection and keeps both databases; it is refused while failed over unless `force_destroy`.
        """
        said = {
            key: value for key, value in locals().items() if key not in ("self", "resource_name", "opts", "__class__")
        }
        # Every key becomes an output of its own, which costs a program of a thousand pairs seconds.
        props: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
        props["name"] = name or resource_name
        # Who declares a pair is not the user's to write: two stacks that name one pair must be told apart.
        props["owner"] = dict(zip(("organization", "project", "stack"), _this_stack(), strict=True))
        sites = _sites_of_this_program()
        # In the first preview these sites do not exist yet, and that is no mistake.
        props["program_sites"] = sorted(sites)
        named = [end.get("site") for end in (site_a, site_b) if isinstance(end, Mapping)]
        after = [sites[name] for name in named if isinstance(name, str) and name in sites]
        opts = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=after))
        # Outputs need their keys from the start.
        props |= {"primary_site": primary_site, "active_site": None, "role_epoch": None, "incarnation": None}
        super().__init__(MySQLPairProvider(), resource_name, props, opts)


KINDS: dict[str, type[Site] | type[MySQLPair]] = {"Site": Site, "MySQLPair": MySQLPair}


def load(path: str | Path, opts: pulumi.ResourceOptions | None = None) -> dict[str, Site | MySQLPair]:
    """Declare every document of a YAML file; return the resources by name.

    Raises ValueError naming the document when it has no known `kind` or no `name`.
    """
    made: dict[str, Site | MySQLPair] = {}
    documents = [item for item in yaml.safe_load_all(Path(path).read_text()) if item is not None]
    for number, item in sorted(enumerate(documents, 1), key=lambda pair: _kind(pair[1]) != "Site"):
        if _kind(item) not in KINDS or not isinstance(item.get("name"), str):
            raise ValueError(f"{path}: document {number} needs a `name` and a `kind`, one of {', '.join(KINDS)}")
        fields = {key: value for key, value in item.items() if key not in ("version", "kind", "name")}
        made[item["name"]] = KINDS[item["kind"]](item["name"], **fields, opts=opts)
    return made


def _kind(item: object) -> object:
    return item.get("kind") if isinstance(item, Mapping) else None

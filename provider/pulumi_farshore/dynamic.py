"""The classes whose names stand in users' Pulumi state: a STORED FORMAT.

Pulumi pickles a provider by reference, so the state of every stack names this module and these classes. Never rename
or move them; a test pins the pickled bytes. They carry no attributes and no arguments: what they need comes with each
call, and configuration goes to the shared client.
"""

from typing import Any

from pulumi.dynamic import (
    CheckResult,
    ConfigureRequest,
    CreateResult,
    DiffResult,
    ReadResult,
    ResourceProvider,
    UpdateResult,
)


class _Provider(ResourceProvider):
    serialize_as_secret_always = False  # by reference it is a few dozen bytes without any secret

    def configure(self, req: ConfigureRequest) -> None:
        """Take `farshore:endpoint` and the secret `farshore:token` from the stack's configuration."""
        from pulumi_farshore import client

        client.configure(req.config.get("farshore:endpoint"), req.config.get("farshore:token"))


class SiteProvider(_Provider):
    """Declares a site."""

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        from pulumi_farshore import site

        return site.check(news)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        from pulumi_farshore import site

        return site.diff(_olds, _news)

    def create(self, props: dict[str, Any]) -> CreateResult:
        from pulumi_farshore import site

        return site.create(props)

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        from pulumi_farshore import site

        return site.read(id_, props)

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        from pulumi_farshore import site

        return site.update(_news)

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        from pulumi_farshore import site

        site.delete(_id)


class MySQLPairProvider(_Provider):
    """Declares a MySQL pair."""

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        from pulumi_farshore import pair

        return pair.check(_olds, news)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        from pulumi_farshore import pair

        return pair.diff(_olds, _news)

    def create(self, props: dict[str, Any]) -> CreateResult:
        from pulumi_farshore import pair

        return pair.create(props)

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        from pulumi_farshore import pair

        return pair.read(id_, props)

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        from pulumi_farshore import pair

        return pair.update(_id, _olds, _news)

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        from pulumi_farshore import pair

        pair.delete(_id, _props)

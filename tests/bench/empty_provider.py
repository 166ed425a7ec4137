"""A dynamic provider that does nothing, in an importable module as ours is, so that both are pickled by reference."""

from typing import Any

from pulumi.dynamic import CreateResult, DiffResult, ResourceProvider


class EmptyProvider(ResourceProvider):
    """Creates nothing and never differs."""

    serialize_as_secret_always = False

    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(str(props["name"]), dict(props))

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        return DiffResult(changes=False)

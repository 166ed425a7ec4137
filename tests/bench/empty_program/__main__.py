"""The peer: resources whose provider does nothing, with inputs of the same size as ours."""

import json
from pathlib import Path

import pulumi
from pulumi.dynamic import Resource

from tests.bench.empty_provider import EmptyProvider


class Empty(Resource, module="empty", name="Empty"):
    """Does nothing."""


for item in json.loads(Path(pulumi.Config().require("pairs_file")).read_text()):
    Empty(EmptyProvider(), item["name"], item)

"""Ours: the same pairs as the peer's resources, declared beside their two sites."""

import json
from pathlib import Path

import pulumi

import pulumi_farshore as farshore

for name in ("tokyo", "osaka"):
    farshore.Site(name)
for item in json.loads(Path(pulumi.Config().require("pairs_file")).read_text()):
    farshore.MySQLPair(item.pop("name"), **item)

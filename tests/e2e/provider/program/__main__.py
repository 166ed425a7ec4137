"""Declare what the configuration says: `sites` and `pairs` are JSON lists of arguments."""

import json
from pathlib import Path

import pulumi

import pulumi_farshore as farshore

config = pulumi.Config()
if config.get("load"):
    farshore.load(config.require("load"))
for name in json.loads(config.get("sites") or '["tokyo", "osaka"]'):
    farshore.Site(name)
made: dict[str, farshore.MySQLPair] = {}
parent = pulumi.ComponentResource("tests:index:Group", "group") if config.get_bool("grouped") else None
text = Path(config.require("pairs_file")).read_text() if config.get("pairs_file") else config.get("pairs") or "[]"
for item in json.loads(text):
    resource = item.pop("resource", item.get("name"))
    follows = item.pop("describe_by", None)
    if follows:
        # An output that no preview can know.
        item["description"] = made[follows].role_epoch.apply(lambda epoch: f"after epoch {epoch}")
    made[resource] = farshore.MySQLPair(resource, **item, opts=pulumi.ResourceOptions(parent=parent))
for resource, pair in made.items():
    pulumi.export(resource, pair.active_site)

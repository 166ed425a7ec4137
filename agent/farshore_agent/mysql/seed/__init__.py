"""The full copy of a MySQL server to another, to start replication from: exact, quick, and gentle to the source.

    inspect_source, inspect_target    what is there and what would be refused; reads only
    run_seed                          the copy
    reopen_target                     afterwards, when the standby may be read

The package knows MySQL and nothing of Farshore: no documents, no roles, no engine.
"""

from farshore_agent.mysql.seed.errors import (
    NotExact,
    SeedCancelled,
    SeedError,
    SeedPermanent,
    SeedTransient,
    TargetHoldsData,
)
from farshore_agent.mysql.seed.inspect import inspect_source, inspect_target
from farshore_agent.mysql.seed.run import run_seed
from farshore_agent.mysql.seed.session import Connect
from farshore_agent.mysql.seed.target import reopen_target
from farshore_agent.mysql.seed.values import (
    MARKER_SCHEMA,
    Account,
    Phase,
    Progress,
    Remark,
    SchemaContents,
    SeedResult,
    SeedSettings,
    SourceContents,
    TargetContents,
)

__all__ = [
    "MARKER_SCHEMA",
    "Account",
    "Connect",
    "NotExact",
    "Phase",
    "Progress",
    "Remark",
    "SchemaContents",
    "SeedCancelled",
    "SeedError",
    "SeedPermanent",
    "SeedResult",
    "SeedSettings",
    "SeedTransient",
    "SourceContents",
    "TargetContents",
    "TargetHoldsData",
    "inspect_source",
    "inspect_target",
    "reopen_target",
    "run_seed",
]

"""CREATE TABLE is taken apart without understanding anything wrong, and put together in the same order."""

from __future__ import annotations

import pytest

from farshore_agent.mysql.seed.table_ddl import constraint_name, key_name, plan_table, without_counter

SIMPLE = b"""CREATE TABLE `t` (
  `id` int NOT NULL AUTO_INCREMENT,
  `a` varchar(10) DEFAULT 'x,) KEY `no` (',
  `b` text COMMENT 'it''s \\', KEY `no2` (`a`)',
  PRIMARY KEY (`id`),
  UNIQUE KEY `u` (`a`),
  KEY `k``1, KEY (` (`a`,`id`),
  FULLTEXT KEY `ft` (`b`),
  KEY `fn` ((lower(`a`)),(`id` + 1)),
  CONSTRAINT `fk``,` FOREIGN KEY (`id`) REFERENCES `p` (`id`) ON DELETE CASCADE,
  CONSTRAINT `c` CHECK ((`a` <> ')'))
) ENGINE=InnoDB AUTO_INCREMENT=17 DEFAULT CHARSET=utf8mb4 COMMENT='AUTO_INCREMENT=5'
/*!50100 PARTITION BY RANGE (`id`)
(PARTITION p0 VALUES LESS THAN (10) ENGINE = InnoDB) */"""


def test_keys_and_foreign_keys_come_later_and_nothing_else() -> None:
    """Secondary keys leave the table in their order, grouped by how they are built; checks and partitions stay."""
    plan = plan_table(SIMPLE)
    assert plan.keys == (
        (b"ADD UNIQUE KEY `u` (`a`)", b"ADD KEY `k``1, KEY (` (`a`,`id`)"),
        (b"ADD FULLTEXT KEY `ft` (`b`)",),
        (b"ADD KEY `fn` ((lower(`a`)),(`id` + 1))",),
    )
    assert plan.foreign_keys == (b"ADD CONSTRAINT `fk``,` FOREIGN KEY (`id`) REFERENCES `p` (`id`) ON DELETE CASCADE",)
    assert b"DEFAULT 'x,) KEY `no` ('" in plan.create
    assert b"CONSTRAINT `c` CHECK" in plan.create
    assert plan.create.endswith(SIMPLE[SIMPLE.index(b"\n) ENGINE") + 1 :])
    for gone in (b"KEY `u`", b"`ft`", b"`fn`", b"FOREIGN KEY"):
        assert gone not in plan.create


def test_names_of_clauses() -> None:
    """Names come out unquoted, to be compared with those of information_schema."""
    assert key_name(b"ADD UNIQUE KEY `k``1, KEY (` (`a`)") == "k`1, KEY ("
    assert constraint_name(b"ADD CONSTRAINT `fk``,` FOREIGN KEY (`id`)") == "fk`,"


@pytest.mark.parametrize(
    ("keys", "kept"),
    [
        # AUTO_INCREMENT needs its key, and those before it stay too, so that the order of keys is kept.
        (b"KEY `a` (`x`),\n  KEY `b` (`n`),\n  KEY `c` (`x`,`n`)", [b"`a`", b"`b`"]),
        # The primary key already leads with it.
        (b"PRIMARY KEY (`n`,`x`),\n  KEY `b` (`n`)", []),
        # It is in the primary key, but not first.
        (b"PRIMARY KEY (`x`,`n`),\n  KEY `b` (`n`)", [b"`b`"]),
        # No primary key: InnoDB clusters by a unique key.
        (b"UNIQUE KEY `u` (`n`),\n  UNIQUE KEY `v` (`x`),\n  KEY `c` (`x`)", [b"`u`", b"`v`"]),
    ],
)
def test_keys_that_are_needed_at_once_stay(keys: bytes, kept: list[bytes]) -> None:
    """What a table cannot be without stays in CREATE TABLE."""
    create = (
        b"CREATE TABLE `t` (\n  `n` int NOT NULL AUTO_INCREMENT,\n  `x` int NOT NULL,\n  " + keys + b"\n) ENGINE=InnoDB"
    )
    later = [clause for group in plan_table(create).keys for clause in group]
    for name in (b"`a`", b"`b`", b"`c`", b"`u`", b"`v`"):
        if b"KEY " + name in keys:
            assert (b"KEY " + name in plan_table(create).create) == (name in kept)
            assert any(b"KEY " + name in clause for clause in later) == (name not in kept)


def test_the_counter_is_no_difference_and_everything_else_is() -> None:
    """Only the AUTO_INCREMENT of the options is left out of a comparison, not what looks like it in strings."""
    assert without_counter(SIMPLE) == without_counter(SIMPLE.replace(b"=17", b"=99"))
    assert without_counter(SIMPLE) == without_counter(SIMPLE.replace(b" AUTO_INCREMENT=17", b""))
    assert without_counter(SIMPLE) != without_counter(SIMPLE.replace(b"AUTO_INCREMENT=5", b"AUTO_INCREMENT=6"))


@pytest.mark.parametrize("text", [b"", b"CREATE TABLE `t`", b"CREATE TABLE `t` (`a", b"CREATE TABLE `t` (`a` int 'x"])
def test_text_that_is_not_understood_is_refused(text: bytes) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match="SHOW CREATE TABLE"):
        plan_table(text)

"""A small source with one of everything that is known to get lost or changed on the way in a full copy.

Every statement here stands for a trap that a dump tool has fallen into, or that was met while the seed was made.
Numbers are small: what is tested is exactness, not speed.
"""

# ruff: noqa: E501, RUF001 - statements are easier to read whole, and odd characters are what is tested

from __future__ import annotations

from collections.abc import Iterator

from tests.testbed.mysql import MySQLServer

EVERY_BYTE = "x'" + bytes(range(256)).hex() + "'"
EVERY_BYTE_BUT_ZERO = "x'" + bytes(range(1, 256)).hex() + "'"
NUMBERS = (
    "INSERT INTO shop.numbers WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n + 1 FROM r WHERE n < {rows}) "
    "SELECT n FROM r"
)
PACKET = 0xFFFFFF

SESSION = (
    "SET SESSION sql_mode='NO_AUTO_VALUE_ON_ZERO', foreign_key_checks=0, time_zone='+00:00', "
    "cte_max_recursion_depth=1000000, innodb_strict_mode=0, timestamp=DEFAULT"
)

TABLES = (
    "CREATE TABLE shop.numbers (n INT PRIMARY KEY)",
    NUMBERS.format(rows=2000),
    # Integers, AUTO_INCREMENT with a 0 in it, and a counter ahead of the rows.
    "CREATE TABLE shop.ints (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, a INT, b INT UNSIGNED, c TINYINT, "
    "d BIGINT UNSIGNED, KEY (a), KEY (b, a DESC), UNIQUE KEY (d)) AUTO_INCREMENT=777777 COMMENT='AUTO_INCREMENT=5'",
    "INSERT INTO shop.ints VALUES (0, 1, 4294967295, -128, 18446744073709551615), (-5, NULL, NULL, 127, NULL)",
    "INSERT INTO shop.ints (id, a, b) SELECT n, n * 7919 % 1000 - 500, n FROM shop.numbers",
    # FLOAT is shown with six digits; DOUBLE and DECIMAL at their ends; minus zero.
    "CREATE TABLE shop.reals (id INT PRIMARY KEY, f FLOAT, d DOUBLE, x DECIMAL(65,30), y DECIMAL(10,0) UNSIGNED)",
    "INSERT INTO shop.reals VALUES (1, 2816044.75, 0.1, -12345678901234567890123456789012345.123456789012345678901234567890, 5),"
    " (2, 3.402823466e38, 1.7976931348623157e308, 0, 0), (3, -1.175494351e-38, 2.2250738585072014e-308, NULL, NULL),"
    " (4, 1.4e-45, 4.9e-324, 1e-30, 9999999999), (5, -0e0, -0e0, -1, 1), (6, NULL, 123456789.12345679, NULL, NULL)",
    "INSERT INTO shop.reals (id, f, d) SELECT n + 10, RAND(n) * POW(10, n % 30), (RAND(n) - 0.5) * POW(10, n % 300) "
    "FROM shop.numbers WHERE n <= 300",
    # Dates that are none, times below zero with fractions, both ends of TIMESTAMP.
    "CREATE TABLE shop.times (id INT PRIMARY KEY, d DATE, dt DATETIME(6), ts TIMESTAMP(3) NULL, t TIME(6), y YEAR, "
    "ts0 TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, KEY (dt), KEY (t))",
    "INSERT INTO shop.times VALUES (1, '0000-00-00', '0000-00-00 00:00:00', '0000-00-00', '-00:00:00.500000', 0, "
    "'0000-00-00'), (2, '2024-00-15', '1000-01-01', '1970-01-01 00:00:01', '-838:59:59.000000', 1901, "
    "'2038-01-19 03:14:07'), (3, '9999-12-31', '9999-12-31 23:59:59.999999', '2038-01-19 03:14:07.999', "
    "'838:59:59', 2155, '2020-10-25 00:30:00'), (4, NULL, NULL, NULL, NULL, NULL, '2021-03-28 01:30:00')",
    # NULL beside everything that looks like it, and every escape.
    "CREATE TABLE shop.nulls (id INT PRIMARY KEY, a VARCHAR(20), b VARBINARY(10), c TEXT, e ENUM('N','NULL'))",
    r"INSERT INTO shop.nulls VALUES (1, NULL, NULL, NULL, NULL), (2, '', '', '', 'N'), (3, 'NULL', x'024e', x'024e', "
    r"'NULL'), (4, '\\N', x'fd4e', '\\N', 'N'), (5, x'02', x'0202', x'02024e', 'N'), (6, '\t\n\r\0\Z', x'fffe', "
    r"x'1f1e1d', NULL), (7, 'N', x'01ff524f57fe58fd03', x'01', 'N'), (8, '\'\"`%s%%', x'5c', '\\', 'N')",
    # ENUM: the error value 0, an empty label beside it, labels that are numbers, other character sets. SET of 64.
    "CREATE TABLE shop.enums (id INT PRIMARY KEY, e ENUM('a','b','1','2','x y') NOT NULL, f ENUM('','a') NOT NULL, "
    "g ENUM('ё','ж','б''q','c\\\\d') CHARACTER SET utf16, h ENUM('é','x') CHARACTER SET latin1, "
    "s SET('p','q','r','ё'), t SET(" + ",".join(f"'m{n}'" for n in range(64)) + "), "
    "u SET('中','文') CHARACTER SET gbk, KEY (e))",
    "INSERT IGNORE INTO shop.enums SELECT n, n % 6, n % 3, n % 4 + 1, n % 2 + 1, n % 16, n * 9223372036854775, n % 4 "
    "FROM shop.numbers WHERE n <= 400",
    "UPDATE shop.enums SET t = 18446744073709551615, g = NULL, s = '' WHERE id % 50 = 0",
    "CREATE TABLE shop.bits (id INT PRIMARY KEY, a BIT(1), b BIT(13), c BIT(64) NOT NULL, KEY (c))",
    "INSERT INTO shop.bits SELECT n, n % 2, n % 8192, n * 9223372036854775 FROM shop.numbers WHERE n <= 600",
    "INSERT INTO shop.bits VALUES (10001, NULL, NULL, 18446744073709551615), (10002, 1, 514, 131586)",
    # Binary strings of every byte; trailing zeros and blanks.
    "CREATE TABLE shop.bins (id INT PRIMARY KEY, a BINARY(16) NOT NULL, b VARBINARY(300), c TINYBLOB, d BLOB, "
    "m MEDIUMBLOB, KEY (a), KEY (b(20)))",
    f"INSERT INTO shop.bins SELECT n, UNHEX(LEFT(SHA2(n, 256), 32)), IF(n % 3, {EVERY_BYTE}, NULL), x'20', "
    f"CONCAT({EVERY_BYTE}, REPEAT(x'02', n)), REPEAT(UNHEX(SHA2(n, 512)), n % 40) FROM shop.numbers WHERE n <= 200",
    "INSERT INTO shop.bins VALUES (1000, x'00', x'0000', x'', x'0a', REPEAT(x'02ff', 100000))",
    # Character sets.
    "CREATE TABLE shop.texts (id INT PRIMARY KEY, a VARCHAR(300) CHARACTER SET latin1, b CHAR(10) CHARACTER SET latin1 "
    "NOT NULL, g VARCHAR(100) CHARACTER SET gbk, s TEXT CHARACTER SET sjis, u VARCHAR(60) CHARACTER SET utf16, "
    "w CHAR(9) CHARACTER SET utf32, c2 VARCHAR(20) CHARACTER SET ucs2, u3 VARCHAR(50) CHARACTER SET utf8mb3, "
    "k VARCHAR(30) CHARACTER SET koi8r, x VARCHAR(20) CHARACTER SET ascii, bin VARCHAR(20) COLLATE utf8mb4_bin, "
    "l LONGTEXT, KEY (g), KEY (u), UNIQUE KEY (id, b))",
    f"INSERT INTO shop.texts SELECT n, _latin1 {EVERY_BYTE_BUT_ZERO}, CHAR(65 + n % 26 USING latin1), "
    "_gbk x'bf5cd65cd0d0', _sjis x'835c955c945c82a0', CONCAT('u', n, '😀'), '𝄞 ', 'ucs', 'Ünï', 'Привет', 'ascii', "
    "'trailing  ', REPEAT('世界😀', n) FROM shop.numbers WHERE n <= 100",
    # JSON: every type that text can carry; one document far over 64 KiB.
    "CREATE TABLE shop.docs (id INT PRIMARY KEY, j JSON, j2 JSON NOT NULL, name VARCHAR(40) AS (j->>'$.name') VIRTUAL, "
    "KEY (name), KEY mv ((CAST(j2->'$.tags' AS UNSIGNED ARRAY))))",
    "INSERT INTO shop.docs (id, j, j2) SELECT n, IF(n % 11, JSON_OBJECT('name', CONCAT('n', n), 'f', RAND(n), 'q', "
    "'a\"b\\\\c\n', 'arr', JSON_ARRAY(1, n, NULL, true, 'ё😀'), 'o', JSON_OBJECT('a', -n)), NULL), "
    "JSON_OBJECT('tags', JSON_ARRAY(n % 100, n % 77), 'big', 18446744073709551615) FROM shop.numbers WHERE n <= 300",
    "INSERT INTO shop.docs (id, j, j2) VALUES (1000, JSON_OBJECT('long', REPEAT('abc\\\"', 60000)), 'null'), "
    "(1001, '[]', '{\"\": 1e308, \"e\": 1.5}')",
    # JSON values that their text does not bring back: 12.50 is no DOUBLE, a DATE no string.
    "CREATE TABLE shop.typed_docs (id INT, t VARCHAR(20) CHARACTER SET utf16, e ENUM('','ё'), b BIT(9), f FLOAT, g POINT, "
    "j JSON, k JSON, price DECIMAL(20,2) AS (j->'$.price') STORED)",
    "INSERT INTO shop.typed_docs (id, t, e, b, f, g, j, k) SELECT n, 'ё', n % 3, n % 512, n / 7, POINT(n, 1), "
    "JSON_OBJECT('price', CAST(n / 4 AS DECIMAL(20,2)), 'n', n), IF(n % 2, JSON_ARRAY(n), NULL) FROM shop.numbers "
    "WHERE n <= 300",
    "INSERT INTO shop.typed_docs (id, j, k) VALUES "
    "(1001, JSON_OBJECT('a', JSON_OBJECT('z', 1.5, 'b', JSON_ARRAY(1, DATE'2020-01-01', JSON_OBJECT('q\"\\\\', 2.50))), "
    "'bb', JSON_ARRAY(3, JSON_ARRAY(4.0)), '', TIME'-10:00:00.5', 'ё', x'ff00'), CAST(12.50 AS JSON)), "
    '(1002, \'{"d": 1.5, "s": "2020-01-01"}\', CAST(TIMESTAMP\'2020-01-01 10:00:00.25\' AS JSON)), '
    "(1003, JSON_ARRAY(-0.001, 123456789012345678901234567890123456789012345.12345678901234567890, 0.0), '1.0')",
    # Geometry with and without reference system, VECTOR.
    "CREATE TABLE shop.places (id INT PRIMARY KEY, g GEOMETRY, p POINT NOT NULL SRID 4326, n INT, SPATIAL KEY sp (p), "
    "KEY n (n))",
    "INSERT INTO shop.places SELECT n, IF(n % 3, ST_GeomFromText(CONCAT('LINESTRING(0 0,', n, ' ', n / 3, ')')), NULL), "
    "ST_GeomFromText(CONCAT('POINT(', n % 90, ' ', n % 180, ')'), 4326), n FROM shop.numbers WHERE n <= 300",
    "CREATE TABLE shop.vectors (id INT PRIMARY KEY, v VECTOR(5), w VECTOR)",
    "INSERT INTO shop.vectors SELECT n, IF(n % 20, STRING_TO_VECTOR(CONCAT('[', RAND(n), ',-1e10,1e-20,0,', n, ']')), "
    "NULL), STRING_TO_VECTOR('[1,2]') FROM shop.numbers WHERE n <= 100",
    # Generated, invisible, functional, checked, with expressions as defaults, with an invisible key.
    "CREATE TABLE shop.generated (a INT NOT NULL, b VARCHAR(50), c INT AS (a * 2 + 1) STORED, "
    "d VARCHAR(60) AS (CONCAT(b, '-', a)) VIRTUAL, hidden INT INVISIBLE DEFAULT 7, id INT NOT NULL AUTO_INCREMENT, "
    "e DOUBLE DEFAULT (RAND() * 2), f DATE DEFAULT (CURRENT_DATE + INTERVAL 1 DAY), u BINARY(4) DEFAULT x'ff00', "
    "PRIMARY KEY (id), KEY (c), KEY (d), UNIQUE KEY u (a, id), KEY fn ((a + 1), (LOWER(b))), KEY inv (b) INVISIBLE, "
    "CONSTRAINT `chk 1` CHECK (a > -1000000), CONSTRAINT soft CHECK (a > 5) NOT ENFORCED)",
    "INSERT INTO shop.generated (a, b, hidden, id) SELECT n, IF(n % 8, CONCAT('b', n), NULL), n % 100, n "
    "FROM shop.numbers",
    "CREATE TABLE shop.only_generated (a INT AS (1 + 1) VIRTUAL)",
    "INSERT INTO shop.only_generated VALUES (), (), ()",
    "SET SESSION sql_generate_invisible_primary_key=ON",
    "CREATE TABLE shop.gipk (a VARCHAR(10), b INT, KEY (a))",
    "SET SESSION sql_generate_invisible_primary_key=OFF",
    "INSERT INTO shop.gipk SELECT n, n FROM shop.numbers WHERE n <= 50",
    # No key at all with double rows; a unique key to cluster by; AUTO_INCREMENT on a secondary key; a long key.
    "CREATE TABLE shop.no_key (a INT, b VARCHAR(40), KEY (b), KEY (a))",
    "INSERT INTO shop.no_key SELECT n % 10, IF(n % 6, CONCAT('dup', n % 5), NULL) FROM shop.numbers",
    "CREATE TABLE shop.unique_only (a INT NOT NULL, b INT, z INT, UNIQUE KEY second (b), KEY third (z), "
    "UNIQUE KEY first (a))",
    "INSERT INTO shop.unique_only SELECT n, NULL, n FROM shop.numbers WHERE n <= 50",
    "CREATE TABLE shop.secondary_counter (k VARCHAR(20) NOT NULL, n INT NOT NULL AUTO_INCREMENT, v INT, "
    "PRIMARY KEY (k), KEY before_it (v), KEY counter (n), KEY after_it (v, k))",
    "INSERT INTO shop.secondary_counter (k, n, v) VALUES ('a', 5, 1), ('b', 2, 2), ('c', 0, 3)",
    "CREATE TABLE shop.composite (a INT NOT NULL, b VARCHAR(20) NOT NULL, c DATE NOT NULL, v BIGINT, "
    "PRIMARY KEY (c, b, a), KEY (v))",
    "INSERT INTO shop.composite SELECT n, CONCAT('k', n % 100), FROM_DAYS(730000 + n % 30), n FROM shop.numbers",
    "CREATE TABLE shop.empty (id INT PRIMARY KEY, v VARCHAR(10), KEY (v)) AUTO_INCREMENT=9",
    "CREATE TABLE shop.full_text (id INT PRIMARY KEY, t TEXT, u VARCHAR(100), n INT, FULLTEXT KEY ft (t, u), "
    "FULLTEXT KEY ng (u) WITH PARSER ngram, KEY n (n))",
    "INSERT INTO shop.full_text SELECT n, CONCAT('word', n, ' other ', n % 10), '中文字', n FROM shop.numbers WHERE n <= 90",
    # Foreign keys in a circle, on oneself, across schemas, to a table that is not there, to a key that is not unique.
    "CREATE TABLE shop.hen (id INT PRIMARY KEY, egg INT, KEY (egg), CONSTRAINT hen_egg FOREIGN KEY (egg) REFERENCES egg (id))",
    "CREATE TABLE shop.egg (id INT PRIMARY KEY, hen INT, up INT, CONSTRAINT egg_hen FOREIGN KEY (hen) REFERENCES hen (id) "
    "ON DELETE CASCADE, CONSTRAINT up FOREIGN KEY (up) REFERENCES egg (id) ON UPDATE SET NULL)",
    "INSERT INTO shop.hen VALUES (1, 1), (2, NULL)",
    "INSERT INTO shop.egg VALUES (1, 1, 1), (2, 2, 1)",
    "CREATE TABLE `other db`.far (id INT PRIMARY KEY, e INT, CONSTRAINT far_egg FOREIGN KEY (e) REFERENCES shop.egg (id))",
    "INSERT INTO `other db`.far VALUES (1, 2)",
    "CREATE TABLE `other db`.orphan (id INT PRIMARY KEY, e INT, KEY (e), CONSTRAINT lost FOREIGN KEY (e) "
    "REFERENCES nowhere (id))",
    "INSERT INTO `other db`.orphan VALUES (1, 99)",
    "SET SESSION restrict_fk_on_non_standard_key=OFF",
    "CREATE TABLE `other db`.loose (id INT PRIMARY KEY, n INT, CONSTRAINT loose_fk FOREIGN KEY (n) REFERENCES shop.places (n))",
    "INSERT INTO `other db`.loose VALUES (1, 5)",
    # Partitions, compression, options.
    "CREATE TABLE shop.parted (id INT NOT NULL, d DATE NOT NULL, v VARCHAR(100), PRIMARY KEY (id, d), KEY (v(20))) "
    "STATS_PERSISTENT=0 COMMENT='it''s ü' PARTITION BY RANGE (YEAR(d)) SUBPARTITION BY HASH (id) SUBPARTITIONS 2 "
    "(PARTITION p0 VALUES LESS THAN (2018), PARTITION `p 1` VALUES LESS THAN (2020), PARTITION pm VALUES LESS THAN MAXVALUE)",
    "INSERT INTO shop.parted SELECT n, FROM_DAYS(737000 + n % 2000), CONCAT('v', n) FROM shop.numbers",
    "CREATE TABLE shop.lists (id INT NOT NULL, r VARCHAR(5) NOT NULL) PARTITION BY LIST COLUMNS (r) "
    "(PARTITION a VALUES IN ('x', 'y'), PARTITION b VALUES IN ('''z'))",
    "INSERT INTO shop.lists VALUES (1, 'x'), (2, '''z'), (3, 'y')",
    "CREATE TABLE shop.squeezed (id INT PRIMARY KEY, t TEXT) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8",
    "INSERT INTO shop.squeezed SELECT n, REPEAT(n, 100) FROM shop.numbers WHERE n <= 100",
    "CREATE TABLESPACE `space 1` ADD DATAFILE 'space_1.ibd'",
    "CREATE TABLE shop.in_space (id INT PRIMARY KEY) TABLESPACE `space 1`",
    "INSERT INTO shop.in_space VALUES (1), (2)",
    # Names.
    "CREATE TABLE `we``ird '\"% db`.`ta``ble %s '\"\\\\ ё\n,)(` (`co``l %d` INT PRIMARY KEY, `b,(`' TEXT, `select` INT, "
    "KEY `k``1, KEY (` (`select`), CONSTRAINT `c``,` FOREIGN KEY (`select`) REFERENCES `ta``ble %s '\"\\\\ ё\n,)(` (`co``l %d`))".replace(
        "`'", "'`"
    ),
    "INSERT INTO `we``ird '\"% db`.`ta``ble %s '\"\\\\ ё\n,)(` VALUES (1, 'x', NULL), (2, NULL, 1)",
    # Definitions with literals of other character sets.
    "CREATE TABLE shop.literals (id INT PRIMARY KEY, a VARCHAR(10) DEFAULT '😀', b VARCHAR(10) CHARACTER SET latin1 DEFAULT "
    "'é', c VARCHAR(10) CHARACTER SET gbk DEFAULT '中', d VARCHAR(20) CHARACTER SET latin1 CHECK (d <> 'é'), "
    "e VARCHAR(20) AS (CONCAT(a, 'ü''\\\\')) VIRTUAL COMMENT 'AUTO_INCREMENT=7, ) (', f BIT(3) DEFAULT b'101', "
    "g BLOB DEFAULT (x'ff01'), h DATETIME DEFAULT '0000-00-00 00:00:00')",
    "INSERT INTO shop.literals (id) VALUES (1), (2)",
    # Many double spaces, a primary key of text, a table of one column.
    "CREATE TABLE shop.by_text (k VARCHAR(64) NOT NULL PRIMARY KEY, n INT, UNIQUE KEY (n))",
    "INSERT INTO shop.by_text SELECT CONCAT('Ключ-', LEFT(SHA2(n, 256), 20)), n FROM shop.numbers WHERE n <= 300",
    # Large enough for ranges, with a hole in the middle and both signs.
    "CREATE TABLE shop.ranges (id BIGINT NOT NULL, v VARCHAR(200), w INT, PRIMARY KEY (id, w), KEY (w))",
    "INSERT INTO shop.ranges SELECT a.n * 2000 + b.n - 2000000, REPEAT(CHAR(65 + b.n % 26), 100), b.n "
    "FROM shop.numbers a JOIN shop.numbers b ON b.n <= 2000 WHERE a.n <= 10",
    "UPDATE shop.ranges SET id = id + 9000000000000000000 WHERE id % 2",
    "ANALYZE TABLE shop.ranges",
)

BIG_ROWS = (
    # Values around the size at which a packet is continued by the next, and a few times that.
    "CREATE TABLE shop.big (id INT PRIMARY KEY, b LONGBLOB, c LONGBLOB)",
    *(
        f"INSERT INTO shop.big VALUES ({number}, REPEAT(x'41', {PACKET + delta}), NULL)"
        # The string around a value of id 0 to 9 is 42 bytes longer, its packet 46: at -46 the packet is just full.
        for number, delta in enumerate((-47, -46, -45, -42, -41, -40, 0))
    ),
    f"INSERT INTO shop.big VALUES (100, REPEAT(x'02ff', {PACKET // 2}), REPEAT('a\\n\\0', 4000000)), (101, NULL, x'')",
)

PROGRAMS = (
    "CREATE VIEW shop.v_base AS SELECT id, a FROM shop.ints",
    "CREATE ALGORITHM=MERGE DEFINER=root@localhost SQL SECURITY INVOKER VIEW shop.a_on_v AS SELECT * FROM shop.v_base "
    "WHERE a < 5 WITH CASCADED CHECK OPTION",
    "CREATE VIEW shop.across (`x ``1`, y) AS SELECT f.id, 'ё😀' FROM `other db`.far f",
    "CREATE FUNCTION shop.plus(a INT) RETURNS INT NO SQL RETURN a + 1",
    "CREATE VIEW shop.calls AS SELECT shop.plus(id) AS p FROM shop.ints",
    "CREATE JSON RELATIONAL DUALITY VIEW shop.dual AS SELECT JSON_DUALITY_OBJECT('_id': id, 'n': n) FROM shop.by_number",
    "CREATE DEFINER=nobody@nowhere FUNCTION shop.hello(a VARCHAR(20)) RETURNS VARCHAR(60) CHARSET utf8mb4 RETURN "
    "CONCAT('héllo ', a)",
    "CREATE PROCEDURE shop.count_up(IN a INT, OUT b INT) READS SQL DATA SQL SECURITY INVOKER COMMENT 'it''s' "
    "BEGIN /* a -- comment */ SELECT COUNT(*) INTO b FROM ints WHERE id < a; END",
    "SET SESSION sql_mode='ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES'",
    "CREATE PROCEDURE shop.ansi() SELECT \"id\" || '\\' FROM shop.ints",
    "SET SESSION sql_mode=''",
    "CREATE LIBRARY shop.lib COMMENT 'a lib' LANGUAGE JAVASCRIPT AS 'export function f() { return 1 }'",
    "CREATE TRIGGER shop.z_first BEFORE INSERT ON shop.composite FOR EACH ROW SET NEW.v = COALESCE(NEW.v, 0)",
    "CREATE TRIGGER shop.a_second BEFORE INSERT ON shop.composite FOR EACH ROW SET NEW.v = NEW.v + 1",
    "CREATE TRIGGER shop.m_zeroth BEFORE INSERT ON shop.composite FOR EACH ROW PRECEDES z_first SET NEW.b = TRIM(NEW.b)",
    "CREATE TRIGGER shop.after_it AFTER DELETE ON shop.composite FOR EACH ROW SET @gone = OLD.a",
    "SET SESSION time_zone='+03:00'",
    "CREATE EVENT shop.daily ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DO DELETE FROM shop.ints WHERE id < 0",
    "CREATE EVENT shop.once ON SCHEDULE AT '2031-01-01 00:00:00' ON COMPLETION PRESERVE DISABLE COMMENT 'x' DO SET @a = 1",
    "SET SESSION time_zone='+00:00', timestamp=946684800",
    "CREATE EVENT shop.overdue ON SCHEDULE AT '2010-01-01 00:00:00' DO SET @overdue = 1",
    "CREATE EVENT `other db`.`ev ``1` ON SCHEDULE EVERY '1:30' HOUR_MINUTE STARTS '2001-01-01' ENDS '2011-01-01' DO "
    "BEGIN SET @b = 'ё'; END",
    "SET SESSION timestamp=DEFAULT",
    # The schema's collation of the time of creation belongs to a routine.
    "CREATE PROCEDURE `other db`.remembers(a VARCHAR(10)) SELECT a",
    "ALTER DATABASE `other db` COLLATE utf8mb4_bin",
    # Views that are invalid: what they need is gone.
    "CREATE TABLE shop.goes (id INT)",
    "CREATE VIEW shop.broken AS SELECT id FROM shop.goes",
    "CREATE VIEW shop.broken_too AS SELECT id FROM shop.broken",
    "DROP TABLE shop.goes",
)

LATIN1_CLIENT = (
    "SET NAMES latin1",
    "CREATE PROCEDURE shop.from_latin1() SELECT 'é' AS `ü`".encode("latin-1"),
    "CREATE VIEW shop.v_latin1 AS SELECT 'é' AS x, _latin1'\xe9' AS y".encode("latin-1"),
    "CREATE TRIGGER shop.t_latin1 BEFORE UPDATE ON shop.composite FOR EACH ROW SET NEW.b = 'ß'".encode("latin-1"),
    "CREATE EVENT shop.e_latin1 ON SCHEDULE EVERY 1 YEAR STARTS '2040-01-01' DO SET @x = 'ÿ'".encode("latin-1"),
    "SET NAMES gbk",
    b"CREATE FUNCTION shop.from_gbk() RETURNS VARCHAR(20) CHARSET gbk NO SQL RETURN '\xbf\x5c\xd6\x5c'",
    "SET NAMES utf8mb4",
)

ACCOUNTS = (
    "CREATE ROLE reader, 'wri ter'@'%'",
    "CREATE USER ann@'%' IDENTIFIED BY 'pÄss\\'w' REQUIRE SSL WITH MAX_USER_CONNECTIONS 5 PASSWORD EXPIRE INTERVAL 90 DAY "
    "PASSWORD HISTORY 3 FAILED_LOGIN_ATTEMPTS 3 PASSWORD_LOCK_TIME 2 COMMENT 'it is ann'",
    "ALTER USER ann@'%' IDENTIFIED BY 'second'",
    "CREATE USER 'o''neil'@'10.%' IDENTIFIED BY 'x' ACCOUNT LOCK ATTRIBUTE '{\"a\": 1}'",
    "CREATE USER twin@localhost IDENTIFIED BY 'three'",
    "ALTER USER twin@localhost IDENTIFIED BY 'four' RETAIN CURRENT PASSWORD",
    "CREATE USER nopassword@localhost",
    "CREATE USER x509@'%' IDENTIFIED BY 'x' REQUIRE SUBJECT '/CN=a' AND ISSUER '/CN=b' AND CIPHER 'AES128-SHA256'",
    "CREATE USER expired@'%' IDENTIFIED BY 'x' PASSWORD EXPIRE",
    "CREATE USER ''@'anonymous.host'",
    "GRANT SELECT, INSERT (v, a), UPDATE ON shop.composite TO reader",
    "GRANT EXECUTE ON PROCEDURE shop.count_up TO 'wri ter'@'%'",
    "GRANT EXECUTE ON FUNCTION shop.plus TO reader WITH GRANT OPTION",
    "GRANT reader TO 'wri ter'@'%' WITH ADMIN OPTION",
    "GRANT reader, 'wri ter'@'%' TO ann@'%'",
    "ALTER USER ann@'%' DEFAULT ROLE reader",
    "GRANT ALL ON `sho\\_%`.* TO twin@localhost WITH GRANT OPTION",
    "GRANT CREATE, SELECT ON nowhere.nothing TO twin@localhost",
    "GRANT BACKUP_ADMIN, CLONE_ADMIN, REPLICATION SLAVE ON *.* TO ann@'%'",
    "GRANT CONNECTION_ADMIN ON *.* TO ann@'%' WITH GRANT OPTION",
    "GRANT PROXY ON twin@localhost TO ann@'%'",
    "SET GLOBAL partial_revokes=ON",
    "CREATE USER partly@'%' IDENTIFIED BY 'x'",
    "GRANT SELECT, INSERT ON *.* TO partly@'%'",
    "REVOKE INSERT ON shop.* FROM partly@'%'",
    # A view that calls a function can be made only where the function's definer has an account.
    "GRANT EXECUTE ON shop.* TO ann@'%'",
    "CREATE DEFINER=ann@'%' FUNCTION shop.by_ann() RETURNS INT NO SQL RETURN 1",
    "CREATE VIEW shop.a_calls_ann AS SELECT shop.by_ann() AS x",
    "GRANT EXECUTE, ALTER ROUTINE ON FUNCTION shop.by_ann TO twin@localhost",
)


def fill(server: MySQLServer) -> None:
    """Make the whole corpus on an empty server."""
    with server.connect() as session, session.cursor() as cursor:
        for statement in _statements():
            try:
                session.query(statement) if isinstance(statement, bytes) else cursor.execute(statement)
            except Exception as error:
                raise AssertionError(f"{statement!r:.200}: {error}") from error


def _statements() -> Iterator[str | bytes]:
    yield SESSION
    yield "CREATE DATABASE shop CHARACTER SET utf8mb4"
    yield "CREATE DATABASE `other db` CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_as_cs"
    yield "CREATE DATABASE `we``ird '\"% db` CHARACTER SET latin1"
    yield "CREATE DATABASE farshore"
    yield "CREATE TABLE farshore.marker (id INT PRIMARY KEY)"
    yield from TABLES
    yield "CREATE TABLE shop.by_number (id INT PRIMARY KEY, n INT)"
    yield from BIG_ROWS
    yield from PROGRAMS
    yield from LATIN1_CLIENT
    yield from ACCOUNTS

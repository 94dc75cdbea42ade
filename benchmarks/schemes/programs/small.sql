-- A small program that should be left alone: sqlite3 with about 20 MiB in memory, asked the same again and again.
CREATE TABLE item (id INTEGER PRIMARY KEY, class INTEGER, score INTEGER, name TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
INSERT INTO item SELECT i, (i * 7919) % 97, (i * 104729) % 1000003, 'item number ' || i || ' of a list of names' FROM n;
CREATE INDEX by_class ON item (class, score);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < @QUERIES@)
SELECT '{"queries": @QUERIES@, "sum": '
    || sum((SELECT sum(score) + count(DISTINCT substr(name, 12, 3)) FROM item WHERE class = n.i % 97)) || '}' FROM n;

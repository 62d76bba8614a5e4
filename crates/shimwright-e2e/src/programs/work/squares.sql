CREATE TABLE squares (root INTEGER PRIMARY KEY, square INTEGER, class INTEGER);
WITH RECURSIVE n(root) AS (SELECT 0 UNION ALL SELECT root + 1 FROM n WHERE root < 999)
  INSERT INTO squares SELECT root, root * root, root % 7 FROM n;
CREATE INDEX by_class ON squares (class, square);
SELECT count(*) FROM squares;
SELECT class, count(*), sum(square) FROM squares WHERE class IN (0, 6) GROUP BY class ORDER BY class;
SELECT sqlite_version();

import sqlite3

path = "/work/squares.db"
database = sqlite3.connect(path)
database.execute("CREATE TABLE squares (root INTEGER PRIMARY KEY, square INTEGER, class INTEGER)")
with database:
    rows = ((n, n * n, n % 7) for n in range(1000))
    database.executemany("INSERT INTO squares VALUES (?, ?, ?)", rows)
database.execute("CREATE INDEX by_class ON squares (class, square)")
database.close()

database = sqlite3.connect(path)
print(database.execute("SELECT count(*) FROM squares").fetchone()[0], "rows")
grouped = "SELECT class, count(*), sum(square) FROM squares WHERE class IN (0, 6) GROUP BY class"
for group in database.execute(grouped + " ORDER BY class"):
    print("group {}: {} rows, {} in all".format(*group))
plan = database.execute("EXPLAIN QUERY PLAN " + grouped).fetchall()
print("by index:", any("by_class" in step[3] for step in plan))
print("integrity:", database.execute("PRAGMA integrity_check").fetchone()[0])

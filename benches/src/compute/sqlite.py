# A table of 20000 rows in memory, an index, and queries that group, sort and look up.
import sqlite3, time
begin = time.perf_counter_ns()
db = sqlite3.connect(':memory:')
db.execute('create table item (id integer primary key, kind integer, price real, name text)')
rows = ((number, number * 7919 % 101, number * 31 % 1000 / 4, 'item %d' % number) for number in range(20000))
db.executemany('insert into item values (?, ?, ?, ?)', rows)
db.execute('create index by_kind on item (kind, price)')
total = 0
for kind in range(101):
    total += db.execute('select count(*), max(price) from item where kind = ?', (kind,)).fetchone()[0]
query = 'select kind, sum(price) from item group by kind order by 2 desc, 1 limit 3'
first = db.execute(query).fetchall()
total += len(db.execute("select name from item where name like '%99%' order by name").fetchall())
end = time.perf_counter_ns()
print('sqlite', end - begin, '%d-%d' % (total, first[0][0]))

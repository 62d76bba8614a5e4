import json, re, sqlite3, sys

order = re.compile(r"^(?P<customer>\w+)\s+(?P<count>\d+) x (?P<price>\d+\.\d\d)$", re.M)
with open("/work/orders.txt", encoding="utf-8") as file:
    orders = [match.groupdict() for match in order.finditer(file.read())]

with sqlite3.connect("/work/orders.db") as database:
    database.execute("CREATE TABLE orders (customer TEXT, count INTEGER, price REAL)")
    database.executemany("INSERT INTO orders VALUES (:customer, :count, :price)", orders)
    query = "SELECT customer, sum(count * price) FROM orders GROUP BY customer ORDER BY customer"
    sums = dict(database.execute(query))
database.close()

with open("/work/report.json", "w", encoding="utf-8") as file:
    json.dump(sums, file, ensure_ascii=False)
version = ".".join(map(str, sys.version_info[:3]))
print(f"CPython {version} on {sys.platform}: {len(orders)} orders, {len(sums)} customers")

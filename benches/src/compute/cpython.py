# Words of a text are counted with a regular expression, primes are sieved, a document goes through JSON.
import json, re, time
begin = time.perf_counter_ns()
text = ' '.join('word%d' % (number * number % 97) for number in range(20000))
counts = {}
for word in re.findall(r'[a-z]+\d+', text):
    counts[word] = counts.get(word, 0) + 1
sieve = bytearray([1]) * 200000
for number in range(2, 448):
    if sieve[number]:
        sieve[number * number::number] = bytes(len(sieve[number * number::number]))
total = sum(sieve[2:])
for turn in range(20):
    counts = json.loads(json.dumps(counts))
end = time.perf_counter_ns()
print('cpython', end - begin, '%d-%d' % (total, sum(counts.values())))

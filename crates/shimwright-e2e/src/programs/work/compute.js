const words = JSON.parse(std.loadFile("/work/words.json"));
const longest = words.reduce((a, b) => (b.length > a.length ? b : a));
const sieve = (limit) => {
  const composite = new Uint8Array(limit);
  let primes = 0;
  for (let n = 2; n < limit; n++) {
    if (composite[n]) continue;
    primes++;
    for (let m = n * n; m < limit; m += n) composite[m] = 1;
  }
  return primes;
};
let factorial = 1n;
for (let n = 1n; n <= 20n; n++) factorial *= n;
const vowels = {};
for (const [vowel] of words.join(" ").matchAll(/[aeiou]/g)) {
  vowels[vowel] = (vowels[vowel] ?? 0) + 1;
}
const sorted = Object.fromEntries(Object.entries(vowels).sort());
console.log(JSON.stringify({
  longest, primes: sieve(10000), factorial: factorial.toString(), vowels: sorted,
}));

// Greets, and repeats its arguments. Also the guest of the demo and of the benchmarks.
#include <stdio.h>

int main(int argc, char **argv) {
  fputs("Hello from Wasm", stdout);
  for (int i = 1; i < argc; i++) {
    putchar(' ');
    fputs(argv[i], stdout);
  }
  putchar('\n');
  return 0;
}

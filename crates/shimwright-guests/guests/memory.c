// Allocates as many MiB as its argument says and writes to each page of them. With a second
// argument it keeps them and waits for ever.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv) {
  long mebibytes = argc > 1 ? strtol(argv[1], NULL, 10) : 1;
  for (long i = 0; i < mebibytes; i++) {
    volatile char *block = malloc(1 << 20);
    if (!block) {
      puts("out of memory");
      return 1;
    }
    for (long page = 0; page < 1 << 20; page += 4096) block[page] = 1;
  }
  puts("touched");
  fflush(stdout);
  while (argc > 2) sleep(86400);
  return 0;
}

// Prints the length of each argument and then of each variable, one per line.
#include <stdio.h>
#include <string.h>

extern char **environ;

int main(int argc, char **argv) {
  for (int i = 0; i < argc; i++) printf("%zu\n", strlen(argv[i]));
  for (char **variable = environ; *variable; variable++) printf("%zu\n", strlen(*variable));
  return 0;
}

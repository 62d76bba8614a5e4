// Writes one line to each output stream, without a buffer and without ending the last line.
#include <unistd.h>

int main(void) {
  write(STDOUT_FILENO, "to standard output", 18);
  write(STDERR_FILENO, "to standard error", 17);
  return 0;
}

// Copies standard input to standard output until the end of input, then says so.
#include <unistd.h>

int main(void) {
  char buffer[4096];
  ssize_t length;
  while ((length = read(STDIN_FILENO, buffer, sizeof buffer)) > 0) {
    if (write(STDOUT_FILENO, buffer, length) != length) return 1;
  }
  write(STDOUT_FILENO, "<end of input>\n", 15);
  return length == 0 ? 0 : 1;
}

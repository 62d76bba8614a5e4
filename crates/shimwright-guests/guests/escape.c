// Tries to reach a file outside of its only directory, `/data`, in every way it knows. There is
// a file `secret` beside that directory, and a symbolic link `link` to it inside.
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

// The path and its base are given to the host as they are, past the resolution in libc.
static int opens(int base, const char *path) {
  int file = openat(base, path, O_RDONLY);
  if (file >= 0) close(file);
  return file >= 0;
}

int main(void) {
  static const char *const RELATIVE[] = {
      "../secret", "./../secret", "inner/../../secret", "link",         "inner/../link",
      "linkdir/secret", "/etc/passwd", "../../../../../../etc/passwd", "..",
  };
  int escapes = 0;
  int data = open("/data", O_RDONLY | O_DIRECTORY);
  if (data < 0) {
    perror("open /data");
    return 2;
  }
  mkdirat(data, "inner", 0700);
  symlinkat("../secret", data, "mine");
  for (unsigned i = 0; i < sizeof RELATIVE / sizeof *RELATIVE; i++) {
    if (opens(data, RELATIVE[i])) {
      printf("escaped by %s\n", RELATIVE[i]);
      escapes++;
    }
  }
  if (opens(data, "mine")) {
    puts("escaped by a link of its own");
    escapes++;
  }
  if (opens(AT_FDCWD, "/data/../secret") || opens(AT_FDCWD, "/secret")) {
    puts("escaped by an absolute path");
    escapes++;
  }
  if (linkat(data, "../secret", data, "hard", 0) == 0 ||
      renameat(data, "../secret", data, "stolen") == 0) {
    puts("escaped by linking or renaming");
    escapes++;
  }
  if (escapes == 0) puts("denied");
  return escapes != 0;
}

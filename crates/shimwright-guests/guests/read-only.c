// Tries to change what is in the directory given as its argument, and prints how each attempt failed.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void tell(const char *what, int failed) {
  printf("%s: %s\n", what, failed ? strerror(errno) : "done");
}

int main(int argc, char **argv) {
  if (argc != 2 || chdir(argv[1])) return 1;
  tell("create", open("new", O_CREAT | O_WRONLY, 0600) < 0);
  tell("open for writing", open("file", O_WRONLY) < 0);
  tell("make a directory", mkdir("new", 0700));
  tell("remove", unlink("file"));
  tell("rename", rename("file", "other"));
  return 0;
}

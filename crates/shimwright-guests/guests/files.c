// Reads `in.txt` of the directory `/data` and writes it, doubled, to `out.txt`. Before that it
// goes once through what programs do with files.
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(const char *what) {
  perror(what);
  return 1;
}

int main(void) {
  char text[64];
  FILE *in = fopen("/data/in.txt", "r");
  if (!in) return fail("open in.txt");
  if (!fgets(text, sizeof text, in)) return fail("read in.txt");
  fclose(in);

  if (mkdir("/data/directory", 0700)) return fail("mkdir");
  FILE *draft = fopen("/data/directory/draft.txt", "w+");
  if (!draft) return fail("create draft.txt");
  if (fputs(text, draft) < 0 || fputs(text, draft) < 0) return fail("write draft.txt");
  if (fclose(draft)) return fail("close draft.txt");

  struct stat status;
  if (stat("/data/directory/draft.txt", &status)) return fail("stat draft.txt");
  if (status.st_size != (off_t)(2 * strlen(text))) return fail("size of draft.txt");
  if (rename("/data/directory/draft.txt", "/data/out.txt")) return fail("rename");
  if (rmdir("/data/directory")) return fail("rmdir");

  int found = 0;
  DIR *directory = opendir("/data");
  if (!directory) return fail("opendir");
  for (struct dirent *entry; (entry = readdir(directory));) {
    if (!strcmp(entry->d_name, "in.txt") || !strcmp(entry->d_name, "out.txt")) found++;
  }
  closedir(directory);
  if (found != 2) return fail("readdir");
  if (unlink("/data/in.txt")) return fail("unlink");
  puts("done");
  return 0;
}

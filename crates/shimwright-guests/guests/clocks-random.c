// Checks that time passes and that random bytes differ.
#include <string.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static long long nanoseconds(clockid_t clock) {
  struct timespec now;
  if (clock_gettime(clock, &now)) return -1;
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int main(void) {
  // 2020-01-01: the clock of a machine that runs this shows a later time.
  if (nanoseconds(CLOCK_REALTIME) < 1577836800LL * 1000000000LL) {
    puts("the wall clock is wrong");
    return 1;
  }
  long long before = nanoseconds(CLOCK_MONOTONIC);
  struct timespec pause = {.tv_sec = 0, .tv_nsec = 1000000};
  if (nanosleep(&pause, NULL) || nanoseconds(CLOCK_MONOTONIC) - before < pause.tv_nsec) {
    puts("the monotonic clock is wrong");
    return 1;
  }
  char first[32], second[32];
  if (getentropy(first, sizeof first) || getentropy(second, sizeof second) ||
      !memcmp(first, second, sizeof first)) {
    puts("random bytes are not random");
    return 1;
  }
  puts("fine");
  return 0;
}

// Has no `_start`, but functions to be called by name.
#include <stdint.h>
#include <unistd.h>

// Volatile, so that clang does not run the constructor itself.
static volatile int initialized;

__attribute__((constructor)) static void initialize(void) { initialized = 1; }

__attribute__((export_name("greet"))) void greet(void) {
  write(STDOUT_FILENO, "greetings\n", 10);
}

__attribute__((export_name("state"))) void state(void) {
  if (initialized) {
    write(STDOUT_FILENO, "initialized\n", 12);
  } else {
    write(STDOUT_FILENO, "not initialized\n", 16);
  }
}

__attribute__((export_name("answer"))) int32_t answer(void) { return 42; }

__attribute__((export_name("add"))) int32_t add(int32_t a, int32_t b) { return a + b; }

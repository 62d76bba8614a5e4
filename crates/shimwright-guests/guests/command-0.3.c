// A command of WASI 0.3. Its `run` may be an ordinary function, as it awaits nothing. As with other
// toolchains the component gets a `run` of WASI 0.2 too, which calls `main`.
#include <stdint.h>
#include <unistd.h>

__attribute__((export_name("wasi:cli/run@0.3.0#run"))) int32_t run(void) {
  write(STDOUT_FILENO, "Hello from WASI 0.3\n", 20);
  return 0;
}

int main(void) { __builtin_trap(); }

// Exits with code 3 through an import that only components have.
#include <stdint.h>

__attribute__((import_module("wasi:cli/exit@0.2.12"), import_name("exit-with-code"))) void
exit_with_code(int32_t code);

int main(void) {
  exit_with_code(3);
  return 0;
}

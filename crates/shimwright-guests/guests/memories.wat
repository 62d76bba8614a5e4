;; Has two memories, one of them with 64-bit addresses, and exits with 42 from the second.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (memory $wide i64 1)
  (func (export "_start")
    (i32.store $wide (i64.const 8) (i32.const 42))
    (call $exit (i32.load $wide (i64.const 8)))))

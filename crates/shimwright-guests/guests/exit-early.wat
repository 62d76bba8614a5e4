;; Exits with 3 while it is initialized, so its function `late`, which exits with 4, must not run.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_initialize") (call $exit (i32.const 3)))
  (func (export "late") (call $exit (i32.const 4))))

;; Exits with 3 in its start section, so `_start`, which exits with 4, must not run.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func $start (call $exit (i32.const 3)))
  (start $start)
  (func (export "_start") (call $exit (i32.const 4))))

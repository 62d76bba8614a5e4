;; Exits with the size of its memory, which are 42 pages of one byte.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 42 (pagesize 1))
  (func (export "_start") (call $exit (memory.size))))

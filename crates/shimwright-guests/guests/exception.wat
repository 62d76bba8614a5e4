;; Throws an exception with the number 42, catches it, and exits with the number.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (tag $tag (param i32))
  (func (export "_start")
    (block $caught (result i32)
      (try_table (catch $tag $caught) (throw $tag (i32.const 42)))
      unreachable)
    (call $exit)))

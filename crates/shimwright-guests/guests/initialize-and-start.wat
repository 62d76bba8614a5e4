;; Exports both `_initialize` and `_start`, and exits with 42 if only the function that was asked for
;; is called, or with 3 if `_initialize` is called before it.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (global $base (mut i32) (i32.const 40))
  (func (export "_initialize") (global.set $base (i32.const 1)))
  (func $end (call $exit (i32.add (global.get $base) (i32.const 2))))
  (func (export "_start") (call $end))
  (func (export "other") (call $end)))

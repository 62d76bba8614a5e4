;; Makes a million calls, each in place of the one before, and exits with 42.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func $down (param $n i32)
    (if (i32.eqz (local.get $n)) (then (return_call $exit (i32.const 42))))
    (return_call $down (i32.sub (local.get $n) (i32.const 1))))
  (func (export "_start") (call $down (i32.const 1000000))))

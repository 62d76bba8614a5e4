;; Allocates 400 MB in all, of which it keeps none, and exits with 42 from a field of the last struct.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (type $struct (struct (field (mut i32))))
  (type $array (array (mut i32)))
  (func (export "_start") (local $last (ref null $struct)) (local $i i32)
    (loop $again
      (local.set $last (struct.new $struct (i32.const 42)))
      (drop (array.new_default $array (i32.const 1000)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $i) (i32.const 100000))))
    (call $exit (struct.get $struct 0 (local.get $last)))))

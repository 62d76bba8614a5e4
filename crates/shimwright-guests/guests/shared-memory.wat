;; Adds 42 to a word of a shared memory by an atomic instruction, and exits with the word.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1 10 shared)
  (func (export "_start")
    (drop (i32.atomic.rmw.add (i32.const 0) (i32.const 42)))
    (call $exit (i32.atomic.load (i32.const 0)))))

;; Writes `started` from its start section, as modules of AssemblyScript do, and `running` from `_start`.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "started\n")
  (data (i32.const 32) "running\n")
  (func $write (param $text i32)
    (i32.store (i32.const 0) (local.get $text))
    (i32.store (i32.const 4) (i32.const 8))
    (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))
      (then unreachable)))
  (func $start (call $write (i32.const 16)))
  (start $start)
  (func (export "_start") (call $write (i32.const 32))))

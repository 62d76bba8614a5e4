;; Makes 4000 calls, one in the other; each keeps two numbers until the one below it has returned.
(module
  (memory (export "memory") 1)
  (func $deeper (param $left i32) (param $mark i32) (result i32)
    (if (result i32) (local.get $left)
      (then
        (i32.add
          (i32.mul (local.get $mark) (local.get $left))
          (call $deeper
            (i32.sub (local.get $left) (i32.const 1))
            (i32.xor (local.get $mark) (local.get $left)))))
      (else (local.get $mark))))
  (func (export "_start")
    (drop (call $deeper (i32.const 4000) (i32.const 1)))))

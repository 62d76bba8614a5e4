;; Calls itself without end. What is done with each result no compiler can do before the call, or
;; else it would turn the recursion into a loop.
(module
  (memory (export "memory") 1)
  (func $recurse (param i32) (result i32)
    (i32.xor
      (i32.mul (call $recurse (i32.add (local.get 0) (i32.const 1))) (i32.const 3))
      (local.get 0)))
  (func (export "_start")
    (drop (call $recurse (i32.const 0)))))

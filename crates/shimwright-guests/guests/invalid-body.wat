;; Is well-formed, but not valid: a function leaves no result.
(module
  (memory (export "memory") 1)
  (func (export "_start") (drop (call $result)))
  (func $result (result i32)))

;; Needs a function that no host has.
(module
  (import "nowhere" "absent" (func))
  (memory (export "memory") 1)
  (func (export "_start")))

;; Has a memory that it does not export, and calls no function of the host.
(module
  (memory 1)
  (func (export "_start") (i32.store (i32.const 8) (i32.const 1))))

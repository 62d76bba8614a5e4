;; Has a table of 10 elements and grows it to 1000. Fails if it is told that it cannot.
(module
  (memory (export "memory") 1)
  (table 10 funcref)
  (func (export "_start")
    (if (i32.eq (table.grow (ref.null func) (i32.const 990)) (i32.const -1))
      (then unreachable))))

;; Has no memory, and ends with a trap unless `_initialize` was called before `check`.
(module
  (global $initialized (mut i32) (i32.const 0))
  (func (export "_initialize") (global.set $initialized (i32.const 1)))
  (func (export "_start"))
  (func (export "check") (if (i32.eqz (global.get $initialized)) (then unreachable))))

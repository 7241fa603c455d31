"""LLVM text every module starts with: declarations and the roundings LLVM has no instruction for."""

from __future__ import annotations

from ..scalars import C_FUNCTIONS

_HELPERS = """
declare ptr @malloc(i64)
declare void @free(ptr)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare token @llvm.coro.id(i32, ptr, ptr, ptr)
declare i64 @llvm.coro.size.i64()
declare ptr @llvm.coro.begin(token, ptr)
declare i8 @llvm.coro.suspend(token, i1)
declare void @llvm.coro.end(ptr, i1, token)
declare ptr @llvm.coro.free(token, ptr)
declare i1 @llvm.coro.done(ptr)
declare void @llvm.coro.resume(ptr)
declare void @llvm.coro.destroy(ptr)

; the bfloat16 nearest to x, ties to even, as a float
define internal float @flex.bfloat(float %x) alwaysinline nounwind {
  %i = bitcast float %x to i32
  %s = lshr i32 %i, 16
  %l = and i32 %s, 1
  %b = add i32 %l, 32767
  %r = add i32 %i, %b
  %q = or i32 %i, 4194304
  %n = fcmp uno float %x, 0.0
  %c = select i1 %n, i32 %q, i32 %r
  %m = and i32 %c, -65536
  %f = bitcast i32 %m to float
  ret float %f
}

; x rounded to odd: rounding the result again equals rounding x once
define internal float @flex.odd(double %x) alwaysinline nounwind {
  %f = fptrunc double %x to float
  %b = fpext float %f to double
  %i = bitcast float %f to i32
  %l = and i32 %i, 1
  %e = icmp eq i32 %l, 0
  %d = fcmp one double %b, %x
  %a = and i1 %d, %e
  %ab = call double @llvm.fabs.f64(double %b)
  %ax = call double @llvm.fabs.f64(double %x)
  %s = fcmp olt double %ab, %ax
  %up = add i32 %i, 1
  %dn = sub i32 %i, 1
  %n = select i1 %s, i32 %up, i32 %dn
  %r = select i1 %a, i32 %n, i32 %i
  %o = bitcast i32 %r to float
  ret float %o
}

; an unsigned integer as a double, rounded to odd at 42 bits or more
define internal double @flex.oddint(i64 %m) alwaysinline nounwind {
  %big = icmp ugt i64 %m, 9007199254740991
  %low = and i64 %m, 2047
  %any = icmp ne i64 %low, 0
  %hi = and i64 %m, -2048
  %one = select i1 %any, i64 2048, i64 0
  %odd = or i64 %hi, %one
  %c = select i1 %big, i64 %odd, i64 %m
  %d = uitofp i64 %c to double
  ret double %d
}
"""


def prelude() -> str:
    """Declarations and helper functions. Unused ones cost nothing: they are dropped first."""
    lines: list[str] = []
    for suffix, kind in (("f32", "float"), ("f64", "double")):
        for name in ("sqrt", "fabs", "floor", "round"):
            lines.append(f"declare {kind} @llvm.{name}.{suffix}({kind})")
        for name, arity in C_FUNCTIONS.items():
            params = ", ".join([kind] * arity)
            function = f"@{library_symbol(name, kind == 'float')}"
            lines.append(f"declare {kind} {function}({params}) nounwind willreturn memory(none)")
    return "\n".join(lines) + _HELPERS


def divider(bits: int) -> str:
    """Long division of unsigned numbers below ``2**(bits - 1)``: quotient and remainder."""
    kind = f"i{bits}"
    head = f"{{ {kind}, {kind} }} @flex.divide.{kind}({kind} %a, {kind} %b)"
    return f"""
define internal {head} noinline nounwind memory(none) {{
entry:
  br label %step
step:
  %i = phi i32 [ {bits}, %entry ], [ %j, %step ]
  %x = phi {kind} [ %a, %entry ], [ %x2, %step ]
  %q = phi {kind} [ 0, %entry ], [ %q2, %step ]
  %r = phi {kind} [ 0, %entry ], [ %r3, %step ]
  %top = lshr {kind} %x, {bits - 1}
  %x2 = shl {kind} %x, 1
  %r1 = shl {kind} %r, 1
  %r2 = or {kind} %r1, %top
  %fits = icmp uge {kind} %r2, %b
  %less = sub {kind} %r2, %b
  %r3 = select i1 %fits, {kind} %less, {kind} %r2
  %bit = zext i1 %fits to {kind}
  %q1 = shl {kind} %q, 1
  %q2 = or {kind} %q1, %bit
  %j = sub i32 %i, 1
  %more = icmp ne i32 %j, 0
  br i1 %more, label %step, label %done
done:
  %p = insertvalue {{ {kind}, {kind} }} poison, {kind} %q2, 0
  %o = insertvalue {{ {kind}, {kind} }} %p, {kind} %r3, 1
  ret {{ {kind}, {kind} }} %o
}}
"""


def library_symbol(name: str, single: bool) -> str:
    """The symbol of a C math function. Not C's own name, for LLVM would fold and rewrite that."""
    return f"flex.{name}{'f' if single else ''}"

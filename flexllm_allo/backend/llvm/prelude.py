"""LLVM text every module starts with: declarations and the roundings LLVM has no instruction for."""

from __future__ import annotations

from ..scalars import C_FUNCTIONS
from .frame import register_bits

_HELPERS = """
declare ptr @malloc(i64)
declare ptr @aligned_alloc(i64, i64)
declare void @free(ptr)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.prefetch.p0(ptr, i32, i32, i32)
declare i32 @llvm.vector.reduce.add.v16i32(<16 x i32>)
declare void @flex.parallel(ptr, ptr, i64, i64, i64)
declare token @llvm.coro.id(i32, ptr, ptr, ptr)
declare i64 @llvm.coro.size.i64()
declare ptr @llvm.coro.begin(token, ptr)
declare i8 @llvm.coro.suspend(token, i1)
declare void @llvm.coro.end(ptr, i1, token)
declare ptr @llvm.coro.free(token, ptr)
declare i1 @llvm.coro.done(ptr)
declare void @llvm.coro.resume(ptr)
declare void @llvm.coro.destroy(ptr)

; a turn for every process of a region that has not ended (handle null) and need not wait (waits > 0;
; -1 once it has started). What waits for process i is at links[links[i]] to links[links[i + 1] - 1],
; cells are the places of the processes in the state. Returns whether all have ended.
define internal i1 @flex.round(
    i64 %n, ptr %handles, ptr %waits, ptr %links, ptr %cells, ptr %state) noinline nounwind {
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %left = phi i64 [ 0, %entry ], [ %left.next, %next ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %body, label %exit
body:
  %handle.at = getelementptr inbounds ptr, ptr %handles, i64 %i
  %handle = load ptr, ptr %handle.at
  %gone = icmp eq ptr %handle, null
  br i1 %gone, label %next, label %alive
alive:
  %wait.at = getelementptr inbounds i64, ptr %waits, i64 %i
  %wait = load i64, ptr %wait.at
  %must = icmp sgt i64 %wait, 0
  br i1 %must, label %stay, label %free
free:
  %fresh = icmp eq i64 %wait, 0
  br i1 %fresh, label %begin, label %run
begin:
  store i64 -1, ptr %wait.at
  %place = shl i64 %i, 1
  %cell = getelementptr inbounds i64, ptr %cells, i64 %place
  store i64 0, ptr %cell
  %begun = load i64, ptr %state
  %begun.1 = add i64 %begun, 1
  store i64 %begun.1, ptr %state
  br label %run
run:
  call void @llvm.coro.resume(ptr %handle)
  %done = call i1 @llvm.coro.done(ptr %handle)
  br i1 %done, label %end, label %stay
end:
  call void @llvm.coro.destroy(ptr %handle)
  store ptr null, ptr %handle.at
  %moves = load i64, ptr %state
  %moves.1 = add i64 %moves, 1
  store i64 %moves.1, ptr %state
  %from.at = getelementptr inbounds i64, ptr %links, i64 %i
  %from = load i64, ptr %from.at
  %to.at = getelementptr inbounds i64, ptr %from.at, i64 1
  %to = load i64, ptr %to.at
  br label %links.head
links.head:
  %k = phi i64 [ %from, %end ], [ %k.1, %links.body ]
  %any = icmp ult i64 %k, %to
  br i1 %any, label %links.body, label %next
links.body:
  %j.at = getelementptr inbounds i64, ptr %links, i64 %k
  %j = load i64, ptr %j.at
  %other.at = getelementptr inbounds i64, ptr %waits, i64 %j
  %other = load i64, ptr %other.at
  %other.1 = sub i64 %other, 1
  store i64 %other.1, ptr %other.at
  %k.1 = add i64 %k, 1
  br label %links.head
stay:
  %left.1 = add i64 %left, 1
  br label %next
next:
  %left.next = phi i64 [ %left, %body ], [ %left, %links.head ], [ %left.1, %stay ]
  %i.next = add i64 %i, 1
  br label %head
exit:
  %all = icmp eq i64 %left, 0
  ret i1 %all
}

; release the coroutines of a region that have not ended
define internal void @flex.destroy(i64 %n, ptr %handles) noinline nounwind {
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %body, label %exit
body:
  %at = getelementptr inbounds ptr, ptr %handles, i64 %i
  %handle = load ptr, ptr %at
  %gone = icmp eq ptr %handle, null
  br i1 %gone, label %next, label %kill
kill:
  call void @llvm.coro.destroy(ptr %handle)
  store ptr null, ptr %at
  br label %next
next:
  %i.next = add i64 %i, 1
  br label %head
exit:
  ret void
}

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
    kind, size = f"i{register_bits(bits)}", register_bits(bits)
    head = f"{{ {kind}, {kind} }} @flex.divide.{bits}({kind} %a, {kind} %b)"
    return f"""
define internal {head} noinline nounwind memory(none) {{
entry:
  %first = shl {kind} %a, {size - bits}
  br label %step
step:
  %i = phi i32 [ {bits}, %entry ], [ %j, %step ]
  %x = phi {kind} [ %first, %entry ], [ %x2, %step ]
  %q = phi {kind} [ 0, %entry ], [ %q2, %step ]
  %r = phi {kind} [ 0, %entry ], [ %r3, %step ]
  %top = lshr {kind} %x, {size - 1}
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

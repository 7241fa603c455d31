"""``testbench.cpp`` and ``host.cpp``: the program around the kernel, in simulation and on the card."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from math import prod

from ...ir import nodes as ir
from .interface import is_memory_port
from .templates import template
from .types import needs_ap, storage_type


@dataclass(frozen=True, slots=True)
class Image:
    """Where an argument lies in the contents of a memory channel.

    Attributes:
        file: of the channel, in the project.
        offset: in bytes.
        filled: whether its contents are in the file; else it only has its place there.
    """

    file: str
    offset: int
    filled: bool


@dataclass(frozen=True, slots=True)
class Port:
    """A parameter of the top function as the host sees it."""

    name: str
    ctype: str
    count: int
    is_memory: bool
    is_output: bool
    is_input: bool
    has_data: bool
    has_golden: bool
    wide: bool
    image: Image | None = None


def ports(
    top: ir.Function,
    names: list[str],
    stored: Set[str],
    data: Set[str],
    golden: Set[str],
    images: Mapping[str, Image] | None = None,
) -> list[Port]:
    """The parameters with what is known about their data; `names` are those in C++."""
    results = {b.name for b in top.outputs}
    return [
        Port(
            name=name,
            ctype=storage_type(b.dtype),
            count=prod(b.shape),
            is_memory=is_memory_port(top, b),
            is_output=b.name in stored,
            is_input=b.name not in results,
            has_data=b.name in data,
            has_golden=b.name in golden,
            wide=needs_ap(b.dtype),
            image=(images or {}).get(b.name),
        )
        for b, name in zip(top.params, names, strict=True)
    ]


_SAME_AP = """\
// Unused bits of ap_ types have no meaning.
template <int W>
static bool same(const ap_int<W> &a, const ap_int<W> &b) {
  return a == b;
}
template <int W>
static bool same(const ap_uint<W> &a, const ap_uint<W> &b) {
  return a == b;
}
template <int W, int I>
static bool same(const ap_fixed<W, I> &a, const ap_fixed<W, I> &b) {
  return a == b;
}
template <int W, int I>
static bool same(const ap_ufixed<W, I> &a, const ap_ufixed<W, I> &b) {
  return a == b;
}
"""


def testbench(top: str, all_ports: list[Port]) -> str:
    """The C++ test bench of a project."""
    args = [f"{p.name}_.data()" if p.is_memory else f"*{p.name}_.data()" for p in all_ports]
    return _bench(all_ports, f"{top}({', '.join(args)})", "testbench [data folder]")


_SAVE = """\
template <typename T>
static void save(const char *name, Memory<T> &result) {
  std::ofstream(std::string("out_") + name + ".bin", std::ios::binary)
      .write((const char *)result.data(), (std::streamsize)result.bytes());
}

"""
_CAUGHT = """ catch (const std::exception &error) {
  std::fprintf(stderr, "ERROR: %s\\n", error.what());
  return 1;
}"""


def tapa_host(top: str, all_ports: list[Port]) -> str:
    """The host program of a TAPA project: the test bench, which can run the kernel on a card as well."""
    args = ['argc > 2 ? argv[2] : ""', *(_tapa_argument(p) for p in all_ports)]
    call = f"tapa::invoke({', '.join([top, *args])})"
    usage = "tapa_host [data folder [file.xo or file.xclbin]]; without a file it simulates the C++"
    written = [f'  save("{p.name}", {p.name}_);' for p in all_ports if p.is_output]
    return _bench(all_ports, call, usage, _Around(_SAVE, written, " try", _CAUGHT, has_weights=True))


def _tapa_argument(port: Port) -> str:
    if not port.is_memory:
        return f"*{port.name}_.data()"
    access = (
        "read_write" if port.is_output and port.is_input else "write_only" if port.is_output else "read_only"
    )
    return f"tapa::{access}_mmap<{port.ctype} >({port.name}_.data(), {port.count})"


@dataclass(frozen=True, slots=True)
class _Around:
    """What a host program has around the test bench: helpers, statements after the run, a handler.

    Weights without data of their own come from the files of channels, if it has them.
    """

    helpers: str = ""
    after: list[str] = field(default_factory=list[str])
    attempt: str = ""
    caught: str = ""
    has_weights: bool = False


def _bench(all_ports: list[Port], call: str, usage: str, around: _Around | None = None) -> str:
    """A program that loads arguments from files, runs the kernel and compares what it wrote."""
    around = around or _Around()
    setup: list[str] = []
    checks: list[str] = []
    for port in all_ports:
        setup.append(f"  Memory<{port.ctype} > {port.name}_({port.count});")
        if port.has_data:
            setup.append(f'  {port.name}_.load("{port.name}.bin");')
        elif around.has_weights and port.image is not None and port.image.filled:
            setup.append(f'  {port.name}_.load("../{port.image.file}", {port.image.offset});')
        if port.has_golden:
            checks.append(f'  failures += compare("{port.name}", {port.name}_, "golden_{port.name}.bin");')
    return template("testbench.cpp").substitute(
        same=_SAME_AP if any(p.wide for p in all_ports) else "",
        setup="\n".join(setup),
        call="\n".join([f"  {call};", *around.after]),
        usage=usage,
        helpers=around.helpers,
        attempt=around.attempt,
        caught=around.caught,
        checks="\n".join(checks) or "  // The project was built without expected results.",
        verdict="PASS" if checks else "DONE: there are no expected results to compare with",
    )


def host(top: str, all_ports: list[Port], element_bytes: list[int]) -> str:
    """The XRT host program of a project."""
    sized = list(zip(all_ports, element_bytes, strict=True))
    ends: dict[str, int] = {}
    groups: dict[str, int] = {}
    for index, (port, size) in enumerate(sized):
        if port.image is not None:
            end = port.image.offset + port.count * size
            ends[port.image.file] = max(ends.get(port.image.file, 0), end)
            groups.setdefault(port.image.file, index)
    setup = [
        f'  xrt::bo {_image_name(file)} = channel(device, options.weights, "{file}", {end}, '
        f"kernel.group_id({groups[file]}));"
        for file, end in ends.items()
    ]
    checks: list[str] = []
    prints: list[str] = []
    for index, (port, size) in enumerate(sized):
        setup += _argument(index, port, size)
        if port.is_memory and port.is_output:
            bytes_, golden = port.count * size, "true" if port.has_golden else "false"
            checks.append(f'  failures += check(options, "{port.name}", {port.name}_, {bytes_}, {golden});')
            prints.append(f'  print(options, "{port.name}", {port.name}_, {port.count}, {size});')
    return template("host.cpp").substitute(
        top=top, setup="\n".join(setup), checks="\n".join(checks), prints="\n".join(prints)
    )


def _argument(index: int, port: Port, size: int) -> list[str]:
    """The lines that bring one argument to the card."""
    bytes_, local = port.count * size, f"{port.name}_"  # apart from the host's own names
    source = f'read_file(options.data + "/{port.name}.bin", {bytes_})'
    given = f'options.fill("{port.name}", {{target}}, {port.count}, {size});'
    if not port.is_memory:
        lines = [f"  {_register(port.ctype, size)} {local} = {{}};"]
        if port.has_data:
            lines.append(f"  std::memcpy(&{local}, {source}.data(), {bytes_});")
        lines.append("  " + given.format(target=f"&{local}"))
        return [*lines, f"  run.set_arg({index}, {local});"]
    image = port.image
    if image is None:
        lines = [f"  xrt::bo {local}(device, {bytes_}, kernel.group_id({index}));"]
    else:
        lines = [f"  xrt::bo {local}({_image_name(image.file)}, {bytes_}, {image.offset});"]
    if image is None or not image.filled:
        if port.has_data:
            lines.append(f"  {local}.write({source}.data());")
        else:
            lines.append(f"  std::memset({local}.map<char *>(), 0, {bytes_});")
        if port.is_input:
            lines.append("  " + given.format(target=f"{local}.map<char *>()"))
        lines.append(f"  {local}.sync(XCL_BO_SYNC_BO_TO_DEVICE);")
    return [*lines, f"  run.set_arg({index}, {local});"]


def _image_name(file: str) -> str:
    return "channel_" + file.rpartition("/")[2].removesuffix(".bin").replace("-", "_")


def _register(ctype: str, size: int) -> str:
    """A type every host compiler has for a scalar argument of that many bytes."""
    native = ctype.endswith("_t") or ctype in {"bool", "int", "float", "double"}
    return ctype if native else f"std::uint{8 * min(size, 8)}_t"

"""``testbench.cpp`` and ``host.cpp``: the program around the kernel, in simulation and on the card."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from math import prod
from string import Template

from ...ir import nodes as ir
from .interface import is_memory_port
from .types import needs_ap, storage_type


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


def ports(
    top: ir.Function, names: list[str], stored: Set[str], data: Set[str], golden: Set[str]
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
        )
        for b, name in zip(top.params, names, strict=True)
    ]


_TESTBENCH = Template(
    r"""// Runs the kernel on data/*.bin and compares every result with data/golden_*.bin, bit for bit.
// Usage: testbench [data folder]
#include "kernel.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

static std::string folder = "data";

static void read_file(const std::string &name, void *target, size_t bytes) {
  std::string path = folder + "/" + name;
  FILE *file = std::fopen(path.c_str(), "rb");
  size_t got = file ? std::fread(target, 1, bytes, file) : 0;
  bool more = file && std::fgetc(file) != EOF;
  if (file) std::fclose(file);
  if (!file || got != bytes || more) {
    std::fprintf(stderr, "FAIL: %s does not hold %zu bytes\n", path.c_str(), bytes);
    std::exit(2);
  }
}

// Elements in memory of their own, zero at first.
template <typename T>
struct Memory {
  std::vector<T> elements;
  explicit Memory(size_t count) : elements(count) { std::memset((void *)elements.data(), 0, bytes()); }
  size_t bytes() const { return elements.size() * sizeof(T); }
  T *data() { return elements.data(); }
  void load(const std::string &name) { read_file(name, (void *)elements.data(), bytes()); }
};
// std::vector<bool> is packed; the kernel wants one byte per element.
template <>
struct Memory<bool> {
  std::vector<unsigned char> elements;
  explicit Memory(size_t count) : elements(count, 0) {}
  size_t bytes() const { return elements.size(); }
  bool *data() { return (bool *)elements.data(); }
  void load(const std::string &name) { read_file(name, elements.data(), bytes()); }
};

template <typename T>
static bool same(const T &a, const T &b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}
$same
template <typename T>
static int compare(const char *name, Memory<T> &got, const std::string &file) {
  Memory<T> want(got.elements.size());
  want.load(file);
  size_t wrong = 0, first = 0;
  for (size_t i = 0; i < got.elements.size(); i++) {
    if (same(got.data()[i], want.data()[i])) continue;
    if (wrong++ == 0) first = i;
  }
  if (wrong == 0) {
    std::printf("%s: %zu elements equal\n", name, got.elements.size());
    return 0;
  }
  const unsigned char *a = (const unsigned char *)&got.data()[first];
  const unsigned char *b = (const unsigned char *)&want.data()[first];
  std::printf("%s: %zu of %zu elements differ, the first at %zu: got 0x", name, wrong, got.elements.size(), first);
  for (size_t i = sizeof(T); i-- > 0;) std::printf("%02x", a[i]);
  std::printf(", expected 0x");
  for (size_t i = sizeof(T); i-- > 0;) std::printf("%02x", b[i]);
  std::printf("\n");
  return 1;
}

int main(int argc, char **argv) {
  if (argc > 1) folder = argv[1];
$setup
  $top($args);

  int failures = 0;
$checks
  std::printf(failures ? "FAIL\n" : "$verdict\n");
  return failures != 0;
}
"""
)

_SAME_AP = """\
// Unused bits of ap_ types have no meaning.
template <int W> static bool same(const ap_int<W> &a, const ap_int<W> &b) { return a == b; }
template <int W> static bool same(const ap_uint<W> &a, const ap_uint<W> &b) { return a == b; }
template <int W, int I> static bool same(const ap_fixed<W, I> &a, const ap_fixed<W, I> &b) { return a == b; }
template <int W, int I> static bool same(const ap_ufixed<W, I> &a, const ap_ufixed<W, I> &b) { return a == b; }
"""


def testbench(top: str, all_ports: list[Port]) -> str:
    """The C++ test bench of a project."""
    setup: list[str] = []
    checks: list[str] = []
    for port in all_ports:
        setup.append(f"  Memory<{port.ctype} > {port.name}_({port.count});")
        if port.has_data:
            setup.append(f'  {port.name}_.load("{port.name}.bin");')
        if port.has_golden:
            checks.append(f'  failures += compare("{port.name}", {port.name}_, "golden_{port.name}.bin");')
    args = [f"{p.name}_.data()" if p.is_memory else f"*{p.name}_.data()" for p in all_ports]
    return _TESTBENCH.substitute(
        same=_SAME_AP if any(p.wide for p in all_ports) else "",
        setup="\n".join(setup),
        top=top,
        args=", ".join(args),
        checks="\n".join(checks) or "  // The project was built without expected results.",
        verdict="PASS" if checks else "DONE: there are no expected results to compare with",
    )


_HOST = Template(
    r"""// Runs the kernel on a card through XRT: loads data/*.bin, times the run, writes out_*.bin and compares
// them with data/golden_*.bin. Usage: host <file.xclbin> [device index] [data folder]
#include <xrt/xrt_bo.h>
#include <xrt/xrt_device.h>
#include <xrt/xrt_kernel.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

static std::vector<char> read_file(const std::string &path, size_t bytes) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> data{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (data.size() != bytes) throw std::runtime_error(path + " does not hold " + std::to_string(bytes) + " bytes");
  return data;
}

static int check(const std::string &folder, const std::string &name, xrt::bo &bo, size_t bytes, bool golden) {
  bo.sync(XCL_BO_SYNC_BO_FROM_DEVICE);
  const char *got = bo.map<const char *>();
  std::ofstream("out_" + name + ".bin", std::ios::binary).write(got, bytes);
  if (!golden) return 0;
  std::vector<char> want = read_file(folder + "/golden_" + name + ".bin", bytes);
  bool equal = std::memcmp(got, want.data(), bytes) == 0;
  std::printf("%s: %s\n", name.c_str(), equal ? "equal" : "DIFFERENT");
  return equal ? 0 : 1;
}

int main(int argc, char **argv) try {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s file.xclbin [device index] [data folder]\n", argv[0]);
    return 2;
  }
  const std::string folder = argc > 3 ? argv[3] : "data";
  xrt::device device(argc > 2 ? std::stoi(argv[2]) : 0);
  auto uuid = device.load_xclbin(argv[1]);
  xrt::kernel kernel(device, uuid, "$top");
  xrt::run run(kernel);
$setup
  auto begin = std::chrono::steady_clock::now();
  run.start();
  run.wait();
  std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - begin;
  std::printf("$top: %.3f ms\n", time.count());

  int failures = 0;
$checks
  std::printf(failures ? "FAIL\n" : "PASS\n");
  return failures != 0;
} catch (const std::exception &error) {
  std::fprintf(stderr, "host: %s\n", error.what());
  return 1;
}
"""
)


def host(top: str, all_ports: list[Port], element_bytes: list[int]) -> str:
    """The XRT host program of a project."""
    setup: list[str] = []
    checks: list[str] = []
    for index, (port, size) in enumerate(zip(all_ports, element_bytes, strict=True)):
        bytes_ = port.count * size
        source = f'read_file(folder + "/{port.name}.bin", {bytes_})'
        if not port.is_memory:
            setup.append(f"  {_register(port.ctype, size)} {port.name} = {{}};")
            if port.has_data:
                setup.append(f"  std::memcpy(&{port.name}, {source}.data(), {bytes_});")
            setup.append(f"  run.set_arg({index}, {port.name});")
            continue
        setup.append(f"  xrt::bo {port.name}(device, {bytes_}, kernel.group_id({index}));")
        if port.has_data:
            setup.append(f"  {port.name}.write({source}.data());")
        else:
            setup.append(f"  std::memset({port.name}.map<char *>(), 0, {bytes_});")
        setup.append(f"  {port.name}.sync(XCL_BO_SYNC_BO_TO_DEVICE);")
        setup.append(f"  run.set_arg({index}, {port.name});")
        if port.is_output:
            golden = "true" if port.has_golden else "false"
            checks.append(f'  failures += check(folder, "{port.name}", {port.name}, {bytes_}, {golden});')
    return _HOST.substitute(top=top, setup="\n".join(setup), checks="\n".join(checks))


def _register(ctype: str, size: int) -> str:
    """A type every host compiler has for a scalar argument of that many bytes."""
    native = ctype.endswith("_t") or ctype in {"bool", "int", "float", "double"}
    return ctype if native else f"std::uint{8 * min(size, 8)}_t"

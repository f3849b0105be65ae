"""Bytes that a compiled program reads and writes, where its compiler does not count.

Each operand and each result of each instruction of the program's entry, once: a fused
operation is one instruction, and what is inside of it stays on the chip. XLA counts for
other devices in the same way.
"""

import re
from math import prod

INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?(\S+) = (\(.*?\)|\S+) ([a-z][\w-]*)\((.*?)\)")
OPERAND = re.compile(r"%([\w.-]+)")
SHAPE = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
# names for what is there already, and what only begins or ends another one
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}
WORKSPACE = ("s8", "u8")  # of libraries: no network here has numbers of this type


def bytes_accessed(text: str) -> float:
    """Of one device, in the text of a compiled program, which begins with HloModule.

    Loops and conditions count what goes into and comes out of them.
    """
    sizes: dict[str, int] = {}
    total = 0.0
    entry = text[text.index("\nENTRY ") :].splitlines()[2:]
    for line in entry:
        match = INSTRUCTION.match(line)
        if match is None:
            continue
        name, shape, operation, operands = match.groups()
        sizes[name] = _size(shape)
        if operation not in FREE and not operation.endswith("-done"):
            read = dict.fromkeys(OPERAND.findall(operands))
            total += sizes[name] + sum(sizes.get(operand, 0) for operand in read)
    return total


def _size(shape: str) -> int:
    return sum(
        prod(int(n) for n in extent.split(",") if n) * max(1, int(bits or 8) // 8)
        for kind, bits, extent in SHAPE.findall(shape)
        if kind not in WORKSPACE
    )

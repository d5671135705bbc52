"""Reads a pickle as data: a small machine for the opcodes that network pickles use, which never calls anything.

Python's own unpickler runs what a file tells it to, and reserves the memory a file claims to need. This one turns
globals into names, calls into records of calls, and bytes into views of the file; every length is checked against the
bytes that are there, and the number of steps is limited. What a name or a call means, the caller decides afterwards.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NoReturn

from galatea.eg3d.pickle_records import Budget, Call, Name, PersistentId
from galatea.errors import WeightsError

MAX_TEXT_BYTES = 1 << 22
TEXT_BYTES_PER_STEP = 64
"""Long texts (embedded source) count as several steps, so that their sum is limited, too."""

_MARK = object()


class PickleReader:
    """Reads one pickle after another from a buffer.

    Args:
        data: the bytes.
        allowed: globals that may occur; the first other one is refused by name.
        budget: shared limit of steps.
        start: where the first pickle begins.
    """

    def __init__(self, data: memoryview, allowed: frozenset[str], budget: Budget, start: int = 0) -> None:
        self.data, self.allowed, self.budget, self.position = data, allowed, budget, start
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def read(self) -> Any:
        """Return the value of the next pickle.

        Raises:
            WeightsError: if it is truncated, malformed, or asks for something that is not allowed.
        """
        self.stack, self.memo = [], {}
        while True:
            self.budget.spend()
            opcode = self.take(1)[0]
            if opcode == 0x2E:  # STOP
                return self.pop()
            handler = _HANDLERS.get(opcode)
            if handler is None:
                self.fail(f"instruction 0x{opcode:02x} is not one that network pickles use")
            handler(self)

    def fail(self, reason: str) -> NoReturn:
        """Refuse the pickle."""
        raise WeightsError(f"pickle, byte {self.position}: refused: {reason}")

    def take(self, count: int) -> memoryview:
        """Return the next bytes without copying them."""
        if count < 0 or count > len(self.data) - self.position:
            self.fail(f"truncated or damaged: {count} bytes announced, {len(self.data) - self.position} left")
        self.position += count
        return self.data[self.position - count : self.position]

    def number(self, layout: str) -> Any:
        """Return one number of a struct layout."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def text(self, count: int) -> str:
        """Return a string of so many bytes."""
        if count > MAX_TEXT_BYTES:
            self.fail(f"a text of {count} bytes")
        self.budget.spend(count // TEXT_BYTES_PER_STEP)
        try:
            return str(self.take(count), "utf-8", "surrogatepass")
        except UnicodeDecodeError:
            self.fail("damaged text")

    def line(self) -> str:
        """Return a text that ends with a line break."""
        window = bytes(self.data[self.position : self.position + 256])
        end = window.find(b"\n")
        if end < 0:
            self.fail("damaged name")
        text = self.text(end)
        self.position += 1
        return text

    def pop(self) -> Any:
        """Return the top of the stack."""
        if not self.stack or self.stack[-1] is _MARK:
            self.fail("damaged: a value is missing")
        return self.stack.pop()

    def top(self) -> Any:
        """Look at the top of the stack."""
        if not self.stack or self.stack[-1] is _MARK:
            self.fail("damaged: a value is missing")
        return self.stack[-1]

    def pop_mark(self) -> list[Any]:
        """Return everything above the last mark."""
        index = len(self.stack) - 1
        while index >= 0 and self.stack[index] is not _MARK:
            index -= 1
        if index < 0:
            self.fail("damaged: a mark is missing")
        items = self.stack[index + 1 :]
        del self.stack[index:]
        return items

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def push_name(self, module: Any, name: Any) -> None:
        """Put a global on the stack as a name, if it is allowed."""
        if not isinstance(module, str) or not isinstance(name, str):
            self.fail("damaged: a global without a name")
        if f"{module}.{name}" not in self.allowed:
            self.fail(f"it asks for {f'{module}.{name}'[:200]!r}, which an EG3D network has no use for")
        self.push(Name(module, name))

    def get_memo(self, index: int) -> None:
        """Put a remembered value on the stack."""
        if index not in self.memo:
            self.fail("damaged: a reference to nothing")
        self.push(self.memo[index])

    def put_memo(self, index: int) -> None:
        """Remember the top of the stack."""
        self.memo[index] = self.top()

    def push_tuple(self, count: int) -> None:
        """Put the last values on the stack as one tuple."""
        values = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(values)))

    def call(self) -> None:
        """Record a call."""
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            self.fail("a call of something that is not a known function")
        self.push(Call(function, arguments))

    def build(self) -> None:
        """Record the state of an object."""
        state, target = self.pop(), self.top()
        if not isinstance(target, Call) or target.state is not None:
            self.fail("damaged: state for something that is not an object")
        target.state = state

    def set_items(self, items: list[Any]) -> None:
        """Put pairs into a dictionary or a dictionary-like object."""
        target = self.top()
        target = target.items if isinstance(target, Call) else target
        if not isinstance(target, dict) or len(items) % 2:
            self.fail("damaged: items for something that is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.check_key(key)
            target[key] = value

    def append(self, items: list[Any]) -> None:
        """Put values into a list."""
        target = self.top()
        if not isinstance(target, list):
            self.fail("damaged: values for something that is not a list")
        target.extend(items)

    def add(self, items: list[Any]) -> None:
        """Put values into a set."""
        target = self.top()
        if not isinstance(target, set):
            self.fail("damaged: values for something that is not a set")
        for item in items:
            self.check_key(item)
            target.add(item)

    def check_key(self, key: object) -> None:
        """Allow plain keys only: nested ones can take for ever to hash."""
        if not isinstance(key, str | int | float | None):
            self.fail(f"a key of type {type(key).__name__}")

    def append_one(self) -> None:
        """Put the top of the stack into the list below it."""
        value = self.pop()
        self.append([value])

    def set_item(self) -> None:
        """Put one pair into the dictionary below it."""
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def stack_global(self) -> None:
        """Put the global named by the two texts on the stack."""
        name, module = self.pop(), self.pop()
        self.push_name(module, name)

    def skip_protocol(self) -> None:
        """Check the protocol number."""
        version = self.take(1)[0]
        if not 2 <= version <= 5:
            self.fail(f"pickle protocol {version}; expected 2 to 5")

    def skip_frame(self) -> None:
        """Pass over the length of a frame: nothing depends on it."""
        self.take(8)


_HANDLERS: dict[int, Callable[[PickleReader], None]] = {
    0x80: PickleReader.skip_protocol,  # PROTO
    0x95: PickleReader.skip_frame,  # FRAME
    0x28: lambda r: r.push(_MARK),  # MARK
    0x94: lambda r: r.put_memo(len(r.memo)),  # MEMOIZE
    0x71: lambda r: r.put_memo(r.number("<B")),  # BINPUT
    0x72: lambda r: r.put_memo(r.number("<I")),  # LONG_BINPUT
    0x68: lambda r: r.get_memo(r.number("<B")),  # BINGET
    0x6A: lambda r: r.get_memo(r.number("<I")),  # LONG_BINGET
    0x4E: lambda r: r.push(None),  # NONE
    0x88: lambda r: r.push(True),  # NEWTRUE
    0x89: lambda r: r.push(False),  # NEWFALSE
    0x4B: lambda r: r.push(r.number("<B")),  # BININT1
    0x4D: lambda r: r.push(r.number("<H")),  # BININT2
    0x4A: lambda r: r.push(r.number("<i")),  # BININT
    0x8A: lambda r: r.push(int.from_bytes(r.take(r.number("<B")), "little", signed=True)),  # LONG1
    0x47: lambda r: r.push(r.number(">d")),  # BINFLOAT
    0x8C: lambda r: r.push(r.text(r.number("<B"))),  # SHORT_BINUNICODE
    0x58: lambda r: r.push(r.text(r.number("<I"))),  # BINUNICODE
    0x43: lambda r: r.push(r.take(r.number("<B"))),  # SHORT_BINBYTES
    0x42: lambda r: r.push(r.take(r.number("<I"))),  # BINBYTES
    0x8E: lambda r: r.push(r.take(r.number("<Q"))),  # BINBYTES8
    0x29: lambda r: r.push(()),  # EMPTY_TUPLE
    0x85: lambda r: r.push_tuple(1),  # TUPLE1
    0x86: lambda r: r.push_tuple(2),  # TUPLE2
    0x87: lambda r: r.push_tuple(3),  # TUPLE3
    0x74: lambda r: r.push(tuple(r.pop_mark())),  # TUPLE
    0x5D: lambda r: r.push([]),  # EMPTY_LIST
    0x61: PickleReader.append_one,  # APPEND
    0x65: lambda r: r.append(r.pop_mark()),  # APPENDS
    0x7D: lambda r: r.push({}),  # EMPTY_DICT
    0x73: PickleReader.set_item,  # SETITEM
    0x75: lambda r: r.set_items(r.pop_mark()),  # SETITEMS
    0x8F: lambda r: r.push(set()),  # EMPTY_SET
    0x90: lambda r: r.add(r.pop_mark()),  # ADDITEMS
    0x63: lambda r: r.push_name(r.line(), r.line()),  # GLOBAL
    0x93: PickleReader.stack_global,  # STACK_GLOBAL
    0x52: PickleReader.call,  # REDUCE
    0x81: PickleReader.call,  # NEWOBJ
    0x62: PickleReader.build,  # BUILD
    0x51: lambda r: r.push(PersistentId(r.pop())),  # BINPERSID
}

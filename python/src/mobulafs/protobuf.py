"""The few bytes of Protocol Buffers that the calls in `namenode` need. Knows no message and no socket.

A message is written from pairs of field number and value and read into a dict of lists; what a number means stands
with the call that uses it.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Fields", "decode", "delimited", "encode", "number", "read_varint", "text", "varint", "zigzag"]

Fields = dict[int, list["int | bytes"]]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES_MAX = 10


def varint(value: int) -> bytes:
    """An unsigned number of up to 64 bits."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> int:
    """What `sint32` puts into a varint."""
    return (value << 1) ^ (value >> 31)


def encode(fields: Iterable[tuple[int, int | str | bytes]]) -> bytes:
    """A message of varints and of strings, bytes and messages."""
    out = bytearray()
    for field, value in fields:
        if isinstance(value, int):
            out += varint(field << 3 | _VARINT) + varint(int(value))
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(field << 3 | _BYTES) + varint(len(data)) + data
    return bytes(out)


def delimited(message: bytes) -> bytes:
    """A message behind its length."""
    return varint(len(message)) + message


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends. Raises ValueError if it does not."""
    value = 0
    for shift in range(0, 7 * _VARINT_BYTES_MAX, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number is cut off at byte {at} of {len(data)}")


def decode(data: bytes) -> Fields:
    """All fields of a message. Raises ValueError for what is none."""
    fields: Fields = {}
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        value: int | bytes
        kind = key & 7
        if kind == _VARINT:
            value, at = read_varint(data, at)
        else:
            if kind == _BYTES:
                length, at = read_varint(data, at)
            elif kind in (_FIXED64, _FIXED32):
                length = 8 if kind == _FIXED64 else 4
            else:
                raise ValueError(f"field {key >> 3} has the unknown wire type {kind}")
            if at + length > len(data):
                raise ValueError(f"field {key >> 3} claims {length} bytes, {len(data) - at} are there")
            value = data[at : at + length]
            at += length
        fields.setdefault(key >> 3, []).append(value)
    return fields


def number(fields: Fields, field: int, default: int = 0) -> int:
    """The last number of a field."""
    value = fields.get(field, [default])[-1]
    if not isinstance(value, int):
        raise ValueError(f"field {field} holds bytes, not a number")
    return value


def raw(fields: Fields, field: int) -> bytes:
    """The last bytes of a field; none: empty."""
    value = fields.get(field, [b""])[-1]
    if not isinstance(value, bytes):
        raise ValueError(f"field {field} holds a number, not bytes")
    return value


def text(fields: Fields, field: int) -> str:
    """The last string of a field; none: empty."""
    return raw(fields, field).decode(errors="replace")


def messages(fields: Fields, field: int) -> list[Fields]:
    """All messages of a repeated field."""
    return [decode(value) for value in fields.get(field, []) if isinstance(value, bytes)]

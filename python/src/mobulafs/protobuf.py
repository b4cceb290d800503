"""The few bytes of Protocol Buffers that the calls in `namenode` need. Knows no message and no socket.

A message is written from pairs of field number and value and read into a dict of lists; what a number means stands
with the call that uses it.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Fields", "decode", "delimited", "encode", "message", "number", "read_varint", "text", "varint", "zigzag"]

Fields = dict[int, list["int | bytes"]]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES_MAX = 10


#: Most numbers have one byte.
_ONE_BYTE = [bytes((value,)) for value in range(0x80)]


def varint(value: int) -> bytes:
    """An unsigned number of up to 64 bits."""
    if value < 0x80:
        return _ONE_BYTE[value]
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
    out: list[bytes] = []
    for field, value in fields:
        if isinstance(value, int):
            out += varint(field << 3 | _VARINT), varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(field << 3 | _BYTES), varint(len(data)), data
    return b"".join(out)


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
    end = len(data)
    try:
        while at < end:
            # Numbers of one byte, which most are, are read here and not by a call.
            key = data[at]
            at += 1
            if key >= 0x80:
                key, at = read_varint(data, at - 1)
            value: int | bytes
            kind = key & 7
            if kind == _VARINT:
                value = data[at]
                at += 1
                if value >= 0x80:
                    value, at = read_varint(data, at - 1)
            else:
                if kind == _BYTES:
                    length = data[at]
                    at += 1
                    if length >= 0x80:
                        length, at = read_varint(data, at - 1)
                elif kind in (_FIXED64, _FIXED32):
                    length = 8 if kind == _FIXED64 else 4
                else:
                    raise ValueError(f"field {key >> 3} has the unknown wire type {kind}")
                if at + length > end:
                    raise ValueError(f"field {key >> 3} claims {length} bytes, {end - at} are there")
                value = data[at : at + length]
                at += length
            found = fields.get(key >> 3)
            if found is None:
                fields[key >> 3] = [value]
            else:
                found.append(value)
    except IndexError:
        raise ValueError(f"a number is cut off at byte {end} of {end}") from None
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


def message(fields: Fields, field: int) -> Fields:
    """The first message of a field. Raises ValueError if there is none."""
    for value in fields.get(field, []):
        if isinstance(value, bytes):
            return decode(value)
    raise ValueError(f"field {field} is missing")

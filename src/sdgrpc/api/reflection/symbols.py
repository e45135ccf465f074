"""Which file holds a symbol: all of the protocol's symbols, methods and enum values too.

The protocol takes any fully-qualified symbol, `<package>.<service>[.<method>]` or `<package>.<type>`
(https://github.com/grpc/grpc-proto/blob/master/grpc/reflection/v1/reflection.proto). Protobuf's own pool
finds no methods, and enum values only beside their type.
"""

from __future__ import annotations

from typing import Any, cast

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import Default, DescriptorPool


def symbol_pool() -> DescriptorPool:
    """What reflection's servicers look symbols up in."""
    return cast("DescriptorPool", SymbolPool())


class SymbolPool:
    """Protobuf's default pool, as reflection's servicers use one, which knows every symbol."""

    def __init__(self) -> None:
        self._pool: Any = Default()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the pool has
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 - the pool's name
        """Return the file that holds a symbol; raises KeyError where none does."""
        try:
            found: FileDescriptor = self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._file_of_member(symbol)
        return found

    def _file_of_member(self, symbol: str) -> FileDescriptor:
        """The same for a service's methods and an enum's values."""
        owner, _, member = symbol.rpartition(".")
        for find, members in (
            (self._pool.FindServiceByName, "methods_by_name"),
            (self._pool.FindEnumTypeByName, "values_by_name"),
        ):
            try:
                descriptor = find(owner)
            except KeyError:
                continue
            if member in getattr(descriptor, members):
                file: FileDescriptor = descriptor.file
                return file
        raise KeyError(f"no symbol {symbol!r}")

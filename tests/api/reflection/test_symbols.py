"""Every symbol of the contract, asked of a running server as load testers and IDEs do."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2

from sdgrpc.api.reflection.symbols import SymbolPool
from sdgrpc.v1 import catalog_pb2, diffusion_pb2
from tests.support.api import FakeEngine, running_api

VERSIONS = ("v1", "v1alpha")


def symbols_of(file: FileDescriptor) -> set[str]:
    """Return every name of a file that the protocol lets tools ask for."""
    found = set()
    for service in file.services_by_name.values():
        found |= {service.full_name, *(method.full_name for method in service.methods)}
    for enum in file.enum_types_by_name.values():
        found.add(enum.full_name)
        found |= {f"{enum.full_name}.{value.name}" for value in enum.values}
        found |= {f"{file.package}.{value.name}" for value in enum.values}
    for message in file.message_types_by_name.values():
        found |= members_of(message)
    return found


def members_of(message: Descriptor) -> set[str]:
    found = {message.full_name, *(field.full_name for field in message.fields)}
    for nested in message.nested_types:
        found |= members_of(nested)
    return found | {oneof.full_name for oneof in message.oneofs}


@pytest.mark.parametrize("module", [diffusion_pb2, catalog_pb2])
def test_every_symbol_has_its_file(module) -> None:
    """Services, methods, messages, fields, oneofs, enums and their values, each in the file it stands in."""
    symbols = symbols_of(module.DESCRIPTOR)
    assert len(symbols) > 100
    pool = SymbolPool()
    wrong = {name for name in symbols if pool.FindFileContainingSymbol(name).name != module.DESCRIPTOR.name}
    assert not wrong


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Generate",
        "sdgrpc.v1",
        "sdgrpc.v1.DiffusionService.Draw",
        "sdgrpc.v1.Scheduler.NONE",
        "sdgrpc.v1.Lora.nope",
        "sdgrpc.v1.DiffusionService.Generate.more",
        ".sdgrpc.v1.DiffusionService.",
    ],
)
def test_what_is_no_symbol_is_not_found(name: str) -> None:
    """Near misses are none."""
    with pytest.raises(KeyError):
        SymbolPool().FindFileContainingSymbol(name)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_method_is_answered_with_the_file_of_its_service(version: str) -> None:
    """In both versions of the protocol; what is unknown is NOT_FOUND and the stream goes on."""
    async with running_api(FakeEngine()) as api:
        call = api.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )()

        async def ask(symbol: str) -> reflection_pb2.ServerReflectionResponse:
            await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
            return await call.read()  # type: ignore[return-value]

        missing = await ask("sdgrpc.v1.DiffusionService.Draw")
        assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
        for symbol, service in (
            ("sdgrpc.v1.DiffusionService.Generate", "DiffusionService"),
            ("sdgrpc.v1.CatalogService.WatchStatus", "CatalogService"),
            ("grpc.health.v1.Health.Check", "Health"),
        ):
            files = (await ask(symbol)).file_descriptor_response.file_descriptor_proto
            first = FileDescriptorProto.FromString(files[0])
            assert service in [each.name for each in first.service], symbol
        await call.done_writing()

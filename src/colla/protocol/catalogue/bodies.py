"""The bodies of the catalogue's records. Part of the storage and wire format.

What is wanted of a service is spread over keys of one subject, the service's id, so that concurrent changes of
different matters do not meet: `spec` (what it is), `wanted` (active or not), `replicas` (how many), `adopted` (whose it is now),
`delegates` (who else may change it), `gone` (the tombstone, without a body); and one key for each `secret` (see
`protocol/secrets/bodies`). The id is a hash over the owner's key and 16 random bytes, which every
specification carries: so nobody can take a service over by writing a specification in its name.

Bodies of other kinds are kept and forwarded, whatever they hold.
"""

from __future__ import annotations

from random import Random
from typing import Annotated

import msgspec
from msgspec import Meta

from colla.model.errors import CollaError
from colla.model.ids import KEY_BYTES, RANDOM_ID_BYTES, MemberId, ServiceId, digest
from colla.model.record import Record, Stamp
from colla.model.service import REPLICAS_MAX, Specification, check_name
from colla.protocol.secrets.bodies import KIND_SECRET, check_secret

KIND_SPEC = "spec"
KIND_WANTED = "wanted"
KIND_REPLICAS = "replicas"
KIND_GONE = "gone"
KIND_ADOPTED = "adopted"
KIND_DELEGATES = "delegates"
KINDS: tuple[str, ...] = (KIND_SPEC, KIND_WANTED, KIND_REPLICAS, KIND_ADOPTED, KIND_DELEGATES, KIND_GONE)
DELEGATES_MAX = 64
VERSION_MAX = 2**53


class Specified(msgspec.Struct, frozen=True, array_like=True):
    """The body of `spec`. `claimed` is the stamp with which the name was first claimed; None: this record's."""

    nonce: bytes
    claimed: Stamp | None
    specification: Specification


class Wanted(msgspec.Struct, frozen=True, array_like=True):
    """The body of `wanted`."""

    active: bool


class Replicas(msgspec.Struct, frozen=True, array_like=True):
    """The body of `replicas`."""

    count: int


_Member = Annotated[MemberId, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]


class Adopted(msgspec.Struct, frozen=True, array_like=True):
    """The body of `adopted`: the service is that member's now."""

    owner: _Member


class Delegates(msgspec.Struct, frozen=True, array_like=True):
    """The body of `delegates`: these members may change the service as its owner may."""

    members: Annotated[tuple[_Member, ...], Meta(max_length=DELEGATES_MAX)]


_encoder = msgspec.msgpack.Encoder()
_specification = msgspec.msgpack.Decoder(Specification)
_specified = msgspec.msgpack.Decoder(Specified)
_wanted = msgspec.msgpack.Decoder(Wanted)
_replicas = msgspec.msgpack.Decoder(Replicas)
_adopted = msgspec.msgpack.Decoder(Adopted)
_delegates = msgspec.msgpack.Decoder(Delegates)


def new_service_id(rng: Random, owner: MemberId) -> tuple[ServiceId, bytes]:
    """A fresh id for a service of `owner`, and the random bytes that prove it."""
    nonce = rng.randbytes(RANDOM_ID_BYTES)
    return service_id(owner, nonce), nonce


def service_id(owner: MemberId, nonce: bytes) -> ServiceId:
    """The id of the service of `owner` with these random bytes."""
    return ServiceId(digest(owner + nonce)[:RANDOM_ID_BYTES])


def encode(body: Specified | Wanted | Replicas | Adopted | Delegates) -> bytes:
    """The bytes that go into the record."""
    return _encoder.encode(body)


def decode_spec(body: bytes) -> Specified:
    """Raises `ValueError`, as do the others."""
    return _specified.decode(body)


def decode_wanted(body: bytes) -> Wanted:
    return _wanted.decode(body)


def decode_replicas(body: bytes) -> Replicas:
    return _replicas.decode(body)


def decode_adopted(body: bytes) -> Adopted:
    return _adopted.decode(body)


def decode_delegates(body: bytes) -> Delegates:
    return _delegates.decode(body)


def check_record(record: Record) -> None:
    """Whether the record may be held: raises `ValueError` when a body of a known kind breaks a rule."""
    kind, subject, body = record.key.kind, record.key.subject, record.body
    if kind == KIND_SECRET:
        check_secret(record)
    if kind not in KINDS:
        return
    if len(subject) != RANDOM_ID_BYTES:
        raise ValueError("the subject is no service's id")
    if kind == KIND_SPEC:
        _check_spec(decode_spec(body), ServiceId(subject))
    elif kind == KIND_WANTED:
        decode_wanted(body)
    elif kind == KIND_REPLICAS:
        if not 1 <= decode_replicas(body).count <= REPLICAS_MAX:
            raise ValueError("the number of replicas is out of bounds")
    elif kind == KIND_ADOPTED:
        decode_adopted(body)
    elif kind == KIND_DELEGATES:
        decode_delegates(body)
    elif body:
        raise ValueError("a tombstone has no body")


def check_specification(specification: Specification) -> None:
    """Raises `CollaError` (`bad_name`, `bad_specification`) saying what cannot be."""
    check_name(specification.name)
    faults = {
        "its owner is no member's key": len(specification.owner) != KEY_BYTES,
        "its object's id is malformed": len(specification.object) != KEY_BYTES,
        "it names no environment": not specification.environment,
        "its version is out of bounds": not 1 <= specification.version <= VERSION_MAX,
        "its health check has no interval": specification.health.interval_s == 0,
    }
    for fault, is_so in faults.items():
        if is_so:
            raise _bad_specification(fault)
    try:
        # The bounds stand at the fields: what was decoded keeps them, what was made here may not.
        _specification.decode(_encoder.encode(specification))
    except (msgspec.MsgspecError, OverflowError) as error:
        raise _bad_specification(str(error)) from None


def _bad_specification(fault: str) -> CollaError:
    return CollaError("bad_specification", f"The specification cannot be: {fault}.", "Correct it.")


def _check_spec(body: Specified, service: ServiceId) -> None:
    if len(body.nonce) != RANDOM_ID_BYTES or service_id(body.specification.owner, body.nonce) != service:
        raise ValueError("the service's id is not its owner's")
    try:
        check_specification(body.specification)
    except CollaError as error:
        raise ValueError(str(error)) from None

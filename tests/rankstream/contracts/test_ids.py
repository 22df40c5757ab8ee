"""Partitions agree with other clients of Kafka; ids hash and sort as they should."""

from __future__ import annotations

from uuid import UUID

from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st

from rankstream.contracts.ids import id64, murmur2, new_id, partition_of


@given(st.binary(max_size=64))
def test_murmur2_equals_that_of_aiokafka(key: bytes) -> None:
    assert murmur2(key) & 0xFFFFFFFF == aiokafka_murmur2(key) & 0xFFFFFFFF


def test_murmur2_equals_the_vectors_of_the_java_client() -> None:
    # org.apache.kafka.common.utils.UtilsTest.testMurmur2
    vectors = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }

    assert {key: murmur2(key) for key in vectors} == vectors


@given(st.text(st.characters(codec="utf-8")), st.integers(1, 200))
def test_a_partition_is_one_of_those_there_are(key: str, partitions: int) -> None:
    assert 0 <= partition_of(key, partitions) < partitions


@given(st.text(st.characters(codec="utf-8")))
def test_a_hash_fits_64_unsigned_bits(text: str) -> None:
    assert 0 <= id64(text) < 1 << 64


def test_fresh_ids_are_uuid7_in_order() -> None:
    ids = [new_id() for _ in range(1_000)]

    assert sorted(ids) == ids
    assert len(set(ids)) == len(ids)
    assert {UUID(text).version for text in ids} == {7}

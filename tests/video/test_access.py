"""Where decoding an H.264 stream may begin, by the bits of the stream (ITU-T H.264, 7.3.2.3, D.1.8)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcr1.video.access import h264_starts_afresh

IDR, SLICE, DELIMITER = b"\x65\x88", b"\x61\x9a", b"\x09\x10"
# SEI of kind 6 and 1 byte: ue(0) is the bit 1, ue(1) the bits 010; then exact_match_flag, broken_link_flag.
AT_ONCE, INEXACT, BROKEN, LATER = (b"\x06\x06\x01" + bytes([bits]) for bits in (0xC4, 0x84, 0xE4, 0x50))
OTHER = b"\x06\x05\x02ab\x80"


def by_length(*units: bytes) -> bytes:
    return b"".join(len(unit).to_bytes(4) + unit for unit in units)


def by_code(*units: bytes) -> bytes:
    return b"".join(b"\0\0\0\1" + unit for unit in units)


@pytest.mark.parametrize(
    ("units", "fresh"),
    [
        ((DELIMITER, IDR), True),
        ((SLICE,), False),
        ((AT_ONCE, SLICE), True),
        ((INEXACT, SLICE), False),
        ((BROKEN, SLICE), False),
        ((LATER, SLICE), False),  # an intra-refresh: whole only so many frames later
        ((OTHER, AT_ONCE, SLICE), True),
        ((b"\x06\x05\x02ab\x06\x01\xc4\x80", SLICE), True),  # two messages in one unit
        ((SLICE, IDR), False),  # the first slice decides
        ((), False),
    ],
)
def test_the_bits_decide(units: tuple[bytes, ...], fresh: bool) -> None:
    assert h264_starts_afresh(by_length(*units), 4) is fresh
    assert h264_starts_afresh(by_code(*units), 0) is fresh


@given(st.binary(max_size=200), st.sampled_from([0, 1, 2, 4]))
def test_rubbish_is_answered(content: bytes, width: int) -> None:
    assert h264_starts_afresh(content, width) in (True, False)

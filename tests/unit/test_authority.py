import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrace.authority import split_authority


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("shop", ("shop", 0)),
        ("shop:99", ("shop", 99)),
        ("user:word@shop:99", ("shop", 99)),
        ("[::1]", ("::1", 0)),
        ("[::1]:99", ("::1", 99)),
        ("::1", ("::1", 0)),
        ("shop:", ("shop", 0)),
        ("shop:0", ("shop", 0)),
        ("shop:65536", ("shop", 0)),
        ("shop:http", ("shop", 0)),
        ("shop:²", ("shop", 0)),
        ("", ("", 0)),
    ],
)
def test_an_authority_is_split(authority: str, expected: tuple[str, int]) -> None:
    assert split_authority(authority) == expected


@given(st.text())
def test_any_text_gives_a_host_and_a_port_that_can_be(text: str) -> None:
    _, port = split_authority(text)
    assert 0 <= port < 65536

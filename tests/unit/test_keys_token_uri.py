"""`TokenUri`: what RFC 7512 allows, what is needed of it, and that no PIN is ever in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.errors import ConfigurationError
from locum.keys.token_uri import MAX_URI, MAX_VALUE, TokenUri

MODULE = "module-path=/usr/lib/x.so"


def test_everything_that_can_be_said() -> None:
    uri = TokenUri.parse(
        "pkcs11:token=The%20Software;manufacturer=Snake%20Oil;model=1.0;serial=DECAFBAD;slot-id=17;object=my-key;"
        f"id=%69%00%fF;type=private?{MODULE}&pin-source=file:/etc/token_pin"
    )
    assert uri == TokenUri(
        module="/usr/lib/x.so",
        pin_file="/etc/token_pin",
        token="The Software",
        manufacturer="Snake Oil",
        model="1.0",
        serial="DECAFBAD",
        slot=17,
        object="my-key",
        id=b"i\0\xff",
    )
    assert uri.place == "pkcs11:token=The%20Software;manufacturer=Snake%20Oil;model=1.0;serial=DECAFBAD;slot-id=17"
    assert TokenUri.parse(str(uri)) == uri


@pytest.mark.parametrize("source", ["file:/a/pin", "file:///a/pin", "/a/pin", "//a/pin"])
def test_pin_file_has_several_forms(source: str) -> None:
    assert TokenUri.parse(f"pkcs11:object=k?{MODULE}&pin-source={source}").pin_file == "/a/pin"


def test_without_a_pin_file_there_is_no_login() -> None:
    uri = TokenUri.parse(f"pkcs11:object=k?{MODULE}")
    assert uri.pin_file == ""
    assert str(uri) == f"pkcs11:object=k;type=private?{MODULE}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "begins with"),
        ("https://example.com", "begins with"),
        ("pkcs11:" + "x" * MAX_URI, "at most"),
        (f"pkcs11:object=k?{MODULE}&pin-value=1234", "a PIN does not belong"),
        ("pkcs11:object=k", "names no library"),
        (f"pkcs11:?{MODULE}", "names no key"),
        (f"pkcs11:token=t?{MODULE}", "names no key"),
        (f"pkcs11:object=k;type=public?{MODULE}", "type=private"),
        (f"pkcs11:object=k;object=l?{MODULE}", "twice"),
        (f"pkcs11:object={'k' * (MAX_VALUE + 1)}?{MODULE}", "too long"),
        (f"pkcs11:object=k;colour=red?{MODULE}", "not known: 'colour'"),
        (f"pkcs11:object=k?{MODULE}&colour=red", "not known"),
        (f"pkcs11:object?{MODULE}", "NAME=VALUE"),
        (f"pkcs11:object=k;?{MODULE}", "NAME=VALUE"),
        (f"pkcs11:object=%4?{MODULE}", "NAME=VALUE"),
        (f"pkcs11:object=a b?{MODULE}", "NAME=VALUE"),
        (f"pkcs11:object=%ff?{MODULE}", "not UTF-8"),
        (f"pkcs11:object=%0a?{MODULE}", "unprintable"),
        (f"pkcs11:object=k;slot-id=x?{MODULE}", "slot-id"),
        (f"pkcs11:object=k;slot-id=?{MODULE}", "slot-id"),
        (f"pkcs11:object=k;slot-id=18446744073709551616?{MODULE}", "slot-id"),
        ("pkcs11:object=k?module-path=x.so", "absolute"),
        (f"pkcs11:object=k?{MODULE}&pin-source=pin", "absolute"),
        (f"pkcs11:object=k?{MODULE}&pin-source=file://host/pin", "another host"),
        (f"pkcs11:object=k?{MODULE}&pin-source=|/bin/cat", "absolute"),
    ],
)
def test_other_uris_are_configuration_errors(text: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as error:
        TokenUri.parse(text)
    assert "1234" not in str(error.value)


_NAMES = st.text(st.characters(exclude_categories=("C", "Z")), max_size=20)


@given(_NAMES, _NAMES.filter(bool), st.binary(max_size=20), st.none() | st.integers(0, (1 << 64) - 1))
def test_what_is_written_is_read_again(token: str, label: str, identifier: bytes, slot: int | None) -> None:
    uri = TokenUri(module=f"/m{token}", pin_file=f"/p{label}", token=token, object=label, id=identifier, slot=slot)
    assert TokenUri.parse(str(uri)) == uri

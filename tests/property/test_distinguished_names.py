"""Distinguished names: whatever a certificate can carry has one normal form, and random text one or none."""

from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from locum.errors import ConfigurationError
from locum.names import normalize_distinguished_name

TYPES = st.sampled_from(
    [NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.USER_ID, NameOID.EMAIL_ADDRESS, NameOID.SERIAL_NUMBER]
)
VALUE = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda text: text.strip()
)
ATTRIBUTE = st.builds(x509.NameAttribute, TYPES, VALUE)
RDN = st.lists(ATTRIBUTE, min_size=1, max_size=3, unique_by=lambda each: each.oid).map(
    x509.RelativeDistinguishedName
)
NAME = st.lists(RDN, min_size=1, max_size=4).map(x509.Name)


def folded(name: x509.Name) -> list[list[tuple[str, str]]]:
    """What X.500 compares: types, and values without case and without extra spaces, in the order of RFC 4514."""
    return [
        sorted((each.oid.dotted_string, " ".join(str(each.value).casefold().split())) for each in rdn)
        for rdn in reversed(name.rdns)
    ]


@given(NAME)
def test_the_name_of_a_certificate_has_a_normal_form_that_says_the_same(name: x509.Name) -> None:
    normal = normalize_distinguished_name(name.rfc4514_string())
    assert normalize_distinguished_name(normal) == normal
    assert folded(x509.Name.from_rfc4514_string(normal)) == folded(name)


@given(NAME, NAME)
def test_names_have_the_same_normal_form_exactly_when_they_are_the_same(one: x509.Name, other: x509.Name) -> None:
    first, second = (normalize_distinguished_name(name.rfc4514_string()) for name in (one, other))
    assert (first == second) == (folded(one) == folded(other))


@given(NAME, st.data())
def test_case_and_spaces_and_the_order_within_an_rdn_are_not_part_of_a_name(
    name: x509.Name, data: st.DataObject
) -> None:
    shuffled = x509.Name(
        x509.RelativeDistinguishedName(
            x509.NameAttribute(each.oid, f" {str(each.value).casefold()} ")
            for each in data.draw(st.permutations(list(rdn)))
        )
        for rdn in name.rdns
    )
    assert normalize_distinguished_name(shuffled.rfc4514_string()) == normalize_distinguished_name(
        name.rfc4514_string()
    )


@given(st.text(max_size=60) | st.text('CNO=+,#\\\\ 0aF"\\x1b', max_size=30).map("CN=".__add__))
@example("CN=\\\\\\")
@example("CN=\udc80")
def test_any_text_is_a_name_with_a_normal_form_or_a_configuration_error(text: str) -> None:
    try:
        normal = normalize_distinguished_name(text)
    except ConfigurationError as error:
        assert "\n" not in str(error)
        return
    assert normal.isprintable()
    assert normalize_distinguished_name(normal) == normal

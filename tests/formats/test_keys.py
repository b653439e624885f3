"""Exchange keys (F4): derivation against RFC 5869, tags, and what a key file may look like."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from ledger.catalog import Catalog, parse_catalog
from ledger.errors import InputError
from ledger.keys import CatalogKeys, ExchangeKey, commitment, hkdf, parse_key, public_subject_tag

TEXT = """
id = "permits"
version = 1
key = ["k"]
subject = { field = "s", visibility = "public", public_pattern = "9[0-9]{2}" }
[[field]]
name = "k"
type = "text"
[[field]]
name = "s"
type = "text"
"""
SUBJECT = 'subject = { field = "s", visibility = "public", public_pattern = "9[0-9]{2}" }'
KEY = ExchangeKey(bytes(range(32)))


def catalog(text: str = TEXT) -> Catalog:
    return parse_catalog(text.encode(), "")


def test_hkdf_gives_the_third_vector_of_rfc_5869() -> None:
    # Appendix A.3: SHA-256, no salt, no info; its first 32 of 42 bytes.
    wanted = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    assert hkdf(b"\x0b" * 22, b"").hex() == wanted


def test_hkdf_binds_its_info() -> None:
    # RFC 5869 section 2.3 by hand: T(1) = HMAC(PRK, info | 0x01).
    prk = hmac.new(b"\x00" * 32, b"k" * 32, hashlib.sha256).digest()
    assert hkdf(b"k" * 32, b"i") == hmac.new(prk, b"i\x01", hashlib.sha256).digest()


@pytest.mark.parametrize("data", [b"0123456789abcdef" * 4, b"0123456789abcdef" * 4 + b"\n"])
def test_a_key_file_is_64_hex_digits_and_maybe_a_line_feed(data: bytes) -> None:
    assert parse_key(data, "1.key").secret.hex() == "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\n", b"0" * 63, b"0" * 65, b"0" * 64 + b"\r\n", b"0" * 64 + b"\n\n", b" " + b"0" * 64, b"0" * 64 + b" ",
        b"A" * 64, b"0x" + b"0" * 62, b"g" * 64, "０".encode() * 64, b"\xef\xbb\xbf" + b"0" * 64, b"0" * 32 + b"\n" + b"0" * 32, b"\xff" * 64,
    ],
)  # fmt: skip
def test_any_other_key_file_is_refused_without_showing_it(data: bytes) -> None:
    with pytest.raises(InputError) as caught:
        parse_key(data, "keys/own/1.key")
    assert (caught.value.code, caught.value.where) == ("key.form", "keys/own/1.key")
    if len(data) >= 32:
        assert data[:32].decode("latin-1") not in str(caught.value) + caught.value.zh


def test_no_secret_shows_in_a_repr() -> None:
    keys = KEY.for_catalog(catalog())
    shown = repr(KEY) + repr(keys)
    for secret in (KEY.secret, keys.commitment, keys.key, keys.subject):
        assert secret.hex() not in shown
        assert repr(secret) not in shown


def test_a_key_has_32_bytes() -> None:
    for size in (0, 31, 33):
        with pytest.raises(ValueError, match="32 bytes"):
            ExchangeKey(b"x" * size)


def test_each_key_depends_on_key_purpose_and_catalog_id_but_not_on_the_version() -> None:
    def four(key: ExchangeKey, text: str) -> list[bytes]:
        keys = key.for_catalog(catalog(text))
        return [keys.commitment, keys.key, keys.subject]

    same = four(KEY, TEXT)
    assert four(KEY, TEXT.replace("version = 1", "version = 2")) == same
    others = [*four(KEY, TEXT.replace('"permits"', '"permit"')), *four(ExchangeKey(b"x" * 32), TEXT)]
    assert len({*same, *others}) == 9


def test_the_public_subject_key_needs_no_exchange_key() -> None:
    keys = [ExchangeKey(secret).for_catalog(catalog()) for secret in (b"a" * 32, b"b" * 32)]
    assert keys[0].subject_tag("912") == keys[1].subject_tag("912") == public_subject_tag(catalog(), "912")
    assert keys[0].subject_tag("812") != keys[1].subject_tag("812")
    # By hand.
    secret = hashlib.sha256(b"duizhang/1/public-subject/permits").digest()
    assert public_subject_tag(catalog(), "912") == hmac.new(secret, b"912", hashlib.sha256).digest()[:16]


def test_a_value_that_does_not_match_in_full_is_tagged_with_the_key() -> None:
    keys = KEY.for_catalog(catalog())
    for value in ("91", "9123", "8912", "９12"):
        tag = hmac.new(keys.subject, value.encode(), hashlib.sha256).digest()[:16]
        assert keys.subject_tag(value) == tag
        with pytest.raises(ValueError, match="not a public subject"):
            public_subject_tag(catalog(), value)


def test_visibility_decides_the_subject_key() -> None:
    protected = KEY.for_catalog(catalog(TEXT.replace('"public"', '"protected"')))
    assert protected.subject_tag("912") == hmac.new(protected.subject, b"912", hashlib.sha256).digest()[:16]
    everything = KEY.for_catalog(catalog(TEXT.replace(', public_pattern = "9[0-9]{2}"', "")))
    assert everything.subject_tag("张三") == public_subject_tag(everything.catalog, "张三")


def test_no_subject_and_a_null_subject_are_16_zero_bytes() -> None:
    without = KEY.for_catalog(catalog(TEXT.replace(SUBJECT, "")))
    assert without.subject_tag("912") == without.subject_tag(None) == bytes(16)
    assert KEY.for_catalog(catalog()).subject_tag(None) == bytes(16)


def test_a_commitment_opens_with_digest_and_salt_alone(keys: CatalogKeys) -> None:
    digest, salt, made = keys.commit(b"x")
    assert digest == hashlib.sha256(b"x").digest()
    assert salt == hmac.new(keys.commitment, digest, hashlib.sha256).digest()
    assert made == commitment(digest, salt) == hashlib.sha256(salt + digest).digest()
    for wrong in ((digest, salt[:-1]), (digest + b"x", salt), (b"", b"")):
        with pytest.raises(ValueError, match="32 bytes"):
            commitment(*wrong)


def test_an_entry_is_tags_and_commitment_in_that_order(keys: CatalogKeys) -> None:
    assert keys.entry(b"a" * 16, b"b" * 16, b"c" * 32) == b"a" * 16 + b"b" * 16 + b"c" * 32
    for wrong in ((b"a" * 15, b"b" * 17, b"c" * 32), (b"a" * 16, b"b" * 32, b"c" * 16), (b"", b"", b"")):
        with pytest.raises(ValueError, match="16 bytes"):
            keys.entry(*wrong)

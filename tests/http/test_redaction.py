"""Which words are hidden in a text or a response, in which spellings, and for how long."""

from __future__ import annotations

import pytest

from embedkit._http.redaction import Redactor, secrets_in
from embedkit.testing import response


def redactor(headers=None, url="http://h/v1"):
    made = Redactor()
    made.add(secrets_in(headers or {}, url))
    return made


@pytest.mark.parametrize(
    ("headers", "url", "text", "expected"),
    [
        ({"authorization": "Bearer sk-1"}, "http://h", "sk-1 is no Bearer", "sk-1 is no Bearer"),
        ({"authorization": "Bearer sk-12345678"}, "http://h", "sk-12345678 is no Bearer", "*** is no Bearer"),
        ({"api-key": "sk-12345"}, "http://h", "no sk-12345", "no ***"),
        ({"content-type": "application/json"}, "http://h", "application/json", "application/json"),
        ({"authorization": "Basic bWU6bXktcGFzc3dvcmQ="}, "http://h", "me:my-password, my-password", "***, ***"),
        ({"authorization": "Basic ?"}, "http://h", "Basic ?", "***"),
        ({"cookie": "a=b; session=12345678; c=d"}, "http://h", "session 12345678 of a", "session *** of a"),
        ({}, "http://me:my-password@h/v1", "my-password or bWU6bXktcGFzc3dvcmQ=", "*** or ***"),
        ({}, "http://h/v1?api-version=2024-10-21&key=abcdefgh", "2024-10-21: abcdefgh", "2024-10-21: ***"),
        ({}, "http://h/v1?code=a%2Fb%2Bcdef", "a%2Fb%2Bcdef a/b+cdef", "*** ***"),
        ({"x-key": "sk-1234/5678"}, "http://h", r"sk-1234\/5678 sk-1234\\/5678 sk-1234%2f5678 sk-1234\u002F5678", "*** *** *** ***"),
        ({"x-key": "sk-1234/5678"}, "http://h", "sk-1234&#47;5678 sk-1234&#x2F;5678 sk%2D1234/5678", "*** *** ***"),
        ({"x-key": "schlüssel"}, "http://h", r"schlüssel schl%C3%BCssel schl\u00fcssel", "*** *** ***"),
        ({"x-key": "sk-12345678", "x-part": "12345678"}, "http://h", "sk-12345678", "***"),
        ({"authorization": "AWS4 Credential=AKIA1234, SignedHeaders=host"}, "http://h", "SignedHeaders=host", "SignedHeaders=host"),
    ],
)  # fmt: skip
def test_what_is_hidden(headers, url, text, expected):
    """Keys, in the forms they are quoted in; not the words around them."""
    assert redactor(headers, url).redact(text) == expected


def test_a_response_without_secrets_is_left_alone():
    """The same object comes back, so that nothing is copied; headers keep their names where something was hidden."""
    plain = response({"data": []}, 200, {"X-Request-Id": "r"})
    quoted = response({"error": "sk-12345678"}, 401, {"X-Request-Id": "sk-12345678"})
    hidden = redactor({"api-key": "sk-12345678"})

    assert hidden.redact_response(plain) is plain
    assert hidden.redact_response(quoted).headers == {"x-request-id": "***"}
    assert bytes(hidden.redact_response(quoted).body) == b'{"error":"***"}'


def test_the_oldest_is_forgotten():
    """A signature for every request does not fill the memory."""
    made = Redactor()
    for number in range(2000):
        made.add([f"signature-{number:05}"])

    assert made.redact("signature-00000 signature-01999") == "signature-00000 ***"
    assert len(made._secrets) <= 300

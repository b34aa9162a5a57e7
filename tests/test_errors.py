"""The error tree: what it looks like, what it carries, how it travels."""

from __future__ import annotations

import copy
import pickle
import re

import pytest

import embedkit
from embedkit import errors
from embedkit.errors import (
    ApiError,
    AuthError,
    ConfigError,
    DecodeError,
    EmbedkitError,
    InvalidInputError,
    NotFoundError,
    QuotaError,
    RateLimitError,
    ServerError,
    TooLargeError,
    TooLongError,
    TransportError,
    TransportTimeoutError,
)

CLASSES = [getattr(errors, name) for name in errors.__all__]
FULL = {
    "status": 429, "code": "slow_down", "provider": "openai", "model": "m-1", "request_id": "req_7", "retryable": True,
    "retry_after": 2.5, "rows": (3, 4), "body": '{"error": 1}',
}  # fmt: skip


def made(kind):
    """An error of this class with every attribute set."""
    if issubclass(kind, ApiError):
        error = kind("it is refused", **FULL)
    elif issubclass(kind, TransportError):
        error = kind("it is refused", retryable=False, rows=(3, 4))
    else:
        error = kind("it is refused", rows=(3, 4))
    error.partial = object()
    error.add_note("seen twice")
    return error


def pickled(protocol=None):
    """A way to travel: through bytes."""
    return lambda value: pickle.loads(pickle.dumps(value, protocol))  # noqa: S301 (our own bytes)


def drawn():
    """(class, its parent) as the docstring of `errors` draws them."""
    above, tree = [], {}
    for line in errors.__doc__.splitlines():
        found = re.match(r"^ {4}([│├└─ ]*)([A-Z]\w+Error)\b", line)
        if found:
            depth = len(found[1]) // 4
            above[depth:] = [found[2]]
            tree[found[2]] = above[depth - 1] if depth else None
    return tree


def test_the_drawn_tree_is_the_real_one():
    """The docstring draws exactly the classes there are, each below its parent."""
    real = {
        kind.__name__: next((base.__name__ for base in kind.__bases__ if issubclass(base, EmbedkitError)), None)
        for kind in CLASSES
    }

    assert real == drawn()


def test_every_error_stands_at_the_door():
    """Every class of the tree is exported by the package, as the same object."""
    assert all(getattr(embedkit, kind.__name__) is kind for kind in CLASSES)
    assert set(errors.__all__) <= set(embedkit.__all__)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, *map(pickled, range(pickle.HIGHEST_PROTOCOL + 1))])
def test_every_error_travels(kind, travel):
    """A copy or a pickle keeps the class and every attribute, notes included, and leaves `partial` behind."""
    error = made(kind)
    twin = travel(error)

    assert type(twin) is kind
    assert {**error.__dict__, "partial": None} == twin.__dict__
    assert (error.args, str(error)) == (twin.args, str(twin))
    assert error.partial is not None


def test_a_subclass_with_its_own_signature_travels():
    """A user's subclass pickles whatever its `__init__` takes."""
    error = Picky(7, why="so")
    twin = pickled()(error)

    assert (twin.number, twin.rows, str(twin)) == (7, (7,), "so (row 7)")


class Picky(InvalidInputError):
    """An error with another signature."""

    def __init__(self, number, *, why):
        super().__init__(why, rows=[number])
        self.number = number


def test_an_api_error_says_everything_in_one_line():
    """str() shows provider, model, status, code, rows, request
    id and the wait asked for, around the provider's message.
    """
    shown = "openai:m-1: it is refused (status 429, code slow_down, rows 3, 4, request id req_7, retry after 2.5 s)"

    assert shown == str(made(RateLimitError))


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({}, "no"),
        ({"status": 500}, "no (status 500)"),
        ({"code": 0, "status": 400}, "no (status 400, code 0)"),
        ({"code": ""}, "no"),
        ({"provider": "tei"}, "tei: no"),
        ({"rows": [9]}, "no (row 9)"),
        ({"rows": range(8)}, "no (rows 0, 1, 2, 3, 4, …)"),
        ({"retry_after": 0.0}, "no (retry after 0 s)"),
        ({"body": "long"}, "no"),
    ],
)
def test_an_api_error_leaves_out_what_it_does_not_know(settings, shown):
    """str() has no empty brackets, no None and no body; many rows are cut short."""
    assert shown == str(ApiError("no", **settings))


def test_other_errors_name_their_rows_too():
    """A DecodeError that knows its rows says them."""
    assert str(DecodeError("NaN came back", rows=[2])) == "NaN came back (row 2)"
    assert str(ConfigError("no key")) == "no key"


def test_rows_are_plain_numbers():
    """Rows given as a numpy array or a generator become a tuple of int."""
    import numpy as np

    rows = InvalidInputError("no", rows=np.flatnonzero([0, 1, 1])).rows

    assert rows == (1, 2)
    assert {int} == set(map(type, rows))


def test_attributes_are_there_on_every_error():
    """`retryable`, `retry_after`, `rows` and `partial` can be read without asking which error it is."""
    for kind in CLASSES:
        error = kind("no")

        assert (error.retry_after, error.rows, error.partial) == (None, (), None)
        assert error.retryable is issubclass(kind, TransportError)


@pytest.mark.parametrize(
    ("kind", "caught_as"),
    [
        (ConfigError, ValueError),
        (TransportTimeoutError, TimeoutError),
        (TransportTimeoutError, TransportError),
        (TooLongError, InvalidInputError),
        *(
            (kind, ApiError)
            for kind in (AuthError, QuotaError, NotFoundError, RateLimitError, TooLargeError, ServerError)
        ),
        *((kind, EmbedkitError) for kind in CLASSES),
    ],
)
def test_errors_are_caught_as_documented(kind, caught_as):
    """Each class is caught under its parents, and under the builtin that means the same."""
    with pytest.raises(caught_as):
        raise made(kind)


def test_siblings_do_not_catch_each_other():
    """A quota is no rate limit, and a refused reply is no refused request."""
    assert not issubclass(QuotaError, RateLimitError)
    assert not issubclass(TooLargeError, InvalidInputError)
    assert not issubclass(DecodeError, ApiError)
    assert not issubclass(TransportError, OSError)


def test_nobody_holds_a_key():
    """No error takes or keeps a header or a credential."""
    fields = {name for kind in CLASSES for name in made(kind).__dict__}

    assert fields == {
        "message", "rows", "partial", "retryable", "retry_after", "status", "code", "provider", "model", "request_id",
        "body",
        "__notes__",
    }  # fmt: skip

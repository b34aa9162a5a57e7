"""Plans: slices that are in order, touching, cover every text once and keep within every limit."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedkit import Limits
from embedkit._batching.plan import BatchBuilder, _clearly_fits, estimate, measure, plan, tightened, utf8
from embedkit._batching.texts import plain

TEXTS = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.text(alphabet=st.characters(categories=["Cs"]), max_size=3),
        st.text(alphabet="漢字かな🦆", max_size=12),
        st.integers(0, 400).map("x".__mul__),
    ),
    max_size=60,
)
LIMITS = st.builds(
    Limits,
    max_texts=st.none() | st.integers(1, 40),
    max_tokens=st.none() | st.integers(1, 400),
    max_bytes=st.none() | st.integers(1, 900),
)


def greedy(texts, limits, count_tokens=estimate):
    """The plan, written the plainest way: close a request when the next text would break a limit."""
    slices, start = [], 0
    for stop in range(1, len(texts) + 1):
        part = texts[start : stop + 1]
        fits = (
            (limits.max_texts is None or len(part) <= limits.max_texts)
            and (limits.max_tokens is None or sum(map(count_tokens, part)) <= limits.max_tokens)
            and (limits.max_bytes is None or sum(map(utf8, part)) <= limits.max_bytes)
        )
        if stop == len(texts) or not fits:
            slices.append(slice(start, stop))
            start = stop
    return slices


@given(TEXTS, LIMITS)
def test_a_plan_covers_everything_once_in_order(texts, limits):
    """Slices touch, run in order, are never empty, and end at the last text."""
    slices = list(plan(texts, limits))

    assert [0, *(part.stop for part in slices)] == [*(part.start for part in slices), len(texts)]
    assert all(part.start < part.stop for part in slices)


@given(TEXTS, LIMITS)
def test_a_plan_keeps_within_every_limit(texts, limits):
    """No slice breaks a limit, unless it is one text that breaks it alone."""
    parts = [texts[part] for part in plan(texts, limits)]

    for part in parts:
        assert limits.max_texts is None or len(part) <= limits.max_texts
        assert limits.max_tokens is None or len(part) == 1 or sum(map(estimate, part)) <= limits.max_tokens
        assert limits.max_bytes is None or len(part) == 1 or sum(map(utf8, part)) <= limits.max_bytes


@given(TEXTS, LIMITS)
def test_a_plan_is_the_greedy_one(texts, limits):
    """The quick look at lengths changes nothing: the slices are those of a plain greedy loop."""
    assert greedy(texts, limits) == list(plan(texts, limits))


@given(TEXTS, LIMITS)
def test_a_tokenizer_of_the_callers_is_asked(texts, limits):
    """With `count_tokens` the plan is greedy over those counts, however far they are from the estimate."""

    def count(text):
        return 7 * len(text)

    assert greedy(texts, limits, count) == list(plan(texts, limits, count))


@given(st.lists(st.text(max_size=8), min_size=1, max_size=700), st.integers(1, 3000), st.integers(1, 3000))
def test_a_slice_that_clearly_fits_does_fit(texts, tokens, size):
    """The quick look never lets a slice through that the slow one would refuse, also beyond its stride."""
    limits = Limits(max_tokens=tokens, max_bytes=size)

    if _clearly_fits(texts, 0, len(texts), limits, estimate):
        assert sum(map(estimate, texts)) <= tokens
        assert sum(map(utf8, texts)) <= size


@pytest.mark.parametrize("text", ["🦆" * 30, "\U0010ffff" * 9, "x"])
def test_the_worst_reading_is_the_four_byte_one(text):
    """A slice of nothing but four-byte characters clearly fits exactly when its bytes and tokens do."""
    texts = [text] * 5
    worst = -(-4 * len(text) * 5 * 23 // 60) + 5

    assert _clearly_fits(texts, 0, 5, Limits(max_tokens=worst), estimate)
    assert _clearly_fits(texts, 0, 5, Limits(max_bytes=4 * len(text) * 5), estimate)
    assert not _clearly_fits(texts, 0, 5, Limits(max_tokens=worst - 1), estimate)
    assert not _clearly_fits(texts, 0, 5, Limits(max_bytes=4 * len(text) * 5 - 1), estimate)


def test_nothing_plans_to_nothing():
    """No texts, no slices."""
    assert list(plan([], Limits(max_texts=3))) == []


def test_no_limits_make_one_request():
    """Without limits everything goes out at once, and no text is measured."""

    def count(text):
        raise AssertionError

    assert [slice(0, 5000)] == list(plan(["x"] * 5000, Limits(), count))


def test_a_text_beyond_a_limit_goes_alone():
    """One text that exceeds a limit gets a slice of its own, and its neighbors keep theirs."""
    texts = ["a", "b", "x" * 100, "c", "d"]

    assert [slice(0, 2), slice(2, 3), slice(3, 5)] == list(plan(texts, Limits(max_bytes=10)))


def test_planning_is_linear_without_a_limit_of_texts():
    """Each slice looks at about its own texts, never at all that
    follow: the lengths asked for stay near their number.
    """
    asked = 0

    class Watched(str):
        __slots__ = ()

        def __len__(self):
            nonlocal asked
            asked += 1
            return super().__len__()

    texts = [Watched("x" * 30) for _ in range(20_000)]
    slices = list(plan(texts, Limits(max_tokens=2_750)))

    assert len(slices) == 80
    assert asked < 4 * len(texts)


def test_a_plan_is_lazy():
    """The first slice comes before the last text is measured, so work starts at once."""
    seen = []

    def count(text):
        seen.append(text)
        return 1

    assert slice(0, 2) == next(plan(list("abcdef"), Limits(max_tokens=2), count))
    assert seen == ["a", "b", "c"]


@given(st.integers(0, 9), st.integers(0, 9), LIMITS)
def test_the_first_text_always_fits_a_batch(tokens, size, limits):
    """An empty batch takes any text; a batch counts what it holds."""
    batch = BatchBuilder(limits)

    assert batch.fits(10**9, 10**9)

    batch.add(tokens, size)

    assert (batch.count, batch.tokens, batch.size) == (1, tokens, size)


@pytest.mark.parametrize(
    ("limits", "takes"),
    [
        (Limits(max_texts=2), (True, False)),
        (Limits(max_tokens=6), (True, False)),
        (Limits(max_bytes=20), (True, False)),
        (Limits(max_texts=3, max_tokens=9, max_bytes=30), (True, True)),
        (Limits(), (True, True)),
    ],
)
def test_a_tray_is_full_at_its_limit(limits, takes):
    """A batch takes texts up to and including each limit, and none beyond."""
    batch = BatchBuilder(limits)
    batch.add(3, 10)
    first = batch.fits(3, 10)
    batch.add(3, 10)
    second = batch.fits(3, 10)

    assert takes == (first, second)


@given(st.text())
@example("\ud800")
@example("漢字")
def test_utf8_counts_bytes(text):
    """`utf8` is the length of the encoded text, a lone surrogate taken as its three bytes."""
    assert len(text.encode("utf-8", "surrogatepass")) == utf8(text)


@pytest.mark.parametrize(
    ("text", "size", "tokens"),
    [("", 0, 1), ("abc", 3, 2), ("漢字", 6, 3), ("🦆", 4, 2), ("\ud800", 3, 2), ("x" * 3000, 3000, 1001)],
)
def test_sizes_by_hand(text, size, tokens):
    """Sizes of ASCII, CJK, an emoji and a lone surrogate, worked out by hand; no text counts as no token."""
    assert (size, tokens) == (utf8(text), estimate(text))


# Texts with their tokens in cl100k_base, counted by tiktoken 0.14 (`len(encoding.encode_ordinary(text))`), and between
# which shares of that the estimate may be.
COUNTED = {
    "English": (0.9, 1.7, 38,
     "The harbour was quiet when the last ferry left, and for the first time that week nobody asked her what the letters had said. She folded them twice and put them back into the drawer."),
    "German": (0.9, 1.25, 46,
     "Die Bibliothek schließt heute um achtzehn Uhr, weil die Fußböden im Erdgeschoss erneuert werden. Bitte geben Sie ausgeliehene Bücher vorher zurück."),
    "French": (0.9, 1.4, 39,
     "Le marché du village ouvre à sept heures; on y trouve du pain, des œufs, des fraises et, certains jours, un vieil homme qui répare les montres."),
    "Russian": (0.9, 1.5, 58,
     "Вечером над рекой поднялся туман, и лодки одна за другой возвращались к берегу. Старик считал их вслух и каждый раз ошибался."),
    "Greek": (0.6, 1.2, 83,
     "Το παλιό ρολόι στην πλατεία σταμάτησε χθες το βράδυ, και κανείς δεν ξέρει ποιος έχει το κλειδί."),
    "Chinese": (0.8, 1.2, 56, "图书馆今天下午六点关门，因为一楼的地板正在更换。请在此之前归还所有借阅的书籍，谢谢您的理解与配合。"),
    "Japanese": (0.8, 1.2, 56, "昨日の夜、川の上に霧が出て、船は一つずつ岸に戻ってきた。老人は声を出して数えたが、いつも間違えた。"),
    "Korean": (0.8, 1.2, 55, "도서관은 오늘 오후 여섯 시에 문을 닫습니다. 일층 바닥을 새로 깔기 때문입니다. 그 전에 책을 돌려주세요."),
    "Arabic": (0.8, 1.2, 75,
     "تغلق المكتبة أبوابها اليوم في الساعة السادسة مساء لأن أرضية الطابق الأول قيد التجديد. يرجى إعادة الكتب قبل ذلك."),
    "Hebrew": (0.6, 1.2, 94,
     "הספרייה נסגרת היום בשעה שש בערב כי מחליפים את הרצפה בקומה הראשונה. אנא החזירו את הספרים לפני כן."),
    "Hindi": (0.8, 1.2, 121,
     "पुस्तकालय आज शाम छह बजे बंद हो जाएगा क्योंकि नीचे की मंज़िल का फ़र्श बदला जा रहा है। कृपया किताबें पहले लौटा दें।"),
    "Thai": (0.8, 1.25, 84,
     "ห้องสมุดจะปิดเวลาหกโมงเย็นวันนี้ เพราะกำลังเปลี่ยนพื้นชั้นล่าง กรุณาคืนหนังสือก่อนเวลานั้น"),
    "emoji": (0.6, 1.2, 45, "🦆 first, then 🐘🐘 and at last 🦀: 🎉🎉🎉 what a parade! 👩\u200d🚀🇫🇮"),
    "Python": (0.8, 1.5, 60, '''def windows(values, size):
    """Slide over `values`."""
    for start in range(len(values) - size + 1):
        chunk = values[start : start + size]
        if not any(value is None for value in chunk):
            yield start, sum(chunk) / size
'''),
    "Rust": (0.8, 1.2, 51, """fn longest<'a>(lines: &'a [String]) -> Option<&'a str> {
    lines.iter().filter(|line| !line.is_empty()).max_by_key(|line| line.len()).map(|line| line.as_str())
}
"""),
    "minified": (0.8, 1.2, 48,
     "!function(e,t){for(var n=0,r=t.length;n<r;n++){var o=t[n];o&&o.on&&e.addEventListener(o.on,o.fn,!1)}}(window,[{on:'load',fn:i}]);"),
    "YAML": (0.8, 1.2, 52, """services:
  web:
    image: registry.example/web:1.4.2
    replicas: 3
    ports:
      - "8080:80"
    environment:
      LOG_LEVEL: info
      CACHE_TTL: 300
"""),
    "JSON": (0.8, 1.2, 49,
     '{"id": 4711, "name": "harbour", "tags": ["quiet", "north"], "position": {"lat": 60.1699, "lon": 24.9384}, "open": true}'),
    "Markdown": (0.8, 1.2, 59, """## Opening hours

| day | from | to |
| --- | ---: | ---: |
| Monday | 9:00 | 18:00 |
| Sunday | *closed* | |

See the [map](https://harbour.example/map) for **both** entrances.
"""),
    "HTML": (0.8, 1.2, 40,
     '<ul class="menu"><li><a href="/start">Start</a></li><li class="active"><a href="/map?zoom=3">Map</a></li></ul>'),
    "URL": (0.8, 1.2, 44,
     "https://harbour.example/api/v2/boats?since=2026-03-01T00%3A00%3A00Z&sort=-length&fields=name,owner,berth#results"),
    "log": (0.6, 1.2, 53,
     "2026-03-01T07:14:55.120Z WARN  [worker-3] retry 2/6 of POST /v1/embeddings in 1.92s (status=429, id=req_8f3a)"),
    "digits": (0.8, 1.2, 34,
     "3141592653589793238462643383279502884197169399375105820974944592307816406286208998628034825342117067"),
    "base64": (0.5, 1.2, 85,
     "mq4cvLldgEQ+pcDo4tquXpvtMeBA6PCwOJ82WWypIMqarhy8uV2ARD6lwOji2q5em+0x4EDo8LA4nzZZbKkgypquHLy5XYBEPqXA6OLarl6b7THgQOjwsDifNllsqSDK"),
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTED)
def test_the_estimate_is_near_what_is_counted(name):
    """In every script, in code and in data: within a fifth for
    most, never below half, and high by two thirds at most.
    """
    low, high, tokens, text = COUNTED[name]

    assert low * tokens <= estimate(text) <= high * tokens


def test_the_estimate_is_near_for_a_mixture():
    """Over all of these together it is within a tenth."""
    tokens = sum(counted for _, _, counted, _ in COUNTED.values())

    assert sum(estimate(text) for *_, text in COUNTED.values()) == pytest.approx(tokens, rel=0.1)


@given(TEXTS, LIMITS, st.integers(0, 60), st.integers(0, 60))
def test_a_part_is_planned_as_if_it_were_alone(texts, limits, start, stop):
    """From `start` up to `stop` the slices are those of that part planned by itself, moved to its place."""
    start, stop = sorted(min(each, len(texts)) for each in (start, stop))
    alone = plan(texts[start:stop], limits)

    assert [slice(start + part.start, start + part.stop) for part in alone] == list(
        plan(texts, limits, start=start, stop=stop)
    )


@given(TEXTS, LIMITS, LIMITS, st.integers(0, 60))
def test_a_plan_goes_on_under_stricter_limits(texts, limits, stricter, reached):
    """What is planned anew from where the old plan was left keeps within both sets of limits, and loses no text."""
    both = tightened(limits, stricter)
    reached = min(reached, len(texts))
    parts = list(plan(texts, both, start=reached))

    assert [each for part in parts for each in range(part.start, part.stop)] == list(range(reached, len(texts)))
    for part in parts:
        assert all(
            len(part_of) == 1 or len(list(plan(part_of, each))) == 1
            for part_of in [texts[part]]
            for each in (limits, stricter)
        )


@given(LIMITS, LIMITS)
def test_the_stricter_of_two_limits(one, other):
    """In each respect the smaller figure; no figure is no limit;
    the order does not matter, and nothing is stricter than itself.
    """
    both = tightened(one, other)

    for name in Limits.__struct_fields__:
        figures = [getattr(each, name) for each in (one, other) if getattr(each, name) is not None]

        assert getattr(both, name) == min(figures, default=None)
    assert both == tightened(other, one)
    assert tightened(one, Limits()) == one == tightened(one, one)


@given(st.text())
def test_a_text_is_measured_only_where_a_limit_asks(text):
    """Tokens and bytes are zero where nothing limits them."""
    assert measure(text, Limits(max_texts=1)) == (0, 0)
    assert measure(text, Limits(max_tokens=1)) == (estimate(text), 0)
    assert measure(text, Limits(max_bytes=1)) == (0, utf8(text))


def test_a_string_of_another_class_becomes_plain():
    """`plain` gives exactly a str, and of an enum's member its value rather than its name."""
    from enum import Enum

    import numpy as np

    class Color(str, Enum):  # noqa: UP042 (the trap itself)
        RED = "crimson"

    for text, expected in ((Color.RED, "crimson"), (np.str_("x"), "x"), ("y", "y")):
        assert expected == plain(text)
        assert type(plain(text)) is str

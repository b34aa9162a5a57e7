"""When the next request may leave: rates that are never exceeded, limits found and forgotten, one cool-down for all. No
test sleeps.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from datetime import UTC, datetime
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit import ConfigError, Rate
from embedkit._traffic.cubic_rate import CubicRate
from embedkit._traffic.quota import REQUESTS, TOKENS, Quota, Reported, shared_quota
from embedkit._traffic.rate import TokenBucket

CLOSE = 1e-6
STEPS = st.lists(st.tuples(st.floats(0, 30), st.floats(0, 1)), min_size=1, max_size=40)


def within(grants, per_second, capacity):
    """Whether (moment, amount) never add up to more than rate * window + capacity, whatever the window."""
    for first in range(len(grants)):
        total = 0.0
        for moment, amount in grants[first:]:
            total += amount
            if total > per_second * (moment - grants[first][0]) + capacity + CLOSE * total:
                return False
    return True


# --- Rate ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "60", [1]])
@pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute"])
def test_a_rate_is_a_positive_number(name, value):
    """Anything but a positive finite number is a ConfigError that names the field."""
    with pytest.raises(ConfigError, match=name):
        Rate(**{name: value})


def test_a_rate_may_be_left_open():
    """Either quota may be None, and a fraction is a rate."""
    assert Rate().requests_per_minute is None
    assert Rate(requests_per_minute=0.5).requests_per_minute == 0.5


# --- Bucket ----------------------------------------------------------------------------------------------------------


@given(st.floats(1, 6000), STEPS)
def test_a_bucket_never_grants_more_than_its_rate(per_minute, steps):
    """Over any window, what is granted stays within rate * window + capacity."""
    bucket, now, grants = TokenBucket(per_minute), 0.0, []
    for pause, share in steps:
        now += pause
        amount = share * bucket.capacity
        grants.append((now + bucket.reserve(now, amount), amount))

    moments = [moment for moment, _ in grants]
    assert all(later >= earlier - CLOSE for earlier, later in itertools.pairwise(moments))
    assert within(grants, bucket.per_second, bucket.capacity)


@given(st.floats(1, 6000), STEPS)
def test_a_larger_amount_than_the_bucket_is_paid_off(per_minute, steps):
    """An amount beyond the capacity is granted late rather than never, and what follows waits until it is paid."""
    bucket, now, grants = TokenBucket(per_minute), 0.0, []
    for pause, share in steps:
        now += pause
        amount = share * 5 * bucket.capacity
        grants.append((now + bucket.reserve(now, amount), amount))

    assert within(grants, bucket.per_second, max(bucket.capacity, *(amount for _, amount in grants)))


def test_a_bucket_by_hand():
    """60 a minute: one at once, then one a second; a minute of rest saves no more than one second's worth."""
    bucket = TokenBucket(60)

    assert [bucket.reserve(0.0, 1) for _ in range(4)] == [0.0, 1.0, 2.0, 3.0]
    assert bucket.reserve(60.0, 1) == 0.0
    assert bucket.reserve(60.0, 1) == 1.0


def test_a_bucket_is_used_in_full():
    """Whoever comes back exactly when told is never told to wait longer: the rate is reached, not only kept."""
    bucket, now = TokenBucket(600), 0.0
    for _ in range(1000):
        now += bucket.reserve(now, 1)

    assert now == pytest.approx((1000 - 10) / 10)


@given(st.floats(1, 6000), STEPS)
def test_giving_back_leaves_no_trace(per_minute, steps):
    """An amount taken and given back at the same moment changes nothing, and giving more never overfills."""
    plain, other, now = TokenBucket(per_minute), TokenBucket(per_minute), 0.0
    for pause, share in steps:
        now += pause
        if other.reserve(now, 0.0) > 0:
            other.reserve(now, 7.0)
            other.reserve(now, -7.0)

        assert other.reserve(now, share) == pytest.approx(plain.reserve(now, share), abs=1e-6)

    other.reserve(now, -1e9)

    assert other.level == other.capacity


def test_time_that_runs_backwards_refills_nothing():
    """A `now` before the last one counts as the last one."""
    bucket = TokenBucket(60)
    bucket.reserve(10.0, 1)

    assert bucket.reserve(5.0, 1) == 1.0
    assert bucket.reserve(10.0, 1) == 2.0


def test_a_bucket_of_the_servers_is_taken_over():
    """Its size, its rate and what is left; what is on its way is counted here already, so a level never rises by a
    report.
    """
    bucket = Reported(6000)
    bucket.copy(0.0, limit=60, remaining=0, full_in=30.0)

    assert (bucket.capacity, bucket.per_second, bucket.level) == (60, 2.0, 0)
    assert bucket.reserve(0.0, 1) == pytest.approx(0.5)

    bucket.copy(0.0, limit=60, remaining=10, full_in=25.0)

    assert bucket.level == -1
    assert bucket.reserve(100.0, 60) == 0.0


@given(st.floats(1, 1e7), st.floats(0, 1), st.floats(1e-3, 1e5), st.lists(st.floats(0, 60), max_size=20))
def test_a_server_that_lies_stops_nobody_for_good(limit, left, full_in, pauses):
    """Whatever a report says, the next request waits no longer than until the server calls itself full, and a finite
    time.
    """
    bucket, now = Reported(60.0 * limit), 0.0
    for pause in pauses:
        now += pause
        bucket.copy(now, limit=limit, remaining=left * limit, full_in=full_in)
        wait = bucket.reserve(now, 1.0)

        assert 0 <= wait <= full_in * (1 + len(pauses)) + CLOSE
        assert bucket.per_second > 0


# --- Probe -----------------------------------------------------------------------------------------------------------


class QuotaServer:
    """A token bucket that empties at `rate` a second, and whoever asks a probe when to send the next request."""

    def __init__(self, rate, *, burst=1.0, away=1.0):
        self.rate, self.burst, self.away = rate, burst, away
        self.now = self.stamp = 0.0
        self.level = burst
        self.granted, self.refused = [], []
        self.probe = None

    def admits(self):
        self.level = min(self.burst, self.level + (self.now - self.stamp) * self.rate)
        self.stamp = self.now
        if self.level < 1:
            return False
        self.level -= 1
        return True

    def run(self, until, *, demand=1000.0):
        """Send as fast as the probe allows, and no faster than the demand, until then."""
        while self.now < until:
            if self.probe is not None:
                self.probe.tick(self.now)
                self.now += self.probe.reserve(self.now, 1)
                self.probe.sent(1)
            if self.admits():
                self.granted.append(self.now)
            else:
                self.refused.append(self.now)
                if self.probe is None:
                    self.probe = CubicRate(self.now)
                self.probe.on_rejected(self.now, self.now, 1, cut=True)
                self.probe.shift(self.now, self.away)
                self.now += self.away
            self.now += 1 / demand
        return self

    def used(self, start, stop):
        return sum(start <= moment < stop for moment in self.granted) / (stop - start) / self.rate

    def lost(self, start, stop):
        refused = sum(start <= moment < stop for moment in self.refused)
        return refused / max(1, refused + sum(start <= moment < stop for moment in self.granted))


@pytest.mark.parametrize("rate", [0.05, 1.0, 7.0, 80.0])
@pytest.mark.parametrize("away", [0.0, 1.0])
def test_a_rate_is_found_and_kept(rate, away):
    """From refusals alone: nearly all of the quota is used, and hardly any request refused."""
    quota = QuotaServer(rate, burst=max(3.0, rate), away=away).run(100 + 600 / rate)
    start, stop = 50 + 200 / rate, 100 + 600 / rate

    assert quota.used(start, stop) > 0.95
    assert quota.lost(start, stop) < 0.01


@pytest.mark.parametrize("factor", [0.25, 0.5, 2.0, 4.0])
def test_a_rate_that_changes_is_found_again(factor):
    """Less is noticed at the next refusal, more within some minutes."""
    quota = QuotaServer(20.0, burst=20.0).run(120)
    quota.rate *= factor
    quota.run(520)

    assert quota.used(420, 520) > 0.93
    assert quota.lost(420, 520) < 0.01


def test_hours_of_rest_change_nothing():
    """A rate found before an idle night is the one to start with in the morning: no storm, and no crawl."""
    quota = QuotaServer(20.0, burst=20.0).run(120)
    quota.now += 8 * 3600
    start = quota.now
    quota.run(start + 60)

    assert quota.used(start, start + 60) > 0.95
    assert quota.lost(start, start + 60) < 0.02


@pytest.mark.parametrize("found", [True, False])
def test_hours_of_little_demand_are_no_measure(found):
    """A 429 after an hour in which little was asked for is read by what was admitted lately, not by that hour."""
    quota = QuotaServer(20.0, burst=20.0).run(60 if found else 0.05, demand=1000.0)
    quota.run(quota.now + 3600, demand=0.5)
    start = quota.now
    quota.run(start + 60)

    assert quota.used(start, start + 60) > 0.9
    assert quota.lost(start, start + 60) < 0.05


def test_a_wait_that_was_imposed_is_part_of_the_measure():
    """Sixty in a burst and then a minute of cool-down is one a second, not sixty."""
    probe = CubicRate(0.0)
    probe.shift(0.0, 60.0)
    for each in range(61):
        probe.tick(60.0 + each / 60)
        probe.sent(1)
    probe.on_rejected(61.0, 61.0, 1, cut=True)

    assert probe.wall == pytest.approx(60 / 61)


def test_the_first_refusal_only_starts_the_count():
    """One 429 shows no rate: until the second nobody waits."""
    probe = CubicRate(0.0)

    assert [probe.reserve(0.0, 1) for _ in range(100)] == [0.0] * 100
    assert probe.wall == 0


def test_nothing_admitted_bounds_the_rate():
    """Where every request is refused the rate is below one in that time; a shorter time says nothing more."""
    probe, walls = CubicRate(0.0), []
    for moment in (2.0, 4.0, 8.0, 24.0, 25.0):
        probe.sent(1)
        probe.on_rejected(moment, moment, 1, cut=True)
        walls.append(probe.wall)

    assert walls == [0.25, 0.25, 0.125, 0.03125, 0.03125]


def test_few_requests_say_little():
    """A refusal after few requests moves the rate only part of the way."""
    walls = []
    for count in (1, 5, 10):
        probe = CubicRate(0.0)
        for _ in range(1000):
            probe.sent(1)
        probe.on_rejected(10.0, 10.0, 0, cut=True)
        for _ in range(count):
            probe.sent(1)
        probe.on_rejected(12.0, 12.0, 0, cut=True)
        walls.append(probe.wall)

    assert walls == sorted(walls, reverse=True)
    assert walls[0] == pytest.approx(100, rel=0.15)
    assert walls[2] < 20


@pytest.mark.parametrize(("in_flight", "good", "lost"), [(0, 0.0, False), (30, -1.0, True), (30, 0.5, False)])
def test_what_is_on_its_way_is_not_admitted_yet(in_flight, good, lost):
    """Forty left since the last refusal. If thirty of them are on their way still, and none has a good answer, all may
    be refused.
    """
    probe = CubicRate(0.0, before=40.0)
    for _ in range(40):
        probe.sent(1)
    probe.on_rejected(2.0, 2.0, 1, cut=True, in_flight=in_flight, good=good)

    assert probe.wall == pytest.approx(1.0 if lost else 19.5)
    assert bool(probe.lost) == lost


@pytest.mark.parametrize(("sent", "now", "cut"), [(9.9, 20.0, True), (10.0, 10.9, True), (15.0, 20.0, False)])
def test_what_says_nothing_new_changes_nothing(sent, now, cut):
    """A request sent before the last cut, an answer within a second of it, and a 429 that is not about the rate."""
    probe = CubicRate(0.0)
    for _ in range(100):
        probe.sent(1)
    probe.on_rejected(10.0, 10.0, 1, cut=True)
    before = probe.wall, probe.rate(30.0)
    probe.sent(1)
    probe.on_rejected(now, sent, 1, cut=cut)

    assert (probe.wall, probe.rate(30.0)) == before


@given(st.integers(1, 10_000), st.floats(1, 1000), st.floats(0, 1e6), st.floats(0, 1e6))
def test_the_pace_is_positive_and_only_rises(count, seconds, first, second):
    """Between refusals the rate never falls, begins a little below what was found, and meets it at the plateau."""
    probe = CubicRate(0.0)
    for _ in range(count):
        probe.sent(1)
    probe.on_rejected(seconds, seconds, 1, cut=True)
    early, late = sorted((first, second))

    assert 0 < probe.rate(seconds + early) <= probe.rate(seconds + late) < math.inf
    assert probe.rate(seconds) == pytest.approx((1 - CubicRate.CUT) * probe.wall)
    assert probe.rate(seconds + probe._plateau) == pytest.approx(probe.wall)
    assert probe.rate(seconds - 5.0) == probe.rate(seconds)  # another thread's clock was read a moment earlier


@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.sampled_from(["send", "refused", "give back"]), st.floats(0, 30)), max_size=80
    )
)
def test_no_wait_is_negative_or_endless(steps):
    """Whatever comes in whatever order: waits are finite and not negative, and so is the rate."""
    probe, now = CubicRate(0.0), 0.0
    for pause, what, ago in steps:
        now += pause
        probe.tick(now)
        wait = probe.reserve(now, -1 if what == "give back" else 1)
        if what == "send":
            probe.sent(1)
        elif what == "refused":
            probe.on_rejected(now, now - ago, 1, cut=True)

        assert 0 <= wait < math.inf
        assert 0 <= probe.rate(now) < math.inf


@given(st.lists(st.floats(0, 3), min_size=1, max_size=40))
def test_reservations_keep_the_rate_between_them(pauses):
    """However late anyone comes, what goes out within a time is what the rate allows, and a moment's worth more."""
    probe = CubicRate(0.0)
    for _ in range(20):
        probe.sent(1)
    probe.on_rejected(10.0, 10.0, 1, cut=True)
    now, grants = 10.0, []
    for pause in pauses:
        now += pause
        probe.tick(now)
        grants.append((now + probe.reserve(now, 1), 1))

    assert within(grants, probe.rate(now), 1 + probe.rate(now) * CubicRate.SLACK)


def test_what_is_given_back_is_free_again():
    """A slot that nobody used does not delay the next."""
    probe = CubicRate(0.0)
    for _ in range(20):
        probe.sent(1)
    probe.on_rejected(10.0, 10.0, 1, cut=True)
    first = [probe.reserve(10.0, 1) for _ in range(3)][-1]
    probe.reserve(10.0, -1)

    assert probe.reserve(10.0, 1) == pytest.approx(first)


# --- Pace ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100))))
def test_a_pause_only_ever_grows(pauses):
    """The cool-down ends at the latest of all pauses; a shorter one never cuts it."""
    pace = Quota()
    for now, seconds in pauses:
        before = pace.blocked(0.0)
        pace.pause(now, seconds)

        assert pace.blocked(0.0) >= before

    end = max((now + seconds for now, seconds in pauses), default=0.0)

    assert pace.blocked(0.0) == end
    assert pace.reserve(end, 10**9) == 0.0


@given(
    st.floats(1, 600),
    st.lists(st.tuples(st.floats(0, 5), st.sampled_from(["reserve", "pause"])), min_size=1, max_size=40),
)
def test_the_rate_holds_after_a_pause(per_minute, steps):
    """Requests that arrive during a cool-down do not all leave at its end: over any window the rate still holds."""
    pace, now, until, grants = Quota(Rate(requests_per_minute=per_minute)), 0.0, 0.0, []
    for seconds, what in steps:
        now += seconds
        if what == "pause" and not grants:
            pace.pause(now, 3 * seconds)
            until = max(until, now + 3 * seconds)
        elif what == "reserve":
            grants.append((now + pace.reserve(now, 1), 1))

    assert all(moment >= until - CLOSE for moment, _ in grants)
    assert within(grants, per_minute / 60, max(1.0, per_minute / 60))


def test_requests_and_tokens_are_both_kept():
    """The longer wait of the two quotas counts."""
    pace = Quota(Rate(requests_per_minute=60, tokens_per_minute=6000))

    assert pace.reserve(0.0, 100) == 0.0
    assert pace.reserve(0.0, 1) == 1.0  # requests
    assert pace.reserve(2.0, 1000) == 9.0  # tokens: the bucket is full again with 100, and 900 are owed


def test_reported_usage_corrects_the_estimate():
    """What the provider counted more is owed, what it counted less is given back."""
    pace = Quota(Rate(tokens_per_minute=6000))
    pace.reserve(0.0, 100)
    pace.correct(0.0, 300)

    assert pace.reserve(0.0, 0) == pytest.approx(3.0)

    pace.correct(0.0, -300)

    assert pace.reserve(0.0, 0) == pytest.approx(0.0)


def test_a_pace_without_a_rate_never_waits():
    """No quota: only a pause makes anyone wait, and corrections are harmless."""
    pace = Quota()
    pace.correct(0.0, 10**9)
    pace.refund(0.0, 10**9)

    assert [pace.reserve(0.0, 10**9) for _ in range(100)] == [0.0] * 100


def test_a_pace_is_shared_between_threads():
    """Reservations and pauses from many threads all count, none twice."""
    pace = Quota(Rate(requests_per_minute=60))
    start, paused = threading.Barrier(8), threading.Barrier(8)

    def work(number):
        start.wait()
        for _ in range(500):
            pace.reserve(0.0, 1)
        paused.wait()
        for each in range(500):
            pace.pause(0.0, float(each * 8 + number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert pace.blocked(0.0) == 3999.0
    assert pace.reserve(0.0, 1) == 3999.0 + 4000.0  # the 4000 before it go on after the pause


# --- what the server says --------------------------------------------------------------------------------------------


def report(what, limit, remaining, reset):
    return {
        f"x-ratelimit-{name}-{what}": value
        for name, value in (("limit", limit), ("remaining", remaining), ("reset", reset))
    }


def test_a_reported_quota_is_met_before_it_refuses():
    """Nothing is left of 60, and they are back in a minute: one a second, with no 429."""
    pace = Quota()
    pace.update_from_headers(0.0, report(REQUESTS, "60", "0", "1m0s"))

    assert [pace.reserve(0.0, 0) for _ in range(3)] == pytest.approx([1.0, 2.0, 3.0])
    assert not pace.counts_tokens


def test_a_reported_quota_of_tokens_counts_tokens():
    """What is left of the tokens holds back by the size of a request, and from then on sizes are asked for."""
    pace = Quota()
    pace.update_from_headers(0.0, report(TOKENS, "6000", "0", "1m0s"))

    assert pace.counts_tokens
    assert pace.reserve(0.0, 500) == pytest.approx(5.0)

    pace.correct(0.0, -400)

    assert pace.reserve(0.0, 100) == pytest.approx(2.0)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        report(REQUESTS, "10000", "9999", "6ms"),  # OpenAI: plenty left
        report(REQUESTS, "10000", "9999", "8.64s"),  # the same of a day
        report(TOKENS, "50000", "0", "0"),  # Azure AI Foundry says so of tokens whatever is left
        {"x-ratelimit-limit-tokens": "250000", "x-ratelimit-remaining-tokens": "0"},  # Azure names no reset
        report(REQUESTS, "-1", "-1", "1s"),  # openai-dotnet#838
        report(REQUESTS, "0", "0", "1s"),
        report(REQUESTS, "1", "0", "soon"),
        report(REQUESTS, "", "", ""),
        report(REQUESTS, "60.5", "0", "60"),
        report(REQUESTS, "٦٠", "٠", "60"),
    ],
)
def test_reports_that_hold_nobody_back(headers):
    """Plenty left, or a report that makes no sense: nobody waits."""
    pace = Quota()
    pace.update_from_headers(0.0, headers)

    assert [pace.reserve(0.0, 0) for _ in range(50)] == [0.0] * 50


def test_the_end_of_a_window_frees_what_it_held():
    """A server that counts by the minute is full again when it says so, though it never said at which rate."""
    pace = Quota()
    pace.update_from_headers(0.0, report(REQUESTS, "60", "0", "30"))
    pace.update_from_headers(30.0, report(REQUESTS, "60", "59", "60"))

    assert sum(pace.reserve(60.0, 0) == 0 for _ in range(60)) >= 29


@pytest.mark.parametrize("limit", ["60", None])
@pytest.mark.parametrize("unit", ["unix", "milliseconds", "http", "iso", "duration"])
def test_a_window_that_ends_at_a_moment_is_waited_out(unit, limit):
    """Nothing left until ten seconds from now, told in any way that names a moment: nobody goes before, and everybody
    then.
    """
    end = time.time() + 10
    reset = {
        "unix": f"{end:.0f}", "milliseconds": f"{end * 1000:.0f}", "http": formatdate(end, usegmt=True),
        "iso": datetime.fromtimestamp(end, UTC).isoformat(), "duration": "10s",
    }[unit]  # fmt: skip
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": reset}
    if limit is not None:
        headers["x-ratelimit-limit-requests"] = limit
    pace = Quota()
    pace.update_from_headers(100.0, headers)
    waits = [pace.reserve(100.0, 0) for _ in range(5)]

    if unit == "duration" and limit is not None:  # as OpenAI tells it: the time until all of it is back
        assert waits == pytest.approx([10 / 60 * each for each in range(1, 6)])
    else:
        assert waits == pytest.approx([10.0] * 5, abs=1.1)
        assert pace.reserve(111.1, 0) == 0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (report(REQUESTS, "10", "0", "1h"), 360.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "8h"}, 8 * 3600.0),
        (report(TOKENS, "100000", "1000", "2h"), 7200.0 / 99_000 * 19_000),
        (report(REQUESTS, "10000", "9999", "24h"), 0.0),
        ({}, 0.0),
    ],
)
def test_what_a_server_imposes(headers, seconds):
    """The wait of the next request, whatever else of ours waits before it, and less by the time that has passed."""
    pace = Quota()
    pace.update_from_headers(0.0, headers)
    for _ in range(20):
        pace.reserve(0.0, 20_000)

    assert pace.imposed(0.0, 20_000)[0] == pytest.approx(seconds)
    assert pace.imposed(5.0, 20_000)[0] == pytest.approx(max(0.0, seconds - 5.0))


# --- sharing ---------------------------------------------------------------------------------------------------------


def test_the_longest_of_all_quotas_counts():
    """Told, reported and found: each holds back, and the strictest wins."""
    pace = Quota(Rate(requests_per_minute=120))
    pace.reserve(0.0, 0)
    pace.reserve(0.0, 0)
    pace.update_from_headers(0.0, report(REQUESTS, "60", "0", "60"))

    assert pace.reserve(0.0, 0) == pytest.approx(1.0)

    pace.on_rejected(0.0, 0.0, 0)
    pace.sent(0)
    pace.on_rejected(10.0, 9.0, 0)

    assert pace.reserve(10.0, 0) == 0.0  # the first of a rest
    assert pace.reserve(10.0, 0) > 10.0


def test_tokens_and_requests_are_probed_apart():
    """A 429 about tokens holds back large requests and not small ones; from then on tokens are counted."""
    pace = Quota()
    pace.on_rejected(0.0, 0.0, 1000, what=TOKENS)

    assert pace.counts_tokens

    for _ in range(10):
        pace.reserve(0.0, 1000)
        pace.sent(1000)
    pace.on_rejected(10.0, 9.0, 1000, what=TOKENS)

    assert pace.granted(10.0) == 0.0
    assert pace.reserve(30.0, 10) < 0.1
    assert pace.reserve(30.0, 10_000) > 5.0


def test_tokens_that_nobody_has_counted_hold_nobody_back():
    """The requests under way when the first 429 speaks of tokens were sent uncounted: they show no rate yet."""
    pace = Quota()
    for moment in (0.0, 5.0, 10.0):
        pace.on_rejected(moment, moment, 0, what=TOKENS)
        pace.sent(0)

    assert pace.reserve(10.0, 1000) == 0.0

    for _ in range(20):
        pace.sent(1000)
    pace.on_rejected(20.0, 20.0, 1000, what=TOKENS)

    assert pace.reserve(20.0, 1000) == 0.0
    assert pace.reserve(20.0, 1000) > 0.1


def test_one_cool_down_for_every_model_of_an_account():
    """Two models of one account have quotas of their own and share the pause; another account has nothing of it."""
    first, second, other = (
        shared_quota("host key", "a", None),
        shared_quota("host key", "b", None),
        shared_quota("host other", "a", None),
    )
    first.pause(0.0, 30.0)

    assert first is not second
    assert [pace.blocked(0.0) for pace in (first, second, other)] == [30.0, 30.0, 0.0]


def test_a_pause_before_a_rate_was_looked_for_does_not_count_into_it():
    """What a neighbor's model was told long ago shifts nothing that begins today."""
    fresh, late = shared_quota("account", "b", None), shared_quota("account", "c", None)
    shared_quota("account", "a", None).pause(0.0, 600.0)
    alone = Quota()
    for pace in (fresh, alone):
        pace.on_rejected(1000.0, 1000.0, 1)
        for moment in (*range(1000, 1050, 5), *(1050 + step / 20 for step in range(60))):  # little at first, then much
            pace.reserve(moment, 1)
            pace.sent(1)
    headers = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "60s",
    }
    for pace in (late, other := Quota()):
        pace.update_from_headers(1000.0, headers)

    assert fresh.granted(1053.0) == alone.granted(1053.0) > 10
    assert [late.reserve(moment, 1) for moment in (1000.0, 1030.0)] == [
        other.reserve(moment, 1) for moment in (1000.0, 1030.0)
    ]


def test_one_pace_for_a_model_of_an_account():
    """The same account, model and rate share the quota; another rate has its own, and the same pause."""
    rate = Rate(requests_per_minute=60)
    first, again, untold = (
        shared_quota("host key", "a", rate),
        shared_quota("host key", "a", Rate(requests_per_minute=60)),
        shared_quota("host key", "a", None),
    )
    first.pause(0.0, 5.0)

    assert first is again
    assert untold is not first
    assert untold.blocked(0.0) == 5.0


def test_nothing_outlives_its_last_user():
    """A pace is forgotten with the last embedder that holds it."""
    pace = shared_quota("host gone", "a", None)
    pace.pause(0.0, 30.0)
    del pace

    assert shared_quota("host gone", "a", None).blocked(0.0) == 0.0


def test_many_threads_get_one_pace():
    """However many threads connect at once, they share."""
    start, found = threading.Barrier(16), []

    def work():
        start.wait()
        found.append(shared_quota("host thread", "a", None))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(map(id, found))) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_starts_over():
    """A child forked while a lock was held finds free locks and no cool-down of its parent's."""
    pace = shared_quota("host fork", "a", None)
    pace.pause(0.0, 30.0)
    with pace._lock:
        child = os.fork()
        if child == 0:
            os._exit(int(shared_quota("host fork", "a", None).reserve(0.0, 0)))
        _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert pace.blocked(0.0) == 30.0


def test_a_key_is_not_kept():
    """The registry knows accounts by a hash only."""
    from embedkit._traffic import quota as quota_module

    kept = shared_quota("host sk-secret", "a", None)

    assert "sk-secret" not in repr(list(quota_module._quotas.items())) + repr(
        list(quota_module._cooldowns.items())
    ) + repr(vars(kept))

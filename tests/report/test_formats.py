import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from steppe.report.formats import NOTHING, number, p_value, spread
from support.properties import cheap

PLAIN = str.maketrans("−⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "--0123456789")
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def read(text):
    """The number that a text of `number` says."""
    mantissa, _, power = text.translate(PLAIN).partition(" × 10")
    return float(f"{mantissa}e{power or 0}")


@cheap
@given(FINITE, st.integers(1, 6))
@example(5e-324, 3)
@example(-1.7976931348623157e308, 4)
@example(-0.0, 3)
@example(99999.5, 3)
def test_a_number_reads_back_within_its_digits(value, digits):
    text = number(value, digits)
    if abs(value) > 1.79e308:
        text = text.replace("10³⁰⁸", "10³⁰⁷")  # what is rounded up is no float
        value /= 10
    assert abs(read(text) - value) <= 0.51 * 10.0 ** (1 - digits) * abs(value) + 5e-324


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_no_number(value):
    assert number(value) == NOTHING and spread(value, 1.0) == NOTHING


@cheap
@given(FINITE.filter(lambda x: abs(x) < 1e300), FINITE.map(abs).filter(lambda x: x < 1e300))
@example(5e-324, 5e-324)
@example(0.0, 5e-324)
@example(-0.0, 0.0)
def test_a_mean_reads_back_within_the_place_of_its_last_digit(mean, sd):
    text = spread(mean, sd)
    body, _, power = text.partition(" × 10")
    first, _, second = body.strip("()").partition(" ± ")
    scale = 10.0 ** float(power.translate(PLAIN) or 0)
    if "×" in first or scale == 0:
        return
    for part, value in ((first, mean), (second, sd)):
        place = 10.0 ** -len(part.partition(".")[2]) if part != "0" else 1.0
        assert abs(float(part.translate(PLAIN)) * scale - value) <= 0.51 * max(place * scale, 0.001 * abs(value))


@cheap
@given(st.floats(0.0, 1.0))
def test_a_p_value_reads_back_within_its_place(p):
    text = p_value(p)
    if text == "< 0.001":
        assert p < 0.001
    else:
        assert abs(float(text) - p) <= 0.51 * (0.01 if p >= 0.0995 else 0.001)

"""Numbers as people read them: significant digits, true minus signs, powers of ten."""

import math
from collections.abc import Callable
from decimal import Decimal

NOTHING = "–"
"""What stands where there is no number."""


def number(value: float, digits: int = 3) -> str:
    """A number with so many significant digits; powers of ten where it is very small or large.

    Examples
    --------
    >>> number(23.0517), number(0.0000123), number(2437.86), number(9.996e-8), number(float("nan"))
    ('23.1', '1.23 × 10⁻⁵', '2438', '1.00 × 10⁻⁷', '–')
    """
    if not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # of the rounded value: 9.996 is 10
    if not -3 <= exponent < 5:
        return _minus(f"{_scaled(value, exponent):.{digits - 1}f}") + f" × 10{_superscript(exponent)}"
    return _minus(f"{value:.{max(digits - 1 - exponent, 0)}f}")


def spread(mean: float, sd: float, *, least: int = 0, most: int = 6) -> str:
    """Mean ± standard deviation: two digits of the latter, the former to the same place.

    At least `least` and at most `most` decimals; the mean alone where the deviation is unknown.

    Examples
    --------
    >>> spread(97.0760, 0.4123), spread(0.0000123, 0.0000004), spread(3.0, float("nan")), spread(-5.0, 0.0)
    ('97.08 ± 0.41', '(1.23 ± 0.04) × 10⁻⁵', '3.00', '−5.00 ± 0')
    """
    if not math.isfinite(mean):
        return NOTHING
    if not math.isfinite(sd):
        return number(mean) if least == 0 else _minus(f"{mean:.{least}f}")
    top = math.floor(math.log10(max(abs(mean), sd))) if max(abs(mean), sd) > 0 else 0
    if not -3 <= top < 5:
        places = 2 if sd == 0 else min(max(top - math.floor(math.log10(sd)), 1), 3)
        return (
            _minus(f"({_scaled(mean, top):.{places}f} ± {_scaled(sd, top):.{places}f})") + f" × 10{_superscript(top)}"
        )
    if sd == 0:
        return _minus(f"{number(mean) if least == 0 else f'{mean:.{least}f}'} ± 0")
    places = min(max(1 - math.floor(math.log10(sd)), least), most)
    # no finer than three digits of the mean would ask for, where the spread is tiny
    places = min(places, max(3 - top, least))
    return _minus(f"{mean:.{places}f} ± {sd:.{places}f}")


def signed(value: float, *, digits: int = 3, decimals: int | None = None) -> str:
    """A difference with its sign, to so many digits, or so many decimals; no sign before a zero.

    Examples
    --------
    >>> signed(0.01234), signed(-1.5, decimals=2), signed(-0.001, decimals=2), signed(float("nan"))
    ('+0.0123', '−1.50', '0.00', '–')
    """
    if not math.isfinite(value):
        return NOTHING
    text = f"{value:.{digits}g}" if decimals is None else f"{value:.{decimals}f}"
    sign = "" if not text.strip("-0.") else "−" if text.startswith("-") else "+"
    return sign + text.removeprefix("-")


def interval(low: float, high: float, show: Callable[[float], str] = number) -> str:
    """An interval in brackets, or nothing where it is unknown.

    Examples
    --------
    >>> interval(0.5, 12.25), interval(float("nan"), 1.0)
    ('[0.500, 12.2]', '')
    """
    return f"[{show(low)}, {show(high)}]" if math.isfinite(low) and math.isfinite(high) else ""


def percent(share: float) -> str:
    """A share in percent.

    Examples
    --------
    >>> percent(0.95)
    '95 %'
    """
    return f"{100 * share:g} %"


def p_value(p: float) -> str:
    """A p-value as papers print it.

    Examples
    --------
    >>> p_value(0.00004), p_value(0.0312), p_value(0.512), p_value(1.0), p_value(float("nan"))
    ('< 0.001', '0.031', '0.51', '1', '–')
    """
    if math.isnan(p):
        return NOTHING
    if p < 0.001:
        return "< 0.001"
    return "1" if p > 0.995 else f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def _scaled(value: float, exponent: int) -> Decimal:
    """A number without its power of ten, exactly: 10⁻³²⁴ is no float."""
    return Decimal(value).scaleb(-exponent)


def _minus(text: str) -> str:
    """A number's text with true minus signs."""
    return text.replace("-", "−")


def _superscript(exponent: int) -> str:
    """An exponent in superscript digits."""
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))

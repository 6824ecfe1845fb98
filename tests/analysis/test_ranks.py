"""Treatments ranked over data sets: Friedman, Nemenyi and Holm against SciPy, and the section of a report."""

import math

import numpy as np
import pytest
from scipy import stats

from steppe.analysis import friedman, holm
from steppe.analysis.comparison import compare_quantity, ranks_of
from steppe.analysis.quantities import QUANTITIES, TR_H2
from steppe.report import ranks as section
from steppe.report.figures import ranks as figures

RNG = np.random.default_rng(0)


def test_nemenyis_p_and_the_critical_difference_say_the_same():
    found = friedman(RNG.normal(size=(6, 4)) + np.array([0, 0, 1, 3]))
    for i in range(4):
        for j in range(4):
            apart = abs(found.ranks[i] - found.ranks[j]) > found.critical_difference
            assert apart == (found.nemenyi[i][j] < 0.05) and found.nemenyi[i][j] == found.nemenyi[j][i]
    q = abs(found.ranks[0] - found.ranks[3]) / math.sqrt(4 * 5 / (12 * 6))
    assert found.nemenyi[0][3] == pytest.approx(stats.studentized_range.sf(q, 4, np.inf))


def test_against_one_condition_holm_corrects_over_the_others():
    found = friedman(RNG.normal(size=(8, 3)) + np.array([0, 1, 2]))
    error = math.sqrt(3 * 4 / (6 * 8))
    single = [2 * stats.norm.sf(abs(found.ranks[i] - found.ranks[1]) / error) for i in (0, 2)]
    first, itself, last = found.against(1)
    assert [first, last] == pytest.approx(list(holm(single))) and itself == 1


def grid(name, values):
    """Three methods on four data sets, three seeds each; `values` of data set and method."""
    settings, of = {}, {}
    for d in range(4):
        for m, method in enumerate(("none", "sam", "fa")):
            condition = f"{d}-{method}"
            settings[condition] = {"data.name": f"set{d}", "data.size": d, "method.name": method}
            settings[condition] |= {"method.rho": 0.05} if method == "sam" else {}
            of[condition] = {seed: values(d, m) + 1e-3 * seed for seed in range(3)}
    return compare_quantity(QUANTITIES[name], of, {}), settings


def test_a_study_of_several_data_sets_has_ranks_of_which_the_first_is_the_best():
    found, settings = grid("test_accuracy", lambda d, m: 0.5 + 0.1 * d + 0.01 * m)
    ranks = ranks_of(found, settings, "0-none", 0.95)
    assert ranks.treatments == ("none", "sam", "fa") and ranks.data == ("set0", "set1", "set2", "set3")
    assert ranks.comparison.ranks == (3, 2, 1) and ranks.against[2] < 0.05 < ranks.against[1]
    lower, settings = grid("test_loss", lambda d, m: 0.5 + 0.1 * d + 0.01 * m)
    assert ranks_of(lower, settings, "0-none", 0.95).comparison.ranks == (1, 2, 3)
    (drawn,) = figures.pictures(ranks)
    assert drawn.alt == "Average ranks: fa 1.00; sam 2.00; none 3.00." and "Nemenyi" in drawn.caption
    shown = section.section(ranks)
    words, _, table = shown.blocks
    assert words.text.startswith("Each data set is one fact") and "With so few data sets" in words.text
    assert "by final test accuracy, 1 the best. Friedman’s test, exact: p = 0.005" in words.text
    sharp, settings = grid(TR_H2, lambda d, m: 0.5 + 0.1 * d + 0.01 * m)
    about = section.about(ranks_of(sharp, settings, "0-none", 0.95))
    assert "by final tr(H²) (lower is flatter), 1 the flattest" in about
    assert [row[0].text for row in table.rows] == ["none", "sam", "fa"] and table.columns[3:] == ranks.data


def test_without_all_treatments_on_all_data_sets_there_are_no_ranks():
    found, settings = grid("test_accuracy", lambda d, m: 0.5 + 0.01 * m)
    some = {c: by for c, by in settings.items() if c != "3-fa"}
    assert ranks_of(found, some, "0-none", 0.95) is None
    one = {c: by for c, by in settings.items() if c.startswith("0")}
    assert ranks_of(found, one, "0-none", 0.95) is None
    two = {c: by for c, by in settings.items() if not c.endswith("fa")}
    assert ranks_of(found, two, "0-none", 0.95) is None
    assert ranks_of(found, {c: {} for c in settings}, "0-none", 0.95) is None

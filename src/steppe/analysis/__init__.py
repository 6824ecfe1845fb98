"""What the numbers say: statistics over seeds, comparisons, and verdicts."""

from steppe.analysis.judgement.arrays import equivalence, judge, non_inferiority
from steppe.analysis.judgement.comparison import Comparison, compare, compare_all
from steppe.analysis.judgement.plan import Plan
from steppe.analysis.statistics.bayes import Posterior, correlated_t, signed_rank
from steppe.analysis.statistics.blocks import RankComparison, cluster_bootstrap, friedman
from steppe.analysis.statistics.corrections import benjamini_hochberg, benjamini_yekutieli, holm
from steppe.analysis.statistics.differences import PValue, smallest_p
from steppe.analysis.statistics.intervals import BootstrapInterval, bootstrap
from steppe.analysis.statistics.power import detectable_difference, equivalence_power, seeds_needed, welch_power
from steppe.analysis.statistics.samples import Summary, summary
from steppe.analysis.verdict import Verdict

__all__ = [
    "BootstrapInterval",
    "Comparison",
    "PValue",
    "Plan",
    "Posterior",
    "RankComparison",
    "Summary",
    "Verdict",
    "benjamini_hochberg",
    "benjamini_yekutieli",
    "bootstrap",
    "cluster_bootstrap",
    "compare",
    "compare_all",
    "correlated_t",
    "detectable_difference",
    "equivalence",
    "equivalence_power",
    "friedman",
    "holm",
    "judge",
    "non_inferiority",
    "seeds_needed",
    "signed_rank",
    "smallest_p",
    "summary",
    "welch_power",
]

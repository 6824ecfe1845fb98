"""Why Slurm lets a task wait, in words, by its documentation of reason codes.

https://slurm.schedmd.com/job_reason_codes.html
"""

import re

NEVER = {
    "BadConstraints": "no machine fits what they ask for",
    "PartitionConfig": "they ask for what the partition does not have or allow",
    "PartitionTimeLimit": "their time limit is above that of the partition",
    "AccountNotAllowed|InvalidAccount": "their account is not one that may compute there",
    "InvalidQOS|QOSNotAllowed": "their quality of service is not one that may be used there",
    "ReservationDeleted": "their reservation is no longer there",
    "DependencyNeverSatisfied": "what they are to wait for never comes",
    "DeadLine": "they cannot end by their deadline",
    r"(Assoc|QOS)Max\w+Per(Job|Node)(Limit)?": "each asks for more than the account or quality of service allows",
    r"QOSMin\w+": "each asks for less than the quality of service demands",
    "MaxMemPerLimit": "they ask for more memory for a core or a machine than is allowed",
    "JobHoldMaxRequeue": "Slurm began them as often as it does",
}
"""Reasons that only another request, or somebody's doing, ends: their forms, and what they mean."""

FOR_NOW = {
    "Resources": "other jobs have the machines",
    "Priority": "other jobs come first",
    "JobArrayTaskLimit": "as many compute as --workers allows",
    "BeginTime": "they are not to begin yet",
    "Dependency": "they are to wait for another job",
    "JobHeldUser|JobHeldAdmin": "they are held; `scontrol release` lets them go",
    "PartitionDown|PartitionInactive": "their partition begins no jobs now",
    "PartitionNodeLimit": "the partition allows another number of machines, or some are down",
    r"ReqNodeNotAvail.*|NodeDown|Nodes required.*|Constraints": "machines that they need are down, drained or reserved",
    "Reservation": "their reservation has not begun",
    "Licenses": "other jobs have the licences",
    r"(AssocGrp|AssocMax|QOSGrp|QOSMax|Max)\w+|(QOS|Association)(Job|Resource|Time)Limit|QOSUsageThreshold":
        "a limit of the account or the quality of service is reached",
}  # fmt: skip
"""Reasons that may pass."""

USUAL = ("", "None", "Resources", "Priority", "JobArrayTaskLimit", "Prolog", "Cleaning")
"""Reasons that nobody needs to hear of as long as other tasks compute."""


def never(reason: str) -> str:
    """What keeps a task from ever being begun, in words; nothing where it may be.

    Examples
    --------
    >>> never("QOSMaxCpuPerJobLimit"), never("QOSMaxCpuPerUserLimit")
    ('each asks for more than the account or quality of service allows (QOSMaxCpuPerJobLimit)', '')
    """
    words = _meaning(reason, NEVER)
    return f"{words} ({reason})" if words else ""


def explained(reason: str) -> str:
    """Why a task waits, in words.

    Examples
    --------
    >>> explained("Priority"), explained("Federation")
    ('other jobs come first (Priority)', 'Slurm says Federation')
    """
    words = _meaning(reason, NEVER | FOR_NOW)
    return f"{words} ({reason})" if words else f"Slurm says {reason}"


def _meaning(reason: str, known: dict[str, str]) -> str:
    return next((words for form, words in known.items() if re.fullmatch(form, reason)), "")

"""Sentences about schemes and policies."""

import pytest

from memtherm.core.attributes import METHODS, MonitoringAttributes
from memtherm.core.guard import GuardSettings
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.scheme import Action, Destination, Scheme
from memtherm.policy.explain import explain, explain_policy
from memtherm.policy.file import parse_policy
from memtherm.policy.scheme_line import parse_scheme_line
from memtherm.policy.values import Policy, TargetSelector, named


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "4K max 0% 0% 2min max pageout",
            "pages out memory in regions of 4 KiB or more that was not accessed for 2 minutes or longer",
        ),
        (
            "100M max 0 5 10min max pageout",
            "pages out memory in regions of 100 MiB or more "
            "with an access rate of at most 5 % for 10 minutes or longer",
        ),
        ("0 0 0 0 0 0 stat", "counts memory in regions of any size at any access rate"),
        ("0 0 0% 0% 0 0 stat", "counts memory in regions of any size that was not accessed in the last window"),
        (
            "4K 2M 5 50 0 1s stat",
            "counts memory in regions of 4 KiB to 2 MiB with an access rate of 5 % to 50 % for at most 1 second",
        ),
        ("0 0 100 100 0 0 stat", "counts memory in regions of any size with an access rate of exactly 100 %"),
        (
            "0 0 0 100 5s 5s stat",
            "counts memory in regions of any size "
            "at any access rate that has stayed about the same for exactly 5 seconds",
        ),
    ],
)
def test_a_scheme_is_one_sentence(line: str, sentence: str) -> None:
    assert explain(parse_scheme_line(line)) == sentence


@pytest.mark.parametrize("action", list(Action))
def test_every_action_has_a_sentence(action: Action) -> None:
    assert " memory in regions of any size" in explain(Scheme(action=action))


def _scheme(action: Action, **bounds: Bounds) -> Scheme:
    return Scheme(action=action, pattern=AccessPattern(**bounds), name="it")


COLD = {"access_rate": Bounds(0, 0), "age_s": Bounds(120, None)}


def test_a_policy_is_explained_from_target_to_guard() -> None:
    policy = Policy(
        targets=(TargetSelector(name="redis-server"), TargetSelector(pid=42)),
        schemes=named([_scheme(Action.PAGEOUT, **COLD), Scheme(action=Action.STAT)]),
    )
    assert explain_policy(policy) == [
        'watches processes named "redis-server" and process 42',
        "counts every page while that is cheap enough, else lets one page speak for its region, "
        "at intervals that fit themselves to the target and to 1 % of one CPU, with 10 to 1000 regions",
        'scheme "it": pages out memory in regions of any size that was not accessed for 2 minutes or longer',
        'scheme "scheme 2 (stat)": counts memory in regions of any size at any access rate',
        "leaves targets alone that have less than 64 MiB in memory and swap together",
        "pages out at most 1 GiB of a target a second on average, leaves 5 % of all swap free, "
        "stops paging out where more than 0.2 % of the working set comes back within a minute, "
        "stops where some task waits for memory more than 10 % of the time and slows down from half of both on",
    ]


LIMITED = """version = 1
[[scheme]]
action = "pageout"
access_rate = "0%"
age = ">= 2min"
"""


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ('quota = { bytes = "128MiB" }', "at most 128 MiB a second"),
        (
            'quota = { bytes = "1GiB", time = "10ms", every = "5s", weights = { age = 1 } }',
            "at most 1 GiB and 10 ms of its time in each 5 seconds, coldest first by age",
        ),
        (
            'quota = { time = "1s", every = "1min", weights = { access_rate = 3, age = 1 }, fail_charge = "1/8" }',
            "at most 1 second of its time a minute, coldest first by access rate and age (3 to 1), "
            "a byte tried in vain counts as 1/8",
        ),
        ('quota = { every = "0s", bytes = "1MiB" }', "at most 1 MiB an apply"),
        (
            'goals = [{ metric = "memory_pressure", target = "10ms" }]',
            "as much as it takes until some task waits for memory for 10 ms a second",
        ),
        (
            'quota = { tuner = "temporal" }\ngoals = [{ metric = "free_memory", target = "20%", node = 1 },'
            ' { metric = "used_memory", target = "30%", cgroup = "/a" },'
            ' { metric = "inactive_memory", target = "5%" }]',
            "without a brake until 20 % of memory of node 1 is free, the cgroup /a uses 30 % of memory "
            "and 5 % of the memory that can be reclaimed is inactive",
        ),
        (
            'goals = [{ metric = "user_input", target = 2.5 }]',
            "as much as it takes until the number that a program gives is 2.5",
        ),
        (
            'watermarks = { high = "50%", mid = "40%", low = "20%" }',
            "only while less than 50 % of memory is free (it starts below 40 %, and rests below 20 %)",
        ),
        ('watermarks = { high = "100%", mid = "100%", low = "5%" }', "only while 5 % or more of memory is free"),
        ('filters = [{ reject = "file" }]', "but not memory of files"),
        ('filters = [{ allow = "anonymous" }]', "only anonymous memory"),
        (
            'filters = [{ reject = "mapping", pattern = "*/libc*", not = true }]',
            "only memory of mappings named */libc*",
        ),
        (
            'filters = [{ reject = "young" }, { allow = "huge_page", size = ">= 2MiB" }]',
            "and of it in this order leaves out memory that was accessed since the last look, "
            "takes memory in pages of 2 MiB or more, leaves out the rest",
        ),
        (
            'filters = [{ allow = "address", range = "4KiB-8KiB" }, { reject = "cgroup", cgroup = "/a" }]',
            "and of it in this order takes memory from 0x1000 to 0x2000, "
            "leaves out memory that is charged to the cgroup /a, takes the rest",
        ),
        ('apply_interval = "10s"', "once in each 10 seconds"),
        ('apply_interval = "1s"\nmax_nr_snapshots = 3', "once a second, and ends after 3 applies"),
    ],
)
def test_each_limit_of_a_scheme_is_told(keys: str, words: str) -> None:
    sentence = explain(parse_policy(LIMITED + keys).schemes[0])
    assert sentence.startswith(
        "pages out memory in regions of any size that was not accessed for 2 minutes or longer, "
    )
    assert words in sentence


def test_destinations_and_targets_are_told() -> None:
    scheme = Scheme(
        action=Action.MIGRATE_HOT, destinations=(Destination(1, 3), Destination(2)), targets=("store", "queue")
    )
    expected = 'moves memory in regions of any size at any access rate, to node 1 (3 of 4) and node 2 (1 of 4), for "'
    assert explain(scheme) == expected + 'store" and "queue" only'
    assert ", to node 4" in explain(Scheme(action=Action.MIGRATE_COLD, destinations=(Destination(4),)))


def test_targets_of_all_kinds_are_told() -> None:
    targets = (
        TargetSelector(name="redis-*", children=True, label="store"),
        TargetSelector(user="postgres"),
        TargetSelector(cgroup="/batch"),
    )
    assert explain_policy(Policy(targets=targets))[0] == (
        'watches processes named "redis-*" with all that they start (called "store"), processes of user postgres '
        "and processes in the cgroup /batch and below it"
    )


ALL_LIMITED = tuple(
    Scheme(action=action) for action in (Action.PAGEOUT, Action.WILLNEED, Action.MIGRATE_HOT, Action.COLLAPSE)
)


def _of_guards(guard: GuardSettings, *schemes: Scheme) -> list[str]:
    return explain_policy(Policy(schemes=named(schemes), guard=guard))[2 + len(schemes) :]


def test_all_guards_are_told() -> None:
    strict = GuardSettings(
        allow_ptrace=True, keep_huge_page_advice=True, max_refault_rate=0.01, max_memory_pressure=0.05,
        max_bytes_per_s=1 << 20, min_free_swap=0.5, override_application_hints=True,
    )  # fmt: skip
    assert _of_guards(strict, *ALL_LIMITED) == [
        "leaves targets alone that have less than 64 MiB in memory and swap together",
        "acts even against huge page advice that the application gave itself",
        "stops a target for a moment to have it give huge page advice itself (ptrace)",
        "leaves the huge page advice that it gave in place at the end",
        "pages out, brings back, moves and collapses at most 1 MiB of a target a second on average, "
        "leaves 50 % of all swap free, "
        "stops paging out where more than 1 % of the working set comes back within a minute, "
        "stops where some task waits for memory more than 5 % of the time and slows down from half of both on",
    ]


def test_guards_that_are_off_are_told() -> None:
    loose = GuardSettings(
        min_target_bytes=0, max_refault_rate=0.0, max_memory_pressure=0.0, max_bytes_per_s=0, min_free_swap=0.0
    )
    assert _of_guards(loose, *ALL_LIMITED) == [
        "pages out, brings back, moves and collapses as much of a target at once as the schemes say",
        "may fill swap",
        "does not mind how much of what it paged out comes back",
        "does not mind memory pressure",
    ]
    one_off = GuardSettings(min_target_bytes=0, max_memory_pressure=0.0)
    assert _of_guards(one_off, Scheme(action=Action.PAGEOUT)) == [
        "pages out at most 1 GiB of a target a second on average, leaves 5 % of all swap free, "
        "stops paging out where more than 0.2 % of the working set comes back within a minute "
        "and slows down from half of that on",
        "does not mind memory pressure",
    ]


@pytest.mark.parametrize(
    ("action", "does"),
    [
        (Action.COLLAPSE, "collapses"),
        (Action.MIGRATE_COLD, "moves"),
        (Action.WILLNEED, "brings back"),
        (Action.STAT, ""),
        (Action.COLD, ""),
    ],
)
def test_guards_are_told_where_they_concern_a_scheme(action: Action, does: str) -> None:
    told = _of_guards(GuardSettings(min_target_bytes=0), Scheme(action=action))
    rest = "stops where some task waits for memory more than 10 % of the time and slows down from half of that on"
    assert told == ([f"{does} at most 1 GiB of a target a second on average, {rest}"] if does else [])


def test_fixed_intervals_are_told() -> None:
    monitor = '[monitor]\nmethod = "census"\nsampling_interval = "1s"'
    policy = parse_policy(f'version = 1\n[[scheme]]\naction = "stat"\n{monitor}')
    sentence = "counts every page, looks every 1 second, decides every 20 seconds, with 10 to 1000 regions"
    assert explain_policy(policy)[1] == sentence


def test_physical_memory_is_watched_by_the_kernel_and_by_nobody_else() -> None:
    (scheme,) = named([_scheme(Action.PAGEOUT, **COLD)])
    watches, looks, *rest = explain_policy(Policy(targets=(TargetSelector(physical=True),), schemes=(scheme,)))
    assert watches == "watches physical memory"
    assert looks.startswith("has the kernel's DAMON look, which lets one page speak for its region, at intervals")
    assert "CPU" not in looks
    assert not any("every page" in one or "comes back" in one or "leaves targets alone" in one for one in rest)
    ranges = ((0x1000, 0x2000),)
    assert explain_policy(Policy(targets=(TargetSelector(physical=True, ranges=ranges, label="low"),)))[0] == (
        'watches physical memory at 0x1000-0x2000 (called "low")'
    )
    of_process, looks, *_ = explain_policy(Policy(targets=(TargetSelector(pid=42, ranges=ranges),)))
    assert of_process == "watches process 42 at 0x1000-0x2000"
    assert looks.startswith("has the kernel's DAMON look")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_explained(method: str) -> None:
    attributes = MonitoringAttributes(method=method)
    assert explain_policy(Policy(attributes=attributes))[1].endswith("with 10 to 1000 regions")

"""Fork, threads, garbage collection, resizing, the exit: each in an interpreter of its own."""

from __future__ import annotations

from arrays.scene import run_program

WAYS = """
WAY = "smaps"
def table(rows=2048):
    values = memtherm.allocate((rows, 4096), "u1", huge_pages=False)
    values[:] = 1
    return values
def mappings(watched):
    start, end = watched.range
    count = 0
    for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(part, 16) for part in line.split()[0].split("-"))
        count += low < end and start < high
    return count
def policies(watched):
    start, end = watched.range
    numa_maps = pathlib.Path("/proc/self/numa_maps")
    lines = [line.split() for line in numa_maps.read_text().splitlines()] if numa_maps.exists() else []
    return {line[1] for line in lines if start <= int(line[0], 16) < end}
def is_watching():
    return any(thread.name == "memtherm" for thread in threading.enumerate())
"""


def test_a_watch_goes_on_in_the_parent_of_a_fork_and_ends_in_the_child() -> None:
    assert (
        run_program(
            WAYS
            + """
values = table()
with memtherm.watch(values, name="table", way=WAY, interval_s=0.05) as watched:
    next(watched.snapshots())
    before = mappings(watched)
    assert before > 1
    child = os.fork()
    if not child:
        try:
            # The kernel does not join mappings of a fork; but nothing of ours is left on them.
            assert policies(watched) <= {"default"}, policies(watched)
            assert list(watched.snapshots()) == []
            assert "fork" in watched.events[-1], watched.events
            assert len(watched.access_rate()) == 2048
            try:
                watched.advise("cold")
            except memtherm.TargetGone as problem:
                assert "fork" in str(problem)
            else:
                raise AssertionError
            watched.close()
            with memtherm.watch(values, way=WAY, interval_s=0.05) as again:
                next(again.snapshots())
        except BaseException as problem:
            print("child:", repr(problem), flush=True)
            os._exit(1)
        os._exit(0)
    print(os.waitpid(child, 0)[1])
    assert mappings(watched) == before
    print(len(list(watched.snapshots(3))))
assert mappings(watched) == 1
"""
        )
        == "0\n3\n"
    )


def test_forks_in_the_middle_of_looks_and_actions_hang_nobody() -> None:
    assert (
        run_program(
            WAYS
            + """
values = table()
stop = threading.Event()
def act():
    while not stop.is_set():
        watched.advise("cold", slice(0, 100))
with memtherm.watch(values, way="auto", interval_s=0.005) as watched:
    thread = threading.Thread(target=act)
    thread.start()
    for _ in range(30):
        child = os.fork()
        if not child:
            watched.close()
            gc.collect()
            sys.exit()
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    thread.join()
    print(len(list(watched.snapshots(2))))
"""
        )
        == "2\n"
    )


def test_a_freed_array_ends_its_watch_before_its_addresses_are_used_again() -> None:
    assert (
        run_program(
            WAYS
            + """
from memtherm.arrays import held
values = table()
watched = memtherm.watch(values, name="table", way=WAY, interval_s=0.05).start()
rates = watched.access_rate()
assert mappings(watched) > 1
seen = []
end = held.Held.end
def spy(self, why):
    end(self, why)
    seen.append((why, mappings(watched)))
held.Held.end = spy
view = values[3:5]
del values
gc.collect()
assert not seen
del view
assert seen[0] == ("was freed", 1), seen
list(watched.snapshots())
assert watched.events[-1] == '"table" was freed', watched.events
assert len(watched.access_rate()) == len(rates)
try:
    watched.advise("pageout")
except memtherm.TargetGone as problem:
    print(problem)
watched.close()
assert not is_watching()
"""
        )
        == 'the array "table" was freed\n'
    )


def test_arrays_that_die_at_any_moment() -> None:
    assert (
        run_program(
            WAYS
            + """
import random
for _ in range(25):
    values = table(512)
    watched = memtherm.watch(values, way="auto", interval_s=0.005).start()
    threading.Event().wait(random.random() / 50)
    del values
    list(watched.reports())
    assert "was freed" in watched.events[-1], watched.events
    watched.close()
assert not is_watching()
print("well")
"""
        )
        == "well\n"
    )


def test_arrays_in_a_circle_that_the_garbage_collector_finds() -> None:
    assert (
        run_program(
            WAYS
            + """
class Model:
    def __init__(self):
        self.table, self.me = table(), self
model = Model()
watched = memtherm.watch(model.table, name="table", way=WAY, interval_s=0.05).start()
next(watched.snapshots())
del model
gc.collect()
list(watched.snapshots())
print(watched.events[-1])
"""
        )
        == '"table" was freed\n'
    )


def test_an_array_that_nobody_else_keeps_is_told_at_the_beginning() -> None:
    assert (
        run_program(
            WAYS
            + """
watched = memtherm.watch(table(), name="table", way=WAY)
try:
    watched.start()
except memtherm.InvalidInput as problem:
    print(problem, "-", problem.hint)
"""
        )
        == 'the array "table" was freed before its watch began - keep a reference to it\n'
    )


def test_memory_that_moves_ends_the_watch() -> None:
    assert (
        run_program(
            WAYS
            + """
import array, mmap
values = array.array("d", bytes(8 << 20))
watched = memtherm.watch(values, name="numbers", way=WAY, interval_s=0.05).start()
next(watched.snapshots())
values.extend(array.array("d", bytes(64 << 20)))
list(watched.snapshots())
print(watched.events[-1])
mapping = mmap.mmap(-1, 8 << 20)
watched = memtherm.watch(mapping, name="mapping", way=WAY, interval_s=0.05).start()
next(watched.snapshots())
mapping.close()
list(watched.snapshots())
print(watched.events[-1])
numbers = np.ones(1 << 20)
with memtherm.watch(numbers, way=WAY, interval_s=0.05) as watched:
    next(watched.snapshots())
    try:
        numbers.resize(1 << 22, refcheck=False)
    except ValueError as problem:
        print("numpy refuses")
    next(watched.snapshots())
"""
        )
        == '"numbers" was resized or given back: its memory is not where it was\n'
        '"mapping" was resized or given back: its memory is not where it was\n'
        "numpy refuses\n"
    )


def test_the_interpreter_ends_with_watches_that_run() -> None:
    assert (
        run_program(
            WAYS
            + """
values, others = table(), table()
kept = memtherm.watch(values, way=WAY, interval_s=0.05).start()
also = memtherm.watch(others, way="auto").start()
next(kept.snapshots())
def read():
    for _ in kept.snapshots():
        pass
threading.Thread(target=read, daemon=True).start()
import atexit
atexit.register(lambda: print("the end"))
"""
        )
        == "the end\n"
    )


def test_the_interpreter_ends_by_an_exception_with_a_watch_that_runs() -> None:
    assert (
        run_program(
            WAYS
            + """
values = table()
try:
    with memtherm.watch(values, way=WAY, interval_s=0.05) as watched:
        next(watched.snapshots())
        cut = mappings(watched)
        raise KeyError("mine")
except KeyError as problem:
    print(problem, cut > 1, mappings(watched), is_watching())
"""
        )
        == "'mine' True 1 False\n"
    )


def test_many_threads_read_advise_and_end_one_watch() -> None:
    assert run_program(
        WAYS
        + """
values = table()
problems = []
watched = memtherm.watch(values, way="auto", interval_s=0.01).start()
def use(number):
    try:
        for turn in range(20):
            watched.access_rate()
            watched.age(by="page")
            watched.rows_below(0.5)
            watched.advise("cold", slice(number * 100, number * 100 + 50))
            watched.start()
        watched.close()
    except memtherm.TargetGone:
        pass
    except BaseException as problem:
        problems.append(repr(problem))
threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not is_watching()
print(problems)
"""
    ) in ("[]\n",)


def test_a_watch_that_is_ended_by_a_finalizer_in_its_own_thread() -> None:
    assert (
        run_program(
            WAYS
            + """
values, others = table(), table()
watched = memtherm.watch(values, way=WAY, interval_s=0.05).start()
closed = []
watched._engine.session.listen(lambda report: closed.append(watched.close()))
list(watched.snapshots())
watched.close()
print(len(closed) > 0, is_watching())
"""
        )
        == "True False\n"
    )


def test_multiprocessing_workers_by_fork() -> None:
    assert (
        run_program(
            WAYS
            + """
import multiprocessing
values = table()
def work(row):
    return int(values[row].sum()), len(watched.access_rate())
with memtherm.watch(values, way=WAY, interval_s=0.05) as watched:
    next(watched.snapshots())
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(work, [1, 2]))
    print(len(list(watched.snapshots(2))))
"""
        )
        == "[(4096, 2048), (4096, 2048)]\n2\n"
    )

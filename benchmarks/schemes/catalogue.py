"""The programs, each with a habit of its own; a run is a fixed amount of work."""

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.schemes import database
from benchmarks.schemes.processes import Command
from benchmarks.schemes.workshop import PROGRAMS, Workshop, version

_ITEMS = 128_000
_KEYS = 256_000
_SOURCES = 2


def _nothing(_: Workshop) -> None:
    pass


def _json(text: str) -> dict[str, Any]:
    """The line of JSON that a program ends with."""
    work: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    return work


@dataclass(frozen=True, kw_only=True)
class Program:
    """One program of the benchmark.

    Attributes:
        habit: how it uses memory, in a few words for the table.
        needs: what must be on PATH.
        work: what is started when the clock starts; its end stops the clock.
        server: a service that is up before the clock starts, and is then the target in place of `work`.
        is_ready: whether the server answers.
        prepare: once, before all runs.
        has_children: the memory is in children of the target.
        done: the work that was done, from what `work` printed; the same in each run.
        version_of: the command that tells the version.
        side_share: of its work, where it is not the question but takes long: in tuning, and with huge pages.
    """

    name: str
    habit: str
    needs: tuple[str, ...]
    work: Callable[[Workshop], Command]
    server: Callable[[Workshop], Command] | None = None
    is_ready: Callable[[Workshop], bool] | None = None
    prepare: Callable[[Workshop], None] = _nothing
    has_children: bool = False
    done: Callable[[str], dict[str, Any]] = _json
    version_of: tuple[str, ...] = ()
    side_share: float = 1.0

    def version(self) -> str:
        return f"{self.name} {version(*self.version_of)}"


def _command(*arguments: object, **more: Any) -> Command:
    return Command(arguments=tuple(str(argument) for argument in arguments), **more)


def _redis(shop: Workshop) -> Command:
    # redis keeps huge pages away from itself unless told otherwise; here the host's mode is to decide.
    return _command(
        "redis-server", "--port", 0, "--unixsocket", shop.fresh_path("redis.socket"),
        "--save", "", "--appendonly", "no", "--dir", shop.folder, "--disable-thp", "no",
    )  # fmt: skip


def _redis_load(shop: Workshop) -> Command:
    requests = shop.amount(10_000_000, step=32)
    return _command(shop.compiled("load"), "redis", shop.path("redis.socket"), _KEYS, requests, 1.3)


def _node(shop: Workshop) -> Command:
    return _command("node", PROGRAMS / "service.mjs", shop.fresh_path("node.socket"))


def _node_load(shop: Workshop) -> Command:
    requests = shop.amount(1_500_000, step=32)
    return _command(shop.compiled("load"), "http", shop.path("node.socket"), _ITEMS, requests, 1.1)


def _socket(name: str) -> Callable[[Workshop], bool]:
    return lambda shop: (shop.folder / name).exists()


def _loader(shop: Workshop) -> None:
    shop.compiled("load")


def _sources(shop: Workshop) -> list[str]:
    return [shop.path(f"source{number}.c") for number in range(_SOURCES)]


def _write_sources(shop: Workshop) -> None:
    from benchmarks.schemes.processes import run

    functions = shop.amount(420)
    for number, path in enumerate(_sources(shop)):
        run(
            _command(sys.executable, PROGRAMS / "source.py", path, functions, number), folder=shop.folder, name="source"
        )


def _compile(shop: Workshop) -> Command:
    paths = [shlex.quote(path) for path in _sources(shop)]
    steps = [f"gcc -O2 -w -c {path} -o {path}.o" for path in paths]
    objects = " ".join(f"{path}.o" for path in paths)
    report = f'printf \'{{"object_bytes": %d}}\\n\' "$(cat {objects} | wc -c)"'
    return _command("sh", "-c", " && ".join([*steps, report]))


def _phases(shop: Workshop) -> Command:
    # numpy asks for huge pages itself unless told otherwise; here the host's mode is to decide.
    environment = (("NUMPY_MADVISE_HUGEPAGE", "0"),)
    return _command(sys.executable, PROGRAMS / "phases.py", 160, shop.amount(40), environment=environment)


def _write_queries(shop: Workshop) -> None:
    text = (PROGRAMS / "small.sql").read_text().replace("@QUERIES@", str(shop.amount(16_000)))
    (shop.folder / "small.sql").write_text(text)


CATALOGUE = (
    Program(
        name="redis",
        habit="in-memory store, Zipf 1.3, the newest keys hottest",
        needs=("redis-server", "cc"),
        prepare=_loader,
        server=_redis,
        is_ready=_socket("redis.socket"),
        work=_redis_load,
        version_of=("redis-server", "--version"),
    ),
    Program(
        name="postgres",
        habit="database, 680 MiB in its buffer pool, Zipf 1.3",
        needs=("postgres",),
        prepare=database.prepare,
        server=database.server,
        is_ready=database.is_ready,
        work=database.work,
        has_children=True,
        done=database.done,
        version_of=("sh", "-c", "/usr/lib/postgresql/*/bin/postgres --version"),
    ),
    Program(
        name="node",
        habit="HTTP service with a cache of pages, Zipf 1.1, hot ones scattered",
        needs=("node", "cc"),
        prepare=_loader,
        server=_node,
        is_ready=_socket("node.socket"),
        work=_node_load,
        version_of=("node", "--version"),
    ),
    Program(
        name="numpy",
        habit="four fields made at once, worked on one after the other",
        needs=(),
        work=_phases,
        version_of=(sys.executable, "-c", "import numpy; print('numpy', numpy.__version__)"),
    ),
    Program(
        name="gcc",
        habit="compiler, two large files in turn",
        needs=("gcc", "sh"),
        prepare=_write_sources,
        work=_compile,
        has_children=True,
        version_of=("gcc", "--version"),
    ),
    Program(
        name="gather",
        habit="random walks over a sparse graph, beside half-used buffers",
        needs=("cc",),
        prepare=lambda shop: _compiled(shop, "gather"),
        work=lambda shop: _command(shop.compiled("gather"), 24_000_000, shop.amount(40), 2_500_000),
    ),
    Program(
        name="cold_start",
        habit="loads 800 MiB, then answers from 4 MiB",
        needs=("cc",),
        prepare=lambda shop: _compiled(shop, "cold_start"),
        work=lambda shop: _command(shop.compiled("cold_start"), 800, shop.amount(5_400_000_000)),
        side_share=0.2,
    ),
    Program(
        name="scattered",
        habit="one page in each 64 KiB of 1 GiB, beside 320 MiB that are hot",
        needs=("cc",),
        prepare=lambda shop: _compiled(shop, "scattered"),
        work=lambda shop: _command(shop.compiled("scattered"), 1024, 320, shop.amount(1800, step=8), 60_000),
    ),
    Program(
        name="small",
        habit="sqlite3 with 20 MiB: below the floor, to be left alone",
        needs=("sqlite3",),
        prepare=_write_queries,
        work=lambda shop: _command("sqlite3", ":memory:", stdin_path=shop.folder / "small.sql"),
        version_of=("sqlite3", "--version"),
    ),
)


def _compiled(shop: Workshop, name: str) -> None:
    shop.compiled(name)

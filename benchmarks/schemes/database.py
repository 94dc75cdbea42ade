"""PostgreSQL as an instance of our own: data, socket and process in the workshop, nothing of the system's."""

import re
import subprocess
from typing import Any

from benchmarks.schemes.processes import BenchmarkError, Command, run, started, wait_until
from benchmarks.schemes.workshop import Workshop, own_user, postgres_tool

_SCALE = 42  # 100,000 rows each: 540 MiB of table, 90 MiB of index
_USER = "bench"
_SETTINGS = """\
listen_addresses = ''
unix_socket_directories = '{folder}'
shared_buffers = 768MB
huge_pages = off
fsync = off
autovacuum = off
jit = off
max_parallel_workers_per_gather = 0
max_wal_size = 4GB
checkpoint_timeout = 1h
"""
# The one session reads all into the buffer pool before its first query: what is mapped once can be paged out.
_WARM = """\
\\if :warm
\\else
SELECT pg_prewarm('pgbench_accounts', 'buffer') + pg_prewarm('pgbench_accounts_pkey', 'buffer');
\\set warm 1
\\endif
"""
_LOOKUP = """\
\\set aid random_zipfian(1, {rows}, 1.3)
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
"""
_LOOKUPS = 25  # sent together: one by one, most of the time goes to waking the other side up


def prepare(shop: Workshop) -> None:
    """A database of which runs only read."""
    folder = shop.folder / "postgres"
    folder.mkdir()
    if own_user() is not None:
        subprocess.run(("chown", "postgres", str(folder)), check=True)
    tool = postgres_tool("initdb")
    _run(shop, tool, "-D", shop.path("postgres/data"), "-U", _USER, "--auth=trust", "--no-sync", "--locale=C.UTF-8")
    with (folder / "data" / "postgresql.conf").open("a") as settings:
        settings.write(_SETTINGS.format(folder=folder))
    lookups = _LOOKUP.format(rows=_SCALE * 100_000) * _LOOKUPS
    (shop.folder / "lookup.pgbench").write_text(f"{_WARM}\\startpipeline\n{lookups}\\endpipeline\n")
    with started(server(shop), folder=shop.folder, name="postgres"):
        wait_until(lambda: is_ready(shop), what="postgres")
        _run(shop, postgres_tool("pgbench"), "-i", "-q", "-s", str(_SCALE), *_connection(shop))
        for statement in ("CREATE EXTENSION pg_prewarm", "VACUUM FREEZE", "CHECKPOINT"):
            _run(shop, postgres_tool("psql"), "-q", "-c", statement, *_connection(shop))


def server(shop: Workshop) -> Command:
    arguments = (postgres_tool("postgres"), "-D", shop.path("postgres/data"))
    return Command(arguments=arguments, user=own_user())


def is_ready(shop: Workshop) -> bool:
    arguments = (postgres_tool("pg_isready"), "-q", "-h", shop.path("postgres"))
    return subprocess.run(arguments, check=False).returncode == 0


def work(shop: Workshop) -> Command:
    transactions = shop.amount(115_000)
    arguments = (
        postgres_tool("pgbench"), "-n", "-c", "1", "-t", str(transactions), "-M", "prepared", "--random-seed=1",
        "-D", "warm=0", "-f", shop.path("lookup.pgbench"), *_connection(shop),
    )  # fmt: skip
    return Command(arguments=arguments)


def done(text: str) -> dict[str, Any]:
    """What pgbench says that it did."""
    found = re.search(r"actually processed: (\d+)/\1$", text, re.MULTILINE)
    if found is None:
        raise BenchmarkError(f"pgbench did not do all of its work: {text.strip()}")
    return {"lookups": int(found[1]) * _LOOKUPS}


def _connection(shop: Workshop) -> tuple[str, ...]:
    return "-h", shop.path("postgres"), "-U", _USER, "postgres"


def _run(shop: Workshop, *arguments: str) -> None:
    run(Command(arguments=arguments, user=own_user()), folder=shop.folder, name="prepare-postgres")

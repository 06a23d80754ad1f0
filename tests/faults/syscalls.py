"""Whether the order of a process's system calls made what it stored durable.

Only a power cut or this order prove durability: after `kill -9` the page cache is still there.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.oracles import Syscall

CALLS = "write,pwrite64,writev,pwritev,fsync,fdatasync,rename,renameat,renameat2,sendto,sendmsg"
SYNCS = ("fsync", "fdatasync")
RENAMES = ("rename", "renameat", "renameat2")
WRITES = ("write", "pwrite64", "writev", "pwritev")
SENDS = ("sendto", "sendmsg", "write", "writev")


def faults(calls: Sequence[Syscall], target: str, wal: str, answer: str) -> list[str]:
    """What is wrong with the order in which one picture was stored.

    Args:
        calls: of everything that took part.
        target: the path of the stored original.
        wal: the path of the database's write-ahead log.
        answer: what the bytes begin with that acknowledge it.
    Returns: one sentence a fault; none: a power cut at any time loses nothing acknowledged.
    """
    calls = [call for call in calls if call.ok]
    renames = [call for call in calls if call.name in RENAMES and call.paths[-1] == target]
    answers = [call for call in calls if call.name in SENDS and f'"{answer}' in call.arguments]
    if len(renames) != 1 or not answers:
        return [f"{len(renames)} renames to the key, {len(answers)} answers"]
    rename, answered = renames[0], answers[-1].start
    source, folder = rename.paths[0], target.rpartition("/")[0]
    written = [call.end for call in _writes(calls, source)]
    logged = [call.end for call in _writes(calls, wal) if rename.end < call.end < answered]
    found = []
    if not written or not _synced(calls, source, max(written), rename.start):
        found.append("the file is not synced between its last write and its rename")
    if not logged or not _synced(calls, folder, rename.end, min(logged)):
        found.append("the folder is not synced between the rename and the row")
    if not logged or not _synced(calls, wal, max(logged), answered):
        found.append("the row is not synced before the answer")
    return found


def _writes(calls: Sequence[Syscall], path: str) -> list[Syscall]:
    return [call for call in calls if call.name in WRITES and call.paths[:1] == (path,)]


def _synced(calls: Sequence[Syscall], path: str, after: float, before: float) -> bool:
    return any(
        call.name in SYNCS and call.paths == (path,) and after < call.start and call.end < before
        for call in calls
    )

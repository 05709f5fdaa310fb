from typing import NamedTuple

__all__ = ['DEFAULT_MAX_CHUNKS', 'Stats', 'disable', 'enable', 'is_enabled', 'stats', 'why_off']

DEFAULT_MAX_CHUNKS: int

class Stats(NamedTuple):
    hits: int
    misses: int
    cached: int
    limit: int

def enable(max_chunks: int = ...) -> bool: ...
def disable() -> None: ...
def is_enabled() -> bool: ...
def why_off() -> str | None: ...
def stats() -> Stats: ...

"""Memory that a training on a CPU keeps from step to step.

By default the C library (glibc) gives large blocks back to the system as soon as they are free, and the
system maps them again at the next step, page by page, each filled with zeros first: a tenth of a step's time.
"""
import ctypes
import platform
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's names of what `mallopt` sets
ALL = 2**30  # bytes: blocks up to this size are kept
# what glibc itself arrives at once blocks of 32 MB were freed, its largest
USUAL = {MMAP_THRESHOLD: 2**25, TRIM_THRESHOLD: 2**26}

_users = 0  # trainings that run in this process


@contextmanager
def freed_memory_kept():
    """Within it, memory that this process frees stays its own; at the end what is free goes back to the
    system. Does nothing where the C library is not glibc."""
    global _users
    library = ctypes.CDLL(None) if platform.libc_ver()[0] == 'glibc' else None
    if library is None:
        yield
        return
    _users += 1
    # as much at the heap's end as an int can say
    _set(library, {MMAP_THRESHOLD: ALL, TRIM_THRESHOLD: 2**31 - 1})
    try: yield
    finally:
        _users -= 1
        if not _users:
            _set(library, USUAL)
            library.malloc_trim(0)


def _set(library, values):
    for name, value in values.items(): library.mallopt(name, value)

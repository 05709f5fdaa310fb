"""Benchmarks that a user can run: python -m gevent_cbase.bench --help.

``__main__`` reads the command line, ``connections``, ``wsgi``, ``io``, ``spawn`` and ``loop``
measure, ``servers`` and ``echo`` are what runs in the servers' processes, ``children`` starts and
ends these, ``strace`` counts their system calls, ``report`` and ``plot`` show the results,
``summary`` those of many runs. The clients are in C, in gevent_cbase._load.
"""

"""A Python frame where there would be none: see cbase_call_has_no_frame() in src/cbase.h."""


def call(function, /, *args, **kwargs):
    return function(*args, **kwargs)

"""A Python frame where there would be none: see cbase_has_no_frame() in src/cbase.h."""


def call(function, /, *args, **kwargs):
    return function(*args, **kwargs)

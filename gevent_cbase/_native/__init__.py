"""The Python half of the native steps; importing this package itself imports nothing."""

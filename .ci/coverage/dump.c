/* Linked into the extension by nox's session `coverage`, for sitecustomize.py beside it. */
void __gcov_dump(void);
__attribute__((visibility("default"))) void coverage_dump(void);

/* Writes what gcov has counted in this process, as it does when a process ends by itself. */
void
coverage_dump(void)
{
    __gcov_dump();
}

"""``allo.autoscheduler.util``: importable; there is no search that would need it."""

"""Who has to act when something fails: a person (`DataError`, `SettingsError`) or time (`TemporaryError`)."""


class DataError(ValueError):
    """Permanent: the same input fails again. The message names the file, hour, token or field, and what to do."""


class SettingsError(ValueError):
    """A setting that is unknown or impossible; one sentence that names the variable."""


class TemporaryError(RuntimeError):
    """Passing: the network, a rate limit or a busy server; trying again later may succeed."""

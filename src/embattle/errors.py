"""Every exception Embattle raises on purpose.

::

    EmbattleError                    exit code
    ├── InputError (ValueError)          2      something the caller gave; the message says what is allowed
    │   ├── PixelError                          pixels outside [0, 1], NaN, wrong shape or type
    │   ├── ImageFileError                      a file that is no picture we can read safely
    │   ├── DataError                           a data set that is missing, empty, too small or damaged
    │   ├── ModelError                          a model that cannot be loaded, or whose embeddings are unusable
    │   ├── BudgetError                         a perturbation budget or step count that makes no sense
    │   ├── ConfigError                         an unknown key, flag, name or value
    │   └── RunMismatch                         a run folder that belongs to another configuration
    ├── MissingDependency (ImportError)  2      an optional package that the asked-for feature needs
    ├── GateFailed                       1      a gate the owner named does not hold
    └── RunIncomplete                    3      interrupted, disk full, endpoint down: start the same command again

Anything else that reaches the command line is a bug of ours: exit code 70.
"""

from __future__ import annotations


class EmbattleError(Exception):
    """Root of all exceptions raised on purpose; `exit_code` is what the command line returns for it."""

    exit_code = 2


class InputError(EmbattleError, ValueError):
    """Something the caller gave cannot be used; the message says what was given and what is allowed."""


class PixelError(InputError):
    """Pixels outside [0, 1], not finite, or of the wrong shape or type."""


class ImageFileError(InputError):
    """A file that is not a picture, is damaged, or is too large to be decoded safely."""


class DataError(InputError):
    """A data set that is missing, empty, too small for what was asked, or damaged."""


class ModelError(InputError):
    """A model that cannot be loaded, or whose embeddings cannot be used (rank, NaN, all equal, zero)."""


class BudgetError(InputError):
    """A perturbation budget, step size or step count that makes no sense."""


class ConfigError(InputError):
    """An unknown key, flag or name, or a value of the wrong kind."""


class RunMismatch(InputError):
    """A run folder that belongs to another configuration."""


class MissingDependency(EmbattleError, ImportError):
    """An optional package that the asked-for feature needs is not installed."""


class GateFailed(EmbattleError):
    """A gate that the owner named does not hold."""

    exit_code = 1


class RunIncomplete(EmbattleError):
    """A run that stopped before its end (interrupt, full disk); the same command goes on."""

    exit_code = 3

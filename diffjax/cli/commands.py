"""All commands; importing a command's module adds it to the group."""

from diffjax.cli import (  # noqa: F401
    app,
    audit,
    baseline,
    bench,
    calibrate,
    classify,
    evaluate,
    explain,
    features,
    learn,
    models,
    official,
    report,
    reproduce,
    rescore,
    robustness,
    sample,
    study,
    train,
    winoground,
)
from diffjax.cli.group import group

__all__ = ["group"]

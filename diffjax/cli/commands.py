"""All commands; importing a command's module adds it to the group."""

from diffjax.cli import classify, models, train
from diffjax.cli.group import group

__all__ = ["classify", "group", "models", "train"]

# The public names, which __init__.py reads from here and type checkers too.
from diffjax.checkpoints.loading import load_model as load_model
from diffjax.classify.classifier import DiffusionClassifier as DiffusionClassifier
from diffjax.classify.explanation import explain as explain
from diffjax.classify.progress import Progress as Progress
from diffjax.classify.record import Record as Record
from diffjax.classify.settings import Settings as Settings
from diffjax.data.prompts import Prompts as Prompts
from diffjax.errors import DiffjaxError as DiffjaxError
from diffjax.evaluation.call import evaluate as evaluate
from diffjax.runs.folder import read_run as read_run
from diffjax.runs.run import Run as Run
from diffjax.schedules import Schedule as Schedule
from diffjax.strategies.exhaustive import Exhaustive as Exhaustive
from diffjax.strategies.racing import Racing as Racing
from diffjax.strategies.shortlist import Shortlist as Shortlist
from diffjax.strategies.staged import Staged as Staged

__version__: str

"""What a run will cost, told before it begins."""

from noise_runs import Made, N, class_source, task_of, variant

from diffjax.evaluation.plan import make_plan
from diffjax.evaluation.provenance import VARIABLES, environment
from diffjax.evaluation.runner import evaluate
from diffjax.scoring import grid
from diffjax.strategies.racing import Racing
from diffjax.strategies.staged import Staged


def test_a_plan_is_what_a_run_then_does(whole, classifier, monkeypatch, tmp_path):
    task = task_of(Made())
    plan = make_plan(task, classifier)
    assert (plan.images, plan.classes, plan.prompts) == (N, 4, 4)
    assert set(whole[0].rows["evaluations"].to_pylist()) == {plan.evaluations_per_image}
    assert plan.fewest_evaluations_per_image == plan.evaluations_per_image
    assert plan.evaluations == N * plan.evaluations_per_image
    assert plan.flops_per_image > 1e6 and plan.seconds_per_image > 0
    assert plan.flops == N * plan.flops_per_image
    assert plan.seconds == N * plan.seconds_per_image
    assert plan.device == classifier.device
    cells = []

    def counting(*args, **kwargs):
        errors = tile_errors(*args, **kwargs)
        cells.append(errors[0].size)
        return errors

    tile_errors = grid.tile_errors
    monkeypatch.setattr(grid, "tile_errors", counting)
    evaluate(task_of(Made(), [0]), classifier, tmp_path / "run")
    assert sum(cells) == plan.passes_per_image


def test_a_plan_counts_what_fills_up_the_tiles(classifier):
    strategy = Staged(to_keep=(3, 1), n_samples=(1, 3))
    odd = variant(classifier, strategy=strategy, cells=16)
    plan = make_plan(task_of(Made()), odd)
    # three classes are a row of four
    assert (plan.evaluations_per_image, plan.passes_per_image) == (4 + 6, 4 + 8)
    narrow = make_plan(task_of(Made()), variant(odd, cells=2))  # of one class each
    assert narrow.passes_per_image == narrow.evaluations_per_image == 4 + 6


def test_a_plan_of_a_race_says_what_it_needs_at_least_and_at_most(classifier):
    race = variant(classifier, strategy=Racing(n_samples=8, floor=3, chunk=2))
    plan = make_plan(task_of(Made()), race)
    assert (plan.fewest_evaluations_per_image, plan.evaluations_per_image) == (12, 32)


def test_a_plan_of_a_class_model_takes_its_classes(class_classifier):
    plan = make_plan(task_of(class_source(), [0]), class_classifier)
    assert (plan.classes, plan.evaluations_per_image) == (10, 10 * 2 + 2 * 2)


def test_variables_that_round_otherwise_are_in_the_header(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert not set(VARIABLES) & set(environment("a device"))
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    assert environment("a device")["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=true"

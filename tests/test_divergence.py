"""A loss that is not finite stops a training."""

from __future__ import annotations

import math

import pytest
from small import CPU, Breaks, data, recipe, small, weights

from ianet.training import divergence
from ianet.training.divergence import DivergenceError
from ianet.training.fit import fit


@pytest.mark.parametrize(
    ("late", "passes"),
    [
        (1, 6),  # at once, as on a CPU
        (3, 7),  # as on a GPU: step 2 of epoch 2 is seen after its third step
        (100, 8),  # and at the end of the epoch
    ],
)
def test_a_loss_that_is_not_finite_stops_the_training(
    late: int, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four steps an epoch; the sixth breaks, after the learning rate was halved."""
    monkeypatch.setitem(divergence.INTERVALS, "cpu", late)
    network = Breaks(6)
    options = recipe(milestones=(1,), gamma=0.5)
    epochs = fit(network, *data(), options, seed=0, device=CPU)
    assert math.isfinite(next(epochs).loss)
    with pytest.raises(DivergenceError) as info:
        next(epochs)
    assert str(info.value) == (
        "the loss is not finite in epoch 2, step 2, at a learning rate of 0.005: lower lr in the "
        "recipe, or raise its warm_up"
    )
    assert network.passes == passes
    # On a CPU the weights are those before the step.
    assert bool(weights(network).isfinite().all()) == (late == 1)


@pytest.mark.parametrize("late", [1, 100])
def test_a_learning_rate_that_is_far_too_high(late: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(divergence.INTERVALS, "cpu", late)
    with pytest.raises(DivergenceError, match=r"epoch 1, step 2, at a learning rate of 1e\+20: "):
        list(fit(small(), *data(), recipe(lr=1e20), seed=0, device=CPU))

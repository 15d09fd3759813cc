"""`fit` against a plain loop, its resumption, its sharing among workers, its schedules."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import CPU, RECIPE, STRONG, Breaks, data, recipe, small, weights
from torch import distributed, multiprocessing, nn
from torch.nn import functional as F

from ianet.features import extract
from ianet.images import normalize, random_boxes
from ianet.losses import batch_hard_triplet
from ianet.network import Network
from ianet.options import NetworkOptions
from ianet.training.batches import identity_batches
from ianet.training.divergence import DivergenceError
from ianet.training.fit import fit
from ianet.training.recipe import Distance


def test_fit_is_the_plain_loop() -> None:
    """Adam with L2 decay, cross entropy, steps at milestones, written out the slow way."""
    images, labels = data()
    options = recipe(epochs=2, milestones=(1,), gamma=0.5, flip=0.5, label_smoothing=0.1)
    fitted, plain = small(), small()
    reports = list(fit(fitted, images, labels, options, seed=3, device=CPU))

    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-2, weight_decay=5e-4)
    losses, right = [], 0
    for epoch in (1, 2):
        generator = np.random.default_rng([3, epoch])
        generator.integers(2**31)  # the seed of torch's own generator
        order = np.array_split(generator.permutation(20), 4)
        losses, right = [], 0
        for rows in order:
            mirrored = generator.random(len(rows)) < 0.5
            inputs = torch.stack(
                [
                    normalize(image.flip(1)[None] if mirror else image[None])[0]
                    for image, mirror in zip(images[rows], mirrored, strict=True)
                ]
            )
            logits, _ = plain(inputs)
            loss = F.cross_entropy(logits, labels[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses += [loss.item()] * len(rows)
            right += int((logits.argmax(1) == labels[rows]).sum())
        optimizer.param_groups[0]["lr"] = 5e-3
    torch.testing.assert_close(weights(fitted), weights(plain), rtol=1e-4, atol=1e-6)
    assert reports[-1].loss == pytest.approx(np.mean(losses), rel=1e-4)
    assert reports[-1].accuracy == pytest.approx(right / 20)
    assert [report.lr for report in reports] == [5e-3, 5e-3]


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_fit_with_every_option_is_the_plain_loop(distance: Distance) -> None:
    """Batches of 3 identities with 2 images each, each image augmented by itself."""
    images, labels = data()
    fitted, plain = small(), small()
    options = recipe(flip=0.5, triplet_distance=distance, **STRONG)
    report = next(fit(fitted, images, labels, options, seed=3, device=CPU))

    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-2, weight_decay=5e-4)
    generator = np.random.default_rng([3, 1])
    generator.integers(2**31)  # the seed of torch's own generator
    order = identity_batches(labels.numpy(), 6, 2, generator)
    losses, triplets = [], []
    for step, rows in enumerate(order):
        mirrored = generator.random(6) < 0.5
        corners = generator.integers(5, size=(6, 2))
        boxes = random_boxes(6, (16, 8), 0.5, generator)
        inputs = []
        for row, mirror, (top, left), box in zip(rows, mirrored, corners, boxes, strict=True):
            padded = np.pad(images[row].numpy(), [(2, 2), (2, 2), (0, 0)])
            image = torch.from_numpy(padded[top : top + 16, left : left + 8].copy())
            one = normalize(image.flip(1)[None] if mirror else image[None])[0]
            one[:, box[0] : box[0] + box[2], box[1] : box[1] + box[3]] = 0
            inputs.append(one)
        logits, embeddings = plain(torch.stack(inputs))
        triplet = batch_hard_triplet(embeddings, labels[rows], 0.3, distance).mean()
        loss = F.cross_entropy(logits, labels[rows], label_smoothing=0.1) + triplet
        # From a tenth to the whole in two epochs of four steps.
        optimizer.param_groups[0]["lr"] = 1e-2 * (0.1 + 0.9 * step / 8)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        triplets.append(triplet.item())
    assert len(order) == 4
    torch.testing.assert_close(weights(fitted), weights(plain), rtol=1e-4, atol=1e-6)
    assert report.loss == pytest.approx(np.mean(losses), rel=1e-4)
    assert report.triplet == pytest.approx(np.mean(triplets), rel=1e-4)
    assert report.triplet > 0


def test_images_and_labels_that_do_not_fit_are_refused() -> None:
    images, labels = data()
    for size in ({"height": 8}, {"width": 4}):
        with pytest.raises(ValueError, match=r"images are 16 x 8 .* is for (8 x 8|16 x 4): "):
            next(fit(small(), images, labels, recipe(**size), seed=0, device=CPU))
    for other in (labels[:19], torch.arange(21) % 5):
        with pytest.raises(ValueError, match=f"{len(other)} labels of 20 images: give a label"):
            next(fit(small(), images, other, RECIPE, seed=0, device=CPU))


@pytest.mark.parametrize("inference", [False, True])
def test_a_training_after_features(inference: bool) -> None:
    """Features of a network change nothing in its training, wherever they are computed."""
    images, labels = data()
    fresh, used = small(), small()
    with torch.inference_mode(inference):
        extract(nn.Sequential(used, Second()), images, device=CPU)
    for network in (fresh, used):
        next(fit(network, images, labels, RECIPE, seed=0, device=CPU))
    torch.testing.assert_close(weights(used), weights(fresh), rtol=0, atol=0)


class Second(nn.Module):
    """Takes the embeddings of logits and embeddings."""

    def forward(self, outputs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return outputs[1]


def test_report_without_a_triplet_loss() -> None:
    assert next(fit(small(), *data(), RECIPE, seed=0, device=CPU)).triplet == 0


def test_warm_up_rises_to_what_the_schedule_says() -> None:
    images, labels = data()

    def rates(**changes: Any) -> list[float]:
        options = recipe(epochs=6, **changes)
        return [epoch.lr for epoch in fit(small(), images, labels, options, seed=0, device=CPU)]

    rise = [0.1 + 0.9 / 4, 0.1 + 0.9 / 2, 0.1 + 0.9 * 3 / 4, 1, 1, 1]
    for schedule in ({"schedule": "step", "milestones": (2, 5)}, {"schedule": "cosine"}):
        expected = np.multiply(rates(**schedule), rise)
        assert rates(**schedule, warm_up=4) == pytest.approx(expected, abs=1e-9)


def test_cosine_falls_to_zero_by_its_formula() -> None:
    images, labels = data()
    options = recipe(schedule="cosine", epochs=4)
    rates = [epoch.lr for epoch in fit(small(), images, labels, options, seed=0, device=CPU)]
    expected = [1e-2 * (1 + math.cos(math.pi * done / 4)) / 2 for done in (1, 2, 3, 4)]
    assert rates == pytest.approx(expected, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("added", [{}, STRONG], ids=["paper", "strong"])
@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_going_on_from_a_checkpoint_ends_with_the_same_weights(
    schedule: str, added: dict[str, Any], tmp_path: Path
) -> None:
    """A network with blocks and BatchNorm; the state passes through a file, safely loaded."""
    images, labels = data(12)
    milestones = (2,) if schedule == "step" else ()
    block_lr = 2.0 if added else None
    options = recipe(schedule=schedule, milestones=milestones, block_lr=block_lr, **added)

    def network() -> Network:
        torch.manual_seed(5)
        after = {"stage3": {"sigma": (5, 10)}}
        return Network(5, NetworkOptions(backbone="resnet18", after=after))

    reference = network()
    last = list(fit(reference, images, labels, options, seed=1, device=CPU))[-1]
    first = next(fit(network(), images, labels, options, seed=1, device=CPU))
    torch.save(first.state, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = network()
    torch.manual_seed(99)  # whatever the process did before
    rest = list(fit(resumed, images, labels, options, seed=1, device=CPU, state=state))
    assert [epoch.epoch for epoch in rest] == [2, 3]
    assert torch.equal(weights(resumed), weights(reference))
    assert rest[-1].loss == last.loss
    # A training that was finished has nothing left to do.
    again = list(fit(resumed, images, labels, options, seed=1, device=CPU, state=last.state))
    assert again == []


def test_seeds() -> None:
    images, labels = data()

    def trained(seed: int) -> torch.Tensor:
        network = small()
        list(fit(network, images, labels, RECIPE, seed=seed, device=CPU))
        return weights(network)

    assert torch.equal(trained(0), trained(0))
    assert not torch.allclose(trained(0), trained(1))


def test_progress_within_an_epoch() -> None:
    images, labels = data()
    fractions: list[tuple[int, float]] = []
    options = recipe(epochs=1)
    report = list(
        fit(
            small(), images, labels, options, seed=0, device=CPU,
            on_batch=lambda epoch, done: fractions.append((epoch, done)),
        )
    )  # fmt: skip
    assert fractions == [(1, 0.25), (1, 0.5), (1, 0.75), (1, 1.0)]
    assert report[0].images_per_second == pytest.approx(20 / report[0].seconds)


SHARED: dict[str, dict[str, Any]] = {
    "paper": {"batch": 12},  # 22 images in batches of 11: shares differ by one image
    "triplet": {"batch": 12, "triplet_margin": 2.0},
    "strong": {**STRONG, "batch": 10},  # 5 identities with 2 images each: shares cut through one
    "strong-odd": {**STRONG, "batch": 9, "images_per_identity": 3},  # shares of 5 and 4
}


def train_shared(rank: int, workers: int, folder: Path) -> None:
    torch.set_num_threads(1)
    if workers > 1:
        distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/meet{workers}", rank=rank, world_size=workers
        )
    results = {}
    for name, changes in SHARED.items():
        network = small(seed=0)
        last = list(fit(network, *data(22), recipe(**changes), seed=2, device=CPU))[-1]
        report = torch.tensor([last.loss, last.triplet, last.accuracy])
        results[name] = {"weights": weights(network), "report": report}
    if rank == 0:
        torch.save(results, folder / f"{workers}.pt")
    if workers > 1:
        # The loss of the last worker alone is not finite; all stop at its step.
        network = Breaks(2 if rank == workers - 1 else 0)
        with pytest.raises(
            DivergenceError, match=r"epoch 1, step 2, at a learning rate of 0\.01: "
        ):
            list(fit(network, *data(22), recipe(batch=12), seed=2, device=CPU))
        assert network.passes == 2
        with pytest.raises(ValueError, match="batch_norm is synchronised, which needs GPUs"):
            next(
                fit(
                    network,
                    *data(22),
                    recipe(batch=12, batch_norm="synchronised"),
                    seed=2,
                    device=CPU,
                )
            )
        distributed.destroy_process_group()


def train_by_two_and_by_four(rank: int, folder: Path) -> None:
    """Two of the four processes share the first trainings."""
    for workers in (2, 4):
        if rank < workers:
            train_shared(rank, workers, folder)


@pytest.mark.slow
def test_weights_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    """Shares weigh as they should; the hardest of the whole batch are found across them."""
    train_shared(0, 1, tmp_path)
    multiprocessing.spawn(train_by_two_and_by_four, args=(tmp_path,), nprocs=4)
    one, two, four = (torch.load(tmp_path / f"{workers}.pt") for workers in (1, 2, 4))
    for name in SHARED:
        torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(four[name], one[name], rtol=1e-5, atol=1e-6)
        assert (one[name]["report"][1] > 0) == (name != "paper")

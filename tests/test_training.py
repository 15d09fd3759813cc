"""`fit` against a plain loop, its resumption, its sharing among workers, its schedules."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn import functional as F

from ianet.images import normalized
from ianet.network import Network, NetworkOptions
from ianet.training import Recipe, batches, fit, labels_of

CPU = torch.device("cpu")
RECIPE = Recipe(height=16, width=8, epochs=3, batch=6, lr=1e-2, weight_decay=5e-4)


class Small(nn.Module):
    """A network without BatchNorm, whose gradient is a sum over images."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.classifier = nn.Linear(4, 5)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embeddings = self.convolution(images).relu().mean((2, 3))
        return self.classifier(embeddings), embeddings


def small(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    return Small()


def data(images: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (images, 16, 8, 3), dtype=torch.uint8, generator=generator)
    return pixels, torch.arange(images) % 5


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([value.double().flatten() for value in network.state_dict().values()])


def recipe(**changes: Any) -> Recipe:
    return Recipe(**{**RECIPE.__dict__, **changes})


def test_labels_ascend_with_the_identities() -> None:
    assert labels_of(np.array([1501, 7, 7, 22])).tolist() == [2, 0, 0, 1]


@pytest.mark.parametrize(("images", "batch"), [(20, 6), (12936, 32), (5, 8), (33, 32)])
def test_every_image_once_an_epoch_in_even_batches(images: int, batch: int) -> None:
    found = batches(images, batch, np.random.default_rng(1))
    sizes = {len(rows) for rows in found}
    assert sorted(np.concatenate(found)) == list(range(images))
    assert len(found) == math.ceil(images / batch)
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1


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
                    normalized(image.flip(1)[None] if mirror else image[None])[0]
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


def test_cosine_falls_to_zero_by_its_formula() -> None:
    images, labels = data()
    options = recipe(schedule="cosine", epochs=4)
    rates = [epoch.lr for epoch in fit(small(), images, labels, options, seed=0, device=CPU)]
    expected = [1e-2 * (1 + math.cos(math.pi * done / 4)) / 2 for done in (1, 2, 3, 4)]
    assert rates == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_going_on_from_a_checkpoint_ends_with_the_same_weights(
    schedule: str, tmp_path: Path
) -> None:
    """A network with blocks and BatchNorm; the state passes through a file, safely loaded."""
    images, labels = data(12)
    options = recipe(schedule=schedule, milestones=(2,) if schedule == "step" else ())

    def network() -> Network:
        torch.manual_seed(5)
        after = {"stage3": {"sigma": (5, 10)}}
        return Network(5, NetworkOptions(backbone="resnet18", after=after))

    whole = network()
    last = list(fit(whole, images, labels, options, seed=1, device=CPU))[-1]
    first = next(fit(network(), images, labels, options, seed=1, device=CPU))
    torch.save(first.state, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = network()
    torch.manual_seed(99)  # whatever the process did before
    rest = list(fit(resumed, images, labels, options, seed=1, device=CPU, state=state))
    assert [epoch.epoch for epoch in rest] == [2, 3]
    assert torch.equal(weights(resumed), weights(whole))
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
    told: list[tuple[int, int]] = []
    options = recipe(epochs=1)
    report = list(
        fit(
            small(), images, labels, options, seed=0, device=CPU,
            on_batch=lambda epoch, done: told.append((epoch, done)),
        )
    )  # fmt: skip
    assert told == [(1, 5), (1, 10), (1, 15), (1, 20)]
    assert report[0].images_per_second == pytest.approx(20 / report[0].seconds)


def train_shared(rank: int, workers: int, folder: Path) -> None:
    torch.set_num_threads(1)
    if workers > 1:
        distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/meet{workers}", rank=rank, world_size=workers
        )
    network = small(seed=0)
    reports = list(fit(network, *data(22), RECIPE, seed=2, device=CPU))
    if rank == 0:
        torch.save(
            {"weights": weights(network), "loss": reports[-1].loss}, folder / f"{workers}.pt"
        )
    if workers > 1:
        distributed.destroy_process_group()


def test_weights_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    """22 images in batches of 5 and 6: shares differ by one image, and weigh as they should."""
    train_shared(0, 1, tmp_path)
    multiprocessing.spawn(train_shared, args=(2, tmp_path), nprocs=2)
    one, two = (torch.load(tmp_path / f"{workers}.pt") for workers in (1, 2))
    torch.testing.assert_close(two["weights"], one["weights"], rtol=1e-5, atol=1e-6)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)


def test_mixed_precision_learns_as_float32_does() -> None:
    images, labels = data()
    losses = {}
    for precision in ("float32", "bfloat16"):
        network = copy.deepcopy(small())
        options = recipe(precision=precision)
        losses[precision] = list(fit(network, images, labels, options, seed=0, device=CPU))[-1]
        assert next(network.parameters()).dtype == torch.float32
    assert losses["bfloat16"].loss == pytest.approx(losses["float32"].loss, rel=0.02)
    assert losses["bfloat16"].loss != losses["float32"].loss


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is 0: it must be above 0"),
        ({"flip": 1.5}, "flip is 1.5: it must lie in 0 to 1"),
        ({"milestones": (40, 20)}, r"milestones are \[40, 20\]: they must ascend"),
    ],
)
def test_wrong_recipes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**changes)


def test_batches_too_small_for_batch_norm() -> None:
    with pytest.raises(ValueError, match="batches of 1 images cannot be shared among 1 workers"):
        list(fit(small(), *data(), recipe(batch=1), seed=0, device=CPU))

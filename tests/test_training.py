"""`fit` against a plain loop, its resumption, its sharing among workers, its schedules."""

from __future__ import annotations

import copy
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn import functional as F

from ianet.images import normalize, random_boxes
from ianet.losses import batch_hard_triplet
from ianet.network import Network
from ianet.options import NetworkOptions
from ianet.training import divergence
from ianet.training.batches import batches, identity_batches, labels_of
from ianet.training.divergence import DivergenceError
from ianet.training.fit import fit
from ianet.training.recipe import Distance, Recipe
from ianet.training.step import is_mixed

CPU = torch.device("cpu")
RECIPE = Recipe(height=16, width=8, epochs=3, batch=6, lr=1e-2, weight_decay=5e-4)
STRONG: dict[str, Any] = {
    "warm_up": 2,
    "padding": 2,
    "erasing": 0.5,
    "images_per_identity": 2,
    "triplet_margin": 0.3,
    "label_smoothing": 0.1,
}


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


def data(images: int = 20, width: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (images, 16, width, 3), dtype=torch.uint8, generator=generator)
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


def many(seed: int) -> np.ndarray:
    """200 identities with 1 to 20 images, in no order, some numbers of identities unused."""
    generator = np.random.default_rng(seed)
    return generator.permutation(np.repeat(np.arange(200) * 3, generator.integers(1, 21, 200)))


@pytest.mark.parametrize(
    ("labels", "batch", "images_per_identity"),
    [
        (many(0), 64, 4),
        (many(1), 30, 6),
        (np.arange(20) % 5, 6, 2),
        (np.arange(20) % 5, 20, 4),  # every identity in every batch
        (np.array([0] * 50 + [1, 2, 3]), 6, 2),  # one identity has nearly all images
        (np.arange(3), 12, 4),  # an image an identity
        (np.arange(20) % 5, 3, 1),
    ],
)
def test_identity_batches(labels: np.ndarray, batch: int, images_per_identity: int) -> None:
    found = identity_batches(labels, batch, images_per_identity, np.random.default_rng(1))
    assert len(found) == math.ceil(len(labels) / batch)
    available = dict(zip(*np.unique(labels, return_counts=True), strict=True))
    for rows in found:
        identities, counts = np.unique(labels[rows], return_counts=True)
        assert len(identities) == batch // images_per_identity
        assert set(counts) == {images_per_identity}
        for identity in identities:
            own = rows[labels[rows] == identity]
            # As many different images as there are: repeated only where there are fewer than K.
            assert len(set(own)) == min(images_per_identity, available[identity])


def test_identity_batches_show_about_every_image() -> None:
    labels = many(2)
    seen = np.zeros(len(labels))
    for epoch in range(20):
        rows = np.concatenate(identity_batches(labels, 64, 4, np.random.default_rng([0, epoch])))
        assert len(set(rows)) > 0.9 * len(labels)
        # An image comes again only where its identity's images are not a multiple of K.
        counts = np.bincount(rows, minlength=len(labels))
        assert (counts[np.bincount(labels)[labels] >= 4] <= 2).all()
        seen += counts
    assert seen.mean() / 20 == pytest.approx(1, abs=64 / len(labels))
    assert seen.min() > 0
    # Each epoch is another one, and the same one again from the same seed.
    again, other = (identity_batches(labels, 64, 4, np.random.default_rng([0, e])) for e in (19, 0))
    assert np.array_equal(np.concatenate(again), rows)
    assert not np.array_equal(np.concatenate(other), rows)


def draw_chances(remaining: tuple[int, ...], places: int) -> dict[frozenset[int], float]:
    """The chance of each set of identities that a batch may draw, one identity after the other."""
    if places == 0:
        return {frozenset(): 1.0}
    chances: Counter[frozenset[int]] = Counter()
    total = sum(remaining)
    for identity, images in enumerate(remaining):
        if images:
            rest = (*remaining[:identity], 0, *remaining[identity + 1 :])
            for others, chance in draw_chances(rest, places - 1).items():
                chances[others | {identity}] += images / total * chance
    return chances


def epoch_chances(
    remaining: tuple[int, ...], steps: int
) -> dict[tuple[frozenset[int], ...], float]:
    """The chance of each sequence of batches with two identities, an image each."""
    if steps == 0:
        return {(): 1.0}
    chances = {}
    for batch, chance in draw_chances(remaining, 2).items():
        rest = tuple(images - (identity in batch) for identity, images in enumerate(remaining))
        for others, other in epoch_chances(rest, steps - 1).items():
            chances[(batch, *others)] = chance * other
    return chances


def test_identity_batches_have_their_law() -> None:
    """All sequences of three batches have the chances that the docstring gives."""
    sizes = (4, 3, 2, 2)
    labels = np.repeat(np.arange(4), sizes)
    expected = epoch_chances(sizes, 3)
    assert sum(expected.values()) == pytest.approx(1)
    assert len(expected) > 50
    epochs = 20_000
    generator = np.random.default_rng(0)
    counts = Counter(
        tuple(
            frozenset(labels[rows].tolist())
            for rows in identity_batches(labels, 2, 1, generator)[:3]
        )
        for _ in range(epochs)
    )
    assert set(counts) <= set(expected)
    # Chi-squared over the sequences that are expected often enough, and over all others together.
    frequent = {batches: epochs * chance for batches, chance in expected.items() if chance > 5e-4}
    squares = [(counts[batches] - mean) ** 2 / mean for batches, mean in frequent.items()]
    rest = epochs - sum(frequent.values())
    squares.append((epochs - sum(counts[batches] for batches in frequent) - rest) ** 2 / rest)
    freedom = len(squares) - 1
    assert abs(sum(squares) - freedom) < 4 * math.sqrt(2 * freedom)


def test_images_of_an_identity_come_in_every_order() -> None:
    generator = np.random.default_rng(0)
    orders = Counter(
        tuple(identity_batches(np.array([7, 7, 7]), 3, 3, generator)[0].tolist())
        for _ in range(6000)
    )
    assert len(orders) == 6
    assert all(abs(count - 1000) < 150 for count in orders.values())


def test_images_of_an_identity_begin_again_after_their_end() -> None:
    generator = np.random.default_rng(0)
    first, second = identity_batches(np.array([7, 7, 7]), 2, 2, generator)
    assert set(first) | set(second) == {0, 1, 2}
    assert second[1] == first[0]
    (rows,) = identity_batches(np.array([7, 7]), 4, 4, generator)
    assert rows[0] != rows[1]
    assert list(rows[2:]) == list(rows[:2])


def test_identities_without_images_left_come_last() -> None:
    """Identity 0 is in each batch as long as one of its 50 images is left."""
    labels = np.array([0] * 50 + [1, 2, 3])
    for seed in range(20):
        epoch = identity_batches(labels, 6, 2, np.random.default_rng(seed))
        assert [0 in labels[rows] for rows in epoch] == [True] * 9
        # Each other identity takes its turn first, then all are drawn alike.
        assert set(labels[np.concatenate(epoch[:2])]) == {0, 1, 2, 3}


def test_too_few_identities_for_a_batch() -> None:
    with pytest.raises(ValueError, match="batch of 12 with 2 images an identity needs 6 identitie"):
        list(fit(small(), *data(), recipe(batch=12, images_per_identity=2), seed=0, device=CPU))


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


class WithBlock(Small):
    """A convolution in a block after that of `Small`, whose third channel has no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict({"stage1": nn.Conv2d(4, 4, 1)})

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.blocks["stage1"](self.convolution(images)).abs().mean((2, 3))
        embeddings = features * torch.tensor([1.0, 1.0, 0.0, 1.0])
        return self.classifier(embeddings), embeddings


def with_block() -> WithBlock:
    torch.manual_seed(0)
    return WithBlock()


def moves(**changes: Any) -> dict[str, torch.Tensor]:
    """How far the first step of Adam moves each parameter."""
    before, network = with_block(), with_block()
    options = recipe(epochs=1, batch=20, weight_decay=1.0, **changes)
    list(fit(network, *data(), options, seed=0, device=CPU))
    pairs = zip(before.named_parameters(), network.parameters(), strict=True)
    return {name: (after - old).abs().detach() for (name, old), after in pairs}


@pytest.mark.parametrize(("block_lr", "factor"), [(None, 1.0), (0.1, 0.1), (5.0, 5.0), (2, 2.0)])
def test_learning_rate_of_blocks(block_lr: float | None, factor: float) -> None:
    """The first step of Adam moves a parameter by its learning rate, whatever the gradient."""
    expected = {
        name: 1e-2 * (factor if name.startswith("blocks.") else 1.0)
        for name, _ in with_block().named_parameters()
    }
    distances = moves(block_lr=block_lr)
    for name, distance in distances.items():
        # Without weight decay the third channel has no gradient at all.
        still = block_lr is not None and name.startswith("blocks.")
        rows = [0, 1, 3] if still else list(range(len(distance)))
        torch.testing.assert_close(
            distance[rows], torch.full_like(distance[rows], expected[name]), rtol=2e-3, atol=0
        )
        assert not still or not distance[2].any()


def test_learning_rate_of_blocks_follows_every_schedule() -> None:
    for schedule in ({"schedule": "step", "milestones": (2, 3)}, {"schedule": "cosine"}):
        for warm_up in (0, 2):
            options = recipe(epochs=4, block_lr=0.25, warm_up=warm_up, **schedule)
            for epoch in fit(with_block(), *data(), options, seed=0, device=CPU):
                rest, blocks = epoch.state["optimizer"]["param_groups"]
                assert rest["lr"] == epoch.lr
                assert blocks["lr"] == pytest.approx(0.25 * epoch.lr, abs=1e-12)
                assert (rest["weight_decay"], blocks["weight_decay"]) == (5e-4, 0.0)


def test_without_a_learning_rate_of_blocks_the_optimizer_is_plain_adam() -> None:
    network = with_block()
    plain = torch.optim.Adam(network.parameters(), lr=1e-2, weight_decay=5e-4, fused=True)
    report = next(fit(network, *data(), RECIPE, seed=0, device=CPU))
    (group,) = report.state["optimizer"]["param_groups"]
    (expected,) = plain.state_dict()["param_groups"]
    assert {name: group[name] for name in expected} == expected


def test_a_module_without_blocks_has_nothing_to_scale() -> None:
    scaled, plain = small(), small()
    list(fit(scaled, *data(), recipe(block_lr=7.0), seed=0, device=CPU))
    list(fit(plain, *data(), RECIPE, seed=0, device=CPU))
    assert torch.equal(weights(scaled), weights(plain))


class Breaks(Small):
    """A network whose logits are NaN in one forward pass."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.passes = number, 0

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.passes += 1
        logits, embeddings = super().forward(images)
        return (logits * math.nan if self.passes == self.number else logits), embeddings


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
    told: list[tuple[int, float]] = []
    options = recipe(epochs=1)
    report = list(
        fit(
            small(), images, labels, options, seed=0, device=CPU,
            on_batch=lambda epoch, done: told.append((epoch, done)),
        )
    )  # fmt: skip
    assert told == [(1, 0.25), (1, 0.5), (1, 0.75), (1, 1.0)]
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


@pytest.mark.slow
def test_weights_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    """Shares weigh as they should; the hardest of the whole batch are found across them."""
    train_shared(0, 1, tmp_path)
    for workers in (2, 4):
        multiprocessing.spawn(train_shared, args=(workers, tmp_path), nprocs=workers)
    one, two, four = (torch.load(tmp_path / f"{workers}.pt") for workers in (1, 2, 4))
    for name in SHARED:
        torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(four[name], one[name], rtol=1e-5, atol=1e-6)
        assert (one[name]["report"][1] > 0) == (name != "paper")


@pytest.mark.parametrize("added", [{}, STRONG], ids=["paper", "strong"])
def test_mixed_precision_learns_as_float32_does(added: dict[str, Any]) -> None:
    images, labels = data(width=24)
    losses = {}
    for precision, bits in (("float32", 32), ("bfloat16", 16)):
        network = copy.deepcopy(small())
        options = recipe(width=24, precision=precision, **added)
        losses[precision] = list(fit(network, images, labels, options, seed=0, device=CPU))[-1]
        assert losses[precision].bits == bits
        assert next(network.parameters()).dtype == torch.float32
    assert losses["bfloat16"].loss == pytest.approx(losses["float32"].loss, rel=0.02)
    assert losses["bfloat16"].loss != losses["float32"].loss


@pytest.mark.parametrize(
    ("able", "width", "bits"),
    [
        ({"avx512_bf16": True}, 17, 16),
        ({"amx_bf16": True}, 17, 16),
        ({"avx2": True}, 17, 32),
        ({"avx512_bf16": True}, 16, 32),  # oneDNN would read memory that nothing has written
    ],
)
def test_precision_by_what_the_device_can(
    able: dict[str, bool], width: int, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    options = recipe(width=width, precision="auto")
    epochs = fit(small(), *data(width=width), options, seed=0, device=CPU)
    assert next(epochs).bits == bits


def test_bfloat16_of_narrow_images_on_a_cpu_is_refused() -> None:
    options = recipe(width=16, precision="bfloat16")
    message = "precision is 'bfloat16', in which a CPU cannot train on images 16 pixels wide: set"
    with pytest.raises(ValueError, match=message):
        list(fit(small(), *data(width=16), options, seed=0, device=CPU))
    assert is_mixed(options, torch.device("cuda"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is 0: it must be above 0"),
        ({"block_lr": 0}, "block_lr is 0: it must be above 0"),
        ({"weight_decay": -1.0}, r"weight_decay is -1\.0: it must not be below 0"),
        ({"milestones": (0, 20)}, r"milestones are \[0, 20\]: they must ascend, from 1 on"),
        ({"flip": 1.5}, "flip is 1.5: it must lie in 0 to 1"),
        ({"milestones": (40, 20)}, r"milestones are \[40, 20\]: they must ascend"),
        ({"warm_up": 4}, "warm_up is 4: it must lie in 0 to 3 epochs"),
        ({"padding": -1}, "padding is -1: it must not be below 0"),
        ({"erasing": 2.0}, r"erasing is 2\.0: it must lie in 0 to 1"),
        ({"triplet_margin": -0.3}, r"triplet_margin is -0\.3: it must not be below 0"),
        ({"images_per_identity": 4}, "batch is 6: it must be a multiple of images_per_identity, 4"),
        ({"schedule": "cosin"}, "schedule is 'cosin': choose one of step, cosine"),
        ({"precision": "bf16"}, "precision is 'bf16': choose one of float32, bfloat16, auto"),
        ({"batch_norm": "synchronized"}, "is 'synchronized': choose one of worker, synchronised"),
    ],
)
def test_wrong_recipes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**changes)


def test_batches_too_small_for_batch_norm() -> None:
    with pytest.raises(ValueError, match="batches of 1 images cannot be shared among 1 workers"):
        list(fit(small(), *data(), recipe(batch=1), seed=0, device=CPU))

"""How a network is trained, without torch.

What a recipe adds to the paper is from Luo et al., Bag of Tricks and a Strong Baseline for Deep
Person Re-identification (CVPRW 2019), below "Bag of Tricks".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ianet.options import check_types

Schedule = Literal["step", "cosine"]
BatchNorm = Literal["worker", "synchronised"]
Distance = Literal["euclidean", "cosine"]
Precision = Literal["float32", "bfloat16", "auto"]
Compile = Literal["auto", "always", "never"]

MOST = {"height": 8192, "width": 8192, "epochs": 10**6, "batch": 10**6, "padding": 8192}
STEP_BYTES = 2**40  # of the inputs of a step in float32, more than any machine holds


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        height, width: of the images, in pixels.
        epochs: how often every image is seen, with `batches.identity_batches` on average.
        batch: images of one step, over all workers together.
        lr, weight_decay: of Adam, the decay as L2 in the gradient.
        schedule: "step" multiplies lr by `gamma` after each epoch of `milestones`; "cosine"
            decreases lr to 0 with every step.
        warm_up: epochs in which lr rises, linearly with every step, from a tenth of the
            schedule's value to all of this value (Bag of Tricks, Section 3.1).
        block_lr: factor on lr for the parameters of the inserted blocks (`Network.blocks`), which
            then have no weight decay; None trains blocks as all else.
        flip: probability that an image is mirrored left to right.
        padding: pixels of black around an image, out of which its size is cropped at random.
        erasing: probability that a random rectangle of an image becomes ImageNet's mean, see
            `ianet.images.random_boxes`.
        images_per_identity: K above 0 gives batches of batch / K identities with K images
            each, see `batches.identity_batches`; 0 draws images whatever their identity.
        triplet_margin: of the batch-hard triplet loss, added to the cross entropy with weight
            1. Anchors, positives and negatives are from the whole batch; 0 omits the loss.
        triplet_distance: by which the triplet loss compares, see `losses.batch_hard_triplet`.
        label_smoothing: of the cross entropy.
        batch_norm: whose statistics BatchNorm takes: "worker" for a worker's share of the batch,
            or "synchronised" for the whole batch, which torch supports on GPUs only.
        precision: "float32", "bfloat16" for mixed precision, or "auto": mixed where the device
            multiplies bfloat16 in hardware.
        cuda_graph: on one GPU, launch a step's kernels as one graph, see `step.GraphStep`. A block
            that waits for the device, as by `.item()` or a boolean mask, needs False. So does a
            block whose Python code differs from step to step. A graph takes the memory of a
            step twice.
        compile: whether torch compiles what gains by it, see `compilation.compile_network`. "auto"
            compiles on a GPU.

    Raises:
        ValueError: a value of a wrong type, a number out of its range, an unknown name, or values
            that contradict.
    """

    height: int
    width: int
    epochs: int
    batch: int
    lr: float
    weight_decay: float
    schedule: Schedule = "step"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    warm_up: int = 0
    block_lr: float | None = None
    flip: float = 0.5
    padding: int = 0
    erasing: float = 0.0
    images_per_identity: int = 0
    triplet_margin: float = 0.0
    triplet_distance: Distance = "euclidean"
    label_smoothing: float = 0.0
    batch_norm: BatchNorm = "worker"
    precision: Precision = "float32"
    cuda_graph: bool = True
    compile: Compile = "auto"

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("height", "width", "epochs", "batch", "lr", "block_lr"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value}: it must be above 0")
        for name in ("weight_decay", "gamma", "padding", "images_per_identity", "triplet_margin"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must not be below 0")
        for name, most in MOST.items():
            if getattr(self, name) > most:
                raise ValueError(f"{name} is {getattr(self, name)}: it must not be above {most}")
        size = self.batch * 3 * self.height * self.width * 4
        if size > STEP_BYTES:
            raise ValueError(
                f"batch is {self.batch}: with images of {self.height} x {self.width} pixels the "
                f"inputs of a step take {size / 2**30:,.0f} GB, which no machine holds"
            )
        for name in ("flip", "erasing", "label_smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must lie in 0 to 1")
        if [0, *self.milestones] != sorted({0, *self.milestones}):
            raise ValueError(f"milestones are {list(self.milestones)}: they must ascend, from 1 on")
        if not 0 <= self.warm_up <= self.epochs:
            raise ValueError(f"warm_up is {self.warm_up}: it must lie in 0 to {self.epochs} epochs")
        if self.images_per_identity and self.batch % self.images_per_identity:
            raise ValueError(
                f"batch is {self.batch}: it must be a multiple of images_per_identity, "
                f"{self.images_per_identity}"
            )

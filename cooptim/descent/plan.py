"""How long and how fast to train: the expert's options, with defaults that suit small networks."""

import dataclasses
import math
import warnings

from cooptim.data.augment import AUGMENTATIONS
from cooptim.descent.recipes import RECIPES
from cooptim.relax.codebook import MOST_LABEL_BITS
from cooptim.relax.method import WHOLE_UNITS, Method

# What can go wrong at a supply that is too low, by name: fields of `network.ErrorRates`.
ERROR_KINDS: dict[str, tuple[str, ...]] = {
    "none": (),
    "weights": ("weight",),
    "inputs": ("input",),
    "accumulators": ("accumulator",),
    "memory": ("weight", "input"),
    "all": ("weight", "input", "accumulator"),
}
ERROR_MAPS = ("random", "fixed")


@dataclasses.dataclass(frozen=True)
class KnobRates:
    """Learning rate of each knob leaf (Adam moves a knob by about this much a step); units of the knob."""

    weight_log2_step: float = 1e-2
    weight_log2_range: float = 1e-2
    log2_threshold: float = 2e-2
    input_log2_step: float = 1e-2
    input_log2_range: float = 1e-2
    weight_log2_scale: float = 1e-2
    codebook: float = 1e-3
    mode_logits: float = 2e-2
    tiling_logits: float = 5e-2
    supply: float = 3e-2
    buffer: float = 3e-2
    exit_margin: float = 2e-2


@dataclasses.dataclass(frozen=True)
class Plan:
    """Lengths [steps], rates and shares of one run.

    Attributes:
      float_steps: of the float parent. steps: of one descent (uniform, pruned, joint). finetune_steps: after the snap.
      finetune_tries: rounds of fine-tuning. Designs with an energy budget get them all, and the one of least
        validation loss among those that keep the accuracy is taken. A uniform width gets more than one only while the
        accuracy is missed, and one that still misses it by 2.5 points is given up after any round, for a wider one
        takes its place; the widest gets them all (`cooptim.descent.descend.patience`). A descent that ends over 5 %
        above its energy budget is cut down to it in so many steps with a round after each, then come as many at it.
      weight_rate, descent_weight_rate: Adam's rate for weights in float training and in a descent; cosine to 5 %.
      budget_share: share of the descent in which the budget travels from the current cost to the target.
      freeze_share: share of the descent after which widths stay.
      start_bits: widths at which a descent starts where no best uniform width is known; `optimize` and a sweep know it
        and start there, with widths that move at `near_rate_share` of their rate.
      uniform_bits: candidates for the best uniform width, widest first.
      frozen_rate_share: rate of quantization steps while widths are held, over their rate while widths are learned.
      penalty, dual_rate: of the augmented Lagrangian on log(cost/budget).
      start_temperature, end_temperature: of the tiling softmax, annealed geometrically.
      margin: the energy budget aimed at is the user's times (1 - margin), so that noise ends below it.
      stats_images: training images on which zero rates of a legal design are measured. chunk: images a measured batch.
      settle_steps: training-mode passes, at most, that bring batch statistics up to date before anything is measured
        (`cooptim.descent.running`).
      attempts: energy targets tried for a design that must keep an accuracy. save_seconds: time between checkpoints.
      distill_weight: share of the loss of every design that is cross-entropy to the float parent's softened outputs
        instead of to the labels, from 0 (none) to 1. distill_temperature: what divides the logits of both before the
        softmax (`cooptim.descent.teacher`).
      augment: what training steps do to images, 'none' or 'crop_flip' (`cooptim.data.augment`); nothing is measured on
        augmented images but the zero rates of a training step.
      quantizer: of all layers, one of `cooptim.descent.recipes`; 'step_range' and 'blend' learn their widths,
        'codebook' those of its inputs. label_bits: of 'codebook', whose layers each have a table of 2^label_bits
        values; 1..8, None for the others.
      per_channel: a step and range for each output channel. pattern: (N, M), the weights kept of each group.
      errors: what goes wrong below the safe supply, a name in ERROR_KINDS; with 'none' no supply is below it, on a
        machine that states one. error_map: 'random' is another chip each step and each draw that is measured, 'fixed'
        one chip, whose stuck cells the network learns. error_draws: over which the test accuracy of a design is taken;
        one where none differs from another, as stuck cells of one chip do not.
    """

    float_steps: int = 1200
    steps: int = 1800
    finetune_steps: int = 500
    finetune_tries: int = 3
    batch: int = 64
    weight_rate: float = 3e-3
    descent_weight_rate: float = 4e-3
    knob_rates: KnobRates = KnobRates()
    budget_share: float = 0.6
    freeze_share: float = 0.75
    start_bits: float = 8.0
    near_rate_share: float = 0.3
    uniform_bits: tuple[int, ...] = (8, 6, 5, 4, 3, 2)
    penalty: float = 1.0
    dual_rate: float = 2e-2
    frozen_rate_share: float = 0.2
    start_temperature: float = 1.0
    end_temperature: float = 0.05
    margin: float = 0.01
    stats_images: int = 512
    chunk: int = 256
    attempts: int = 3
    save_seconds: float = 20.0
    settle_steps: int = 200
    distill_weight: float = 0.0
    distill_temperature: float = 4.0
    augment: str = "none"
    quantizer: str = "step_range"
    per_channel: bool = False
    pattern: tuple[int, int] | None = None
    label_bits: int | None = None
    errors: str = "none"
    error_map: str = "random"
    error_draws: int = 20

    def __post_init__(self) -> None:
        if not self.penalty > 0.0:
            raise ValueError(f"plan: penalty {self.penalty:g} cannot hold a budget; use a positive one, such as 1")
        if not 0.0 <= self.distill_weight <= 1.0:
            raise ValueError(f"plan: distill_weight {self.distill_weight:g} is no share of the loss; use 0 to 1")
        if not 0.0 < self.distill_temperature < math.inf:
            raise ValueError(
                f"plan: distill_temperature {self.distill_temperature:g} cannot divide logits; use a positive one, "
                "such as 4"
            )
        if self.augment not in AUGMENTATIONS:
            raise ValueError(f"plan: augment '{self.augment}' is not known; use one of {', '.join(AUGMENTATIONS)}")
        if self.quantizer not in RECIPES:
            raise ValueError(f"plan: quantizer '{self.quantizer}' is not known; use one of {', '.join(RECIPES)}")
        Method(pattern=self.pattern)  # raises for what is none
        self._require_labels()
        for name, value, legal in (
            ("errors", self.errors, tuple(ERROR_KINDS)),
            ("error_map", self.error_map, ERROR_MAPS),
        ):
            if value not in legal:
                raise ValueError(f"plan: {name} '{value}' is not known; use one of {', '.join(legal)}")
        celled = [name for name, kinds in ERROR_KINDS.items() if "weight" in kinds or "input" in kinds]
        if self.error_map == "fixed" and self.errors not in celled:
            raise ValueError(
                f"plan: error_map 'fixed' says whose stuck cells they are, and errors '{self.errors}' has none; use "
                f"errors {', '.join(celled)}, or error_map 'random'"
            )
        weights = RECIPES[self.quantizer][0]
        if "weight" in ERROR_KINDS[self.errors] and weights not in WHOLE_UNITS:
            spared = [name for name, kinds in ERROR_KINDS.items() if "weight" not in kinds]
            raise ValueError(
                f"plan: quantizer '{self.quantizer}' has {weights} weights, no whole numbers of a unit, which errors "
                f"'{self.errors}' cannot misread; use errors {', '.join(spared)}, or another quantizer"
            )
        if self.error_draws < 1:
            raise ValueError(f"plan: error_draws {self.error_draws}: at least 1; 20 say what the spread is")
        travel = self.steps * self.freeze_share * self.knob_rates.weight_log2_step
        if self.steps > 0 and travel < 6.0:
            warnings.warn(
                f"plan: a width can travel only {travel:.1f} bit before it freezes (steps * freeze_share * rate); "
                "6 are needed to go from 8 bits to 2: take more steps or a higher rate",
                stacklevel=3,
            )

    def _require_labels(self) -> None:
        bits, shares = self.label_bits, RECIPES[self.quantizer][0] == "codebook"
        if shares and (type(bits) is not int or not 1 <= bits <= MOST_LABEL_BITS):
            raise ValueError(
                f"plan: quantizer '{self.quantizer}' with label_bits {bits!r}; legal are whole numbers from 1 to "
                f"{MOST_LABEL_BITS}, such as 4"
            )
        if not shares and bits is not None:
            raise ValueError(
                f"plan: label_bits {bits!r} of quantizer '{self.quantizer}', which has no labels; use quantizer "
                "'codebook', or leave them None"
            )


_EPOCHS = (
    6  # passes over the training images that a descent needs at least; float training a third, fine-tuning a quarter
)


def plan_for(images: int) -> Plan:
    """The default plan for a training set of this many images: lengths of `Plan`, longer where they see too few."""
    plan = Plan()
    passes = math.ceil(_EPOCHS * images / plan.batch)
    return dataclasses.replace(
        plan,
        float_steps=max(plan.float_steps, passes // 3),
        steps=max(plan.steps, passes),
        finetune_steps=max(plan.finetune_steps, passes // 4),
    )


def quick_plan() -> Plan:
    """A plan of seconds, for tests and first looks; its accuracies mean nothing."""
    rates = KnobRates(*([0.1] * len(dataclasses.fields(KnobRates))))
    return Plan(
        float_steps=40, steps=80, finetune_steps=20, knob_rates=rates, uniform_bits=(8, 4), attempts=1,
        stats_images=128, chunk=128, settle_steps=20,
    )  # fmt: skip

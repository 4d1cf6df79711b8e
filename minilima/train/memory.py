"""What a training will take, worked out before anything is loaded: memory, rows, steps, time. Pure; no torch.

    shape of the model + recipe + compute + memory of a device ─> what each part takes ─> rows that fit, or what would

Weights and their optimizer cost bytes by the weight (`_states`), activations by the token of a row (`_activations`). A
row is made as long as fits; where only a short one does, blocks are computed again in the backward pass.
"""

import math
from dataclasses import dataclass

from minilima.config.choices import Method, Offload, Precision, Rounding
from minilima.config.schema import ComputeConfig, SftConfig
from minilima.errors import MinilimaError
from minilima.train.recordable import filled_up, is_worth_recording, may_record
from minilima.train.shape import ModelShape

GIB = 2**30
USABLE = 0.95
"""Share of a GPU's memory for what is counted here; the rest is for CUDA itself and for gaps between tensors."""
LONGEST_ROW = 65_536
"""Longer rows make no GPU faster."""
ROW_TOKENS_ON_CPU = 512
"""About 1 GiB of activations for a model of 135 million parameters."""
CPU = "CPU"
ENOUGH_TOKENS = 8192
"""Rows shorter than this leave a large GPU idle between its products: computing blocks again costs less."""
_STEP = 1024
_CHUNK = 8192  # tokens whose logits exist at once (models/loss.py)
_NF4_BYTES = 0.53  # 4 bits and their constants, quantised twice (Dettmers et al. 2023, section 3)


@dataclass(frozen=True, kw_only=True)
class Device:
    """What one training process computes on. `bytes` is None where the memory is not known; `flops` likewise."""

    bytes: int | None
    bf16: bool
    processes: int = 1
    flops: float | None = None
    """Nominal dense bfloat16 FLOP/s."""
    name: str = CPU


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on each device while training, by what they are for; `host` is in the machine's memory, for each process."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    buffers: float
    """In which DeepSpeed sends gradients and gathers weights, and which DDP sets aside."""
    host: float
    later: float | None = None
    """Activations and logits of a step's later rows, for which the gradients are there already; None = as for its first row,
    whose gradients grow while its activations go."""

    @property
    def total(self) -> float:
        passing = self.activations + self.logits
        grown = max(self.gradients, passing, self.gradients + (passing if self.later is None else self.later))
        return self.weights + self.optimizer + self.buffers + grown


@dataclass(frozen=True, kw_only=True)
class MemoryLayout:
    """How a training is laid out on a device. `fits` is None where its memory is not known."""

    row_tokens: int
    checkpointing: bool
    memory: Memory
    fits: bool | None


def memory(
    shape: ModelShape, sft: SftConfig, compute: ComputeConfig, device: Device, *, row_tokens: int, checkpointing: bool,
    later_tokens: int | None = None,
) -> Memory:  # fmt: skip
    """The memory of a training with rows of so many tokens.

    Args:
        later_tokens: of a step's second row and those after it, 0 where one is enough; None = as many as of the first.
    """
    weights, gradients, optimizer, host = _states(shape, sft, compute, device)
    element = 2 if device.bf16 else 4
    on_gpu = device.bf16 and device.name != CPU
    if on_gpu and may_record(sft, compute) and not checkpointing and is_worth_recording(shape, row_tokens):
        row_tokens, weights = filled_up(row_tokens), weights + element * shape.parameters  # all gradients of a row at once
    trained_head = sft.method == Method.full
    block = _block(shape, sft, compute) * element / 2
    kept = element * shape.hidden  # a block's input
    a_token = 2 * kept + (shape.layers * kept + block if checkpointing else shape.layers * block)

    def logits(tokens: int) -> float:
        # A chunk's logits, which its gradient replaces, and the gradient of the output layer, summed in float32 over chunks.
        chunk = min(_CHUNK, tokens) * shape.vocabulary * element
        head = (4 if tokens > _CHUNK else element) * shape.embedding if trained_head else 0
        # They are gone when the first block is computed again, which takes their place.
        again = block * tokens if checkpointing else 0.0
        return max(0.0, chunk - again) + head if tokens else 0.0

    later = None
    if later_tokens is not None and compute.zero_stage is None:
        later = a_token * min(row_tokens, later_tokens) + logits(min(row_tokens, later_tokens))
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=a_token * row_tokens,
        logits=logits(row_tokens),
        buffers=_buffers(shape, sft, compute, device),
        host=host,
        later=later,
    )


def _states(shape: ModelShape, sft: SftConfig, compute: ComputeConfig, device: Device) -> tuple[float, float, float, float]:
    """Bytes of weights, gradients and optimizer on each device, and in the machine's memory for each process."""
    trained = _trained(shape, sft)
    frozen = 0 if sft.method == Method.full else shape.parameters
    element = 2 if device.bf16 else 4
    still = float(frozen * element)
    if sft.quantise is not None:
        still = shape.linear * _NF4_BYTES + (frozen - shape.linear) * element
    if sft.weights == Rounding.stochastic and device.bf16:  # weights, gradients and both moments in bfloat16
        return still + 2 * trained, 2 * trained, 4 * trained, 0.0
    master = 4 * trained if device.bf16 else 0
    if compute.zero_stage is None:  # gradients are moved into float32 as soon as they are there
        return still + element * trained + master, 4 * trained, 8 * trained, 0.0
    among = device.processes
    shared = {"optimizer": 1, "weights": 3}
    divided = {part: among if compute.zero_stage >= stage else 1 for part, stage in shared.items()}
    weights = (still + element * trained) / divided["weights"]
    # Stages 2 and 3 keep each process's share alone, in float32; below, those of the model stay beside it.
    gradients = 4 * trained / among + (0 if compute.zero_stage >= 2 else element * trained)
    optimizer = (master + 8 * trained) / divided["optimizer"]
    host = 0.0
    if compute.offload != Offload.none:
        # Below stage 3 DeepSpeed sums a step's gradients on the GPU, and copies them to the optimizer's.
        host, optimizer, gradients = optimizer + gradients, 0.0, 0.0 if compute.zero_stage == 3 else gradients
    if compute.offload == Offload.all:
        # What is needed of them comes over for the while: two blocks and the output layer.
        here = element * (2 * shape.linear / shape.layers + shape.embedding)
        host, weights = host + weights, min(weights, here)
    return weights, gradients, optimizer, host


def _trained(shape: ModelShape, sft: SftConfig) -> int:
    return shape.parameters if sft.method == Method.full else shape.adapters(sft.lora_rank)


def _buffers(shape: ModelShape, sft: SftConfig, compute: ComputeConfig, device: Device) -> float:
    """DeepSpeed: two buckets of gradients and one of weights (train/deepspeed.py); in stage 3 the output layer and a block,
    gathered. DDP: room for all gradients, whether they are sent from there or not."""
    if device.name == CPU:
        return 0.0
    element = 2 if device.bf16 else 4
    if compute.zero_stage is None:
        return element * _trained(shape, sft) if device.processes > 1 else 0.0
    gathered = shape.embedding + shape.linear / shape.layers if compute.zero_stage == 3 else 0.0
    return element * (3 * min(200_000_000, shape.parameters) + gathered)


def _block(shape: ModelShape, sft: SftConfig, compute: ComputeConfig) -> float:
    """Bytes a token of a row, in bfloat16, that a block keeps for the backward pass: within a twentieth of H100s' peaks.

    Compiled blocks keep the inputs of their matrix products and norms, 12 bytes for each number of the hidden state, and what the
    peaks say besides, half a byte, for 135M and 1B as for 8B with adapters. Without compilation the norms' float32 values, the
    gate's parts and dropout's masks are kept too.
    """
    if compute.compile:
        return 12.5 * shape.hidden + 4 * shape.key_width + 6 * shape.feed_forward
    masks = 2 * shape.hidden if sft.residual_dropout else 0
    if sft.method == Method.lora and sft.lora_dropout:  # each layer's input, dropped, and what was dropped of it
        masks += 3 * (6 * shape.hidden + shape.feed_forward)
    return 23 * shape.hidden + 4 * shape.key_width + 8 * shape.feed_forward + masks


def fit(
    shape: ModelShape, sft: SftConfig, compute: ComputeConfig, device: Device, *, most_tokens: int | None = None
) -> MemoryLayout:
    """Row length and checkpointing: as set, else what the memory asks for.

    Args:
        most_tokens: of a step, beyond which a longer row would stay empty; None = not known.
    """

    def taking(row: int, checkpointing: bool) -> Memory:
        later = None if most_tokens is None else max(0, most_tokens - row)
        return memory(shape, sft, compute, device, row_tokens=row, checkpointing=checkpointing, later_tokens=later)

    room = None if device.bytes is None else USABLE * device.bytes
    choices = [compute.activation_checkpointing] if compute.activation_checkpointing is not None else [False, True]
    if room is None or device.name == CPU:
        row = compute.micro_batch_tokens or ROW_TOKENS_ON_CPU
        needs = taking(row, bool(compute.activation_checkpointing))
        fits = None if room is None else needs.total <= room
        return MemoryLayout(row_tokens=row, checkpointing=bool(compute.activation_checkpointing), memory=needs, fits=fits)
    if compute.micro_batch_tokens is not None:
        row = compute.micro_batch_tokens
        choice = next((one for one in choices if taking(row, one).total <= room), choices[-1])
        needs = taking(row, choice)
        return MemoryLayout(row_tokens=row, checkpointing=choice, memory=needs, fits=needs.total <= room)
    longest = _rounded(sft.max_tokens)
    most = min(LONGEST_ROW, max(longest, _rounded(most_tokens or LONGEST_ROW)))
    for choice in choices:
        row = most
        while row > longest and taking(row, choice).total > room:
            row -= _STEP
        if taking(row, choice).total <= room and row >= min(most, ENOUGH_TOKENS):
            break
    needs = taking(row, choice)
    return MemoryLayout(row_tokens=row, checkpointing=choice, memory=needs, fits=needs.total <= room)


def assumed_fit(compute: ComputeConfig, device: Device) -> MemoryLayout:
    """The layout for a model whose shape is not known."""
    nothing = Memory(weights=0, gradients=0, optimizer=0, activations=0, logits=0, buffers=0, host=0)
    row = compute.micro_batch_tokens or (ROW_TOKENS_ON_CPU if device.name == CPU else 8192)
    return MemoryLayout(row_tokens=row, checkpointing=bool(compute.activation_checkpointing), memory=nothing, fits=None)


def check_states(shape: ModelShape, sft: SftConfig, compute: ComputeConfig, device: Device, laid_out: MemoryLayout) -> None:
    """Stops where the weights and what belongs to them fill a GPU alone, whatever the rows.

    Raises:
        MinilimaError: names the settings with which the training would fit.
    """
    needs = laid_out.memory
    states = needs.weights + needs.gradients + needs.optimizer
    if device.name == CPU or device.bytes is None or states <= device.bytes:
        return
    ways = fitting_settings(shape, sft, compute, device)
    raise MinilimaError(
        f"The training does not fit on {device.name}: it has {device.bytes / GIB:,.1f} GiB.",
        f"Weights take {needs.weights / GIB:,.1f} GiB, gradients {needs.gradients / GIB:,.1f}, the optimizer "
        f"{needs.optimizer / GIB:,.1f}, on each of {device.processes}.",
        f"It would fit with {' or '.join(ways)}." if ways else "Train on more GPUs with compute=zero3, or a smaller model.",
    )


def _rounded(tokens: int) -> int:
    return _STEP * math.ceil(tokens / _STEP)


def next_settings(sft: SftConfig, compute: ComputeConfig, device: Device, laid_out: MemoryLayout) -> list[str]:
    """What needs less memory, the cheapest first: what leaves the result as it is, then what changes the recipe."""
    advice = []
    if not laid_out.checkpointing:
        advice.append("compute.activation_checkpointing=true")
    shorter = max(256, laid_out.row_tokens // 2)
    if laid_out.row_tokens > shorter and laid_out.row_tokens > sft.max_tokens:
        advice.append(f"compute.micro_batch_tokens={shorter}")
    stage = compute.zero_stage or 0
    if device.processes > 1 and sft.quantise is None:
        advice += [f"compute.zero_stage={next_one}" for next_one in (2, 3) if next_one > stage]
    if sft.method == Method.full and compute.offload != Offload.all:
        advice.append("compute=zero3_offload")
    if sft.method == Method.full:
        advice.append("sft=lora (another recipe)")
    elif sft.quantise is None:
        advice.append("sft=qlora (another recipe)")
    advice.append(f"sft.max_tokens={max(256, sft.max_tokens // 2)} (longer examples are cut)")
    return advice


def fitting_settings(shape: ModelShape, sft: SftConfig, compute: ComputeConfig, device: Device) -> list[str]:
    """Of the usual settings those with which the training would fit, those that change nothing learned first."""
    zero = {"zero_stage": 3, "offload": Offload.none}
    ways: list[tuple[str, dict[str, object], dict[str, object]]] = [
        ("compute=zero2", {"zero_stage": 2, "offload": Offload.none}, {}),
        ("compute=zero3", zero, {}),
        ("compute=zero3_offload", {**zero, "offload": Offload.all}, {}),
        ("sft.weights=stochastic", {}, {"weights": Rounding.stochastic}),
        ("sft=lora", {}, {"method": Method.lora}),
    ]
    free = {"micro_batch_tokens": None, "activation_checkpointing": None}
    advice = []
    for name, computing, learning in ways:
        changed = ComputeConfig(**{**vars(compute), **free, **computing})
        recipe = SftConfig(**{**vars(sft), **learning})
        same = name.startswith("compute=zero") and device.processes == 1 and changed.offload == Offload.none
        if not same and vars(recipe) | computing != vars(sft) and fit(shape, recipe, changed, device).fits:
            advice.append(name)
    return advice


def uses_bf16(compute: ComputeConfig, hardware: bool) -> bool:
    """Whether training multiplies in bfloat16 on hardware that can or cannot."""
    return hardware and compute.precision == Precision.auto

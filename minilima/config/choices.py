"""The words that a setting can have where it is a choice among few."""

from enum import StrEnum


class Until(StrEnum):
    """The stage after which a run stops."""

    pool = "pool"
    dataset = "dataset"
    model = "model"
    answers = "answers"
    verdicts = "verdicts"
    report = "report"


class GeneratorKind(StrEnum):
    local = "local"
    openai = "openai"
    vllm = "vllm"


class Engine(StrEnum):
    """What writes where a model runs on this machine."""

    auto = "auto"
    transformers = "transformers"
    vllm = "vllm"


class Style(StrEnum):
    """How a generator is spoken to."""

    chat = "chat"
    turns = "turns"
    completion = "completion"


class DataKind(StrEnum):
    self_instruct = "self_instruct"
    alpaca = "alpaca"
    magpie = "magpie"
    answers = "answers"
    evol = "evol"
    backtranslate = "backtranslate"
    file = "file"


BEGINS_WITH_TASKS = (DataKind.answers, DataKind.evol)
"""Pools that are made of the tasks of a file, or of the seed tasks."""


class Side(StrEnum):
    """Which answer of preference data is imported."""

    chosen = "chosen"


class OnBadRow(StrEnum):
    """What a row that cannot be used does to an import."""

    stop = "stop"
    reject = "reject"


class Select(StrEnum):
    """Which examples come first where fewer are wanted than there are."""

    random = "random"
    diverse = "diverse"
    stratified = "stratified"
    long = "long"
    quality = "quality"
    tags = "tags"
    ifd = "ifd"
    superfiltering = "superfiltering"
    superfiltering_diverse = "superfiltering_diverse"
    perplexity = "perplexity"
    deita = "deita"
    rds = "rds"
    less = "less"


class Keep(StrEnum):
    """Which of several answers to a task is kept."""

    first = "first"
    longest = "longest"
    majority = "majority"
    reference = "reference"
    judge = "judge"


class Perplexity(StrEnum):
    """Which perplexities of answers come first."""

    low = "low"
    middle = "middle"
    high = "high"


class Encoding(StrEnum):
    """How instruction and input are put into one text."""

    plain = "plain"
    self_instruct = "self_instruct"


class Tokenizer(StrEnum):
    """How texts are taken apart for ROUGE-L."""

    auto = "auto"
    rouge = "rouge"
    unicode = "unicode"


class Thinking(StrEnum):
    """What becomes of the reasoning that a model writes before its answer."""

    off = "off"
    on = "on"
    keep = "keep"


class Method(StrEnum):
    full = "full"
    lora = "lora"


class Schedule(StrEnum):
    linear = "linear"
    cosine = "cosine"
    constant = "constant"


class Rounding(StrEnum):
    """How weights that are bfloat16 while they multiply take updates that bfloat16 would round away."""

    masters = "masters"
    stochastic = "stochastic"


class Pick(StrEnum):
    """Which epoch's weights become the model."""

    last = "last"
    judge = "judge"
    dev_loss = "dev_loss"


class Quantise(StrEnum):
    """How the frozen weights under adapters are stored while training."""

    nf4 = "nf4"


class Precision(StrEnum):
    """In what training multiplies."""

    auto = "auto"
    float32 = "float32"


class Offload(StrEnum):
    """What DeepSpeed keeps in the machine's memory instead of the GPU's."""

    none = "none"
    optimizer = "optimizer"
    all = "all"


class DeviceKind(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class JudgeKind(StrEnum):
    reference = "reference"
    local = "local"
    openai = "openai"
    alpaca_eval = "alpaca_eval"


class Orders(StrEnum):
    """In which order a judge sees two answers."""

    both = "both"
    random = "random"


class TrackingMode(StrEnum):
    auto = "auto"
    offline = "offline"
    none = "none"

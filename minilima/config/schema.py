"""The schema of every setting: meaning, unit, range. `conf/` holds the values; `compose.py` brings the two together.

Sections follow the stages: `data` makes the pool, `dataset` chooses from it, `sft` trains, `epoch` picks the checkpoint,
`eval` answers, `judge` compares. What is in HOW says how a run is made and never what comes out.
The dataclasses are typed so that Hydra refuses a wrong key or type, and stay mutable because Hydra 1.3 cannot compose
frozen ones; the code treats them as values.
"""

from dataclasses import dataclass, field
from typing import Any

from minilima.config.choices import (
    DataKind,
    DeviceKind,
    Encoding,
    Engine,
    GeneratorKind,
    JudgeKind,
    Keep,
    Method,
    Offload,
    OnBadRow,
    Orders,
    Perplexity,
    Pick,
    Precision,
    Quantise,
    Rounding,
    Schedule,
    Select,
    Side,
    Style,
    Thinking,
    Tokenizer,
    TrackingMode,
    Until,
)
from minilima.config.ranges import (
    ABOVE_ZERO,
    AT_LEAST_ONE,
    AT_LEAST_ZERO,
    BELOW_ONE,
    NUCLEUS,
    PENALTY,
    RANDOM_SEED,
    SHARE,
    between,
    setting,
)


@dataclass(kw_only=True)
class BudgetConfig:
    """What a stage may take from an endpoint, all processes and restarts together. Reserved before a request is sent."""

    usd: float | None = setting(None, AT_LEAST_ZERO, "USD")
    """Cap in US dollars; needs a known price. None = no cap."""
    tokens: int | None = setting(None, AT_LEAST_ZERO, "tokens")
    """Cap in tokens, prompts and replies together; None = no cap."""
    requests: int | None = setting(None, AT_LEAST_ZERO, "requests")
    """Cap in requests, tries again included; None = no cap."""
    usd_per_million_prompt_tokens: float | None = setting(None, AT_LEAST_ZERO, "USD")
    """Price of a million prompt tokens; None = that of conf/prices.yaml."""
    usd_per_million_completion_tokens: float | None = setting(None, AT_LEAST_ZERO, "USD")
    """Price of a million tokens of replies; None = that of conf/prices.yaml."""


@dataclass(kw_only=True)
class EndpointConfig:
    """An OpenAI-compatible server. How it is reached never enters a key; the model's name does."""

    base_url: str | None = None
    """Address of the API, for example http://localhost:8000/v1; None: OpenAI's own, or $OPENAI_BASE_URL."""
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key. The key itself never stands in a config."""
    concurrency: int = setting(16, AT_LEAST_ONE)
    """Most requests in flight at once, 1 or more; fewer while the endpoint says that it is busy."""
    timeout_seconds: float = setting(120.0, ABOVE_ZERO, "seconds")
    """Longest wait for one reply, in seconds."""
    max_retries: int = setting(6, AT_LEAST_ZERO)
    """Tries again after 429, 5xx, broken connections and empty replies, with growing pauses; Retry-After is honoured."""
    longest_wait_seconds: float = setting(600.0, AT_LEAST_ZERO, "seconds")
    """A pause that the endpoint asks for (Retry-After) is kept up to this length, in seconds; a longer one stops the run."""
    probe: bool = True
    """Whether one small request is sent before a run, within a day once: it finds a wrong key, model or path, and what the server
    refuses. false: for a run whose replies are all kept."""
    batch: bool = False
    """Whether requests go through the Batch API: half the price, replies within a day, collected also after a restart."""
    poll_seconds: float = setting(30.0, ABOVE_ZERO, "seconds")
    """How often a batch is asked whether it is done, in seconds."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)


@dataclass(kw_only=True)
class EndpointsConfig:
    """The servers that are asked: one for the generator, one for the judge."""

    generator: EndpointConfig = field(default_factory=EndpointConfig)
    """Where the data is written."""
    judge: EndpointConfig = field(default_factory=EndpointConfig)
    """Where answers are compared."""


@dataclass(kw_only=True)
class GeneratorConfig:
    """Who writes the data."""

    kind: GeneratorKind = GeneratorKind.local
    """local: on this machine; openai: any OpenAI-compatible endpoint; vllm: openai where
    endpoints.generator.base_url is set, else local with compute.engine=vllm."""
    model: str | None = None
    """Model name at the endpoint; for kind=local a folder or hub name, None = the experiment's base model."""
    temperature: float | None = setting(0.7, AT_LEAST_ZERO)
    """Sampling temperature for new instructions and instances, 0 or more; None = none is sent to the endpoint, for reasoning
    models that take no other than their own."""
    top_p: float | None = setting(0.9, NUCLEUS)
    """Nucleus sampling, above 0 and at most 1; None = none is sent to the endpoint."""
    repetition_penalty: float | None = setting(None, ABOVE_ZERO)
    """Divides the scores of tokens already written; 1.1 to 1.3 keeps small models from looping. Local models only."""
    presence_penalty: float | None = setting(None, PENALTY)
    """Lowers the score of tokens already written, -2 to 2 (Self-Instruct: 2 for instructions). Endpoints only."""
    style: Style = Style.chat
    """chat: instruct models are asked for a list of tasks; turns: for small local models that cannot follow a request for a
    list: tasks are shown as earlier turns, and the model writes the next user turn; completion: base models, which continue
    a document."""
    json_schema: bool = False
    """Whether lists are asked for as JSON by a schema; an endpoint that cannot is asked without."""
    reasoning_effort: str | None = None
    """How long a reasoning model of an endpoint thinks: low, medium, high, as it calls them; None = its own default."""
    extra_body: dict[str, Any] | None = field(default_factory=dict)
    """Further fields of each request to the endpoint, as its own documentation names them: {top_k: 20}; they enter the key."""


@dataclass(kw_only=True)
class SeedsConfig:
    """The seed tasks."""

    packaged: str | None = "minilima_175"
    """Name of a set that ships with minilima."""
    path: str | None = None
    """A JSONL file in Self-Instruct's format; wins over `packaged`."""


@dataclass(kw_only=True)
class ColumnsConfig:
    """The names that a table of the user's gives to the columns that are read; None = as here."""

    instruction: str | None = None
    """What is asked."""
    input: str | None = None
    """What the instruction is about."""
    output: str | None = None
    """The answer."""
    system: str | None = None
    """The system message."""
    history: str | None = None
    """Earlier turns, as [prompt, answer] pairs."""
    messages: str | None = None
    """A conversation, as a list of turns."""
    chosen: str | None = None
    """The better of two answers."""
    rejected: str | None = None
    """The worse one."""
    label: str | None = None
    """Whether the answer is a good one: true or false."""


@dataclass(kw_only=True)
class DataConfig:
    """How the pool of tasks is made or imported."""

    kind: DataKind = DataKind.self_instruct
    """self_instruct: four steps from the seeds; alpaca: whole examples in one call; magpie: an instruct model opens the
    conversation itself; answers: the generator answers the tasks of a file; evol: tasks are made harder, round after round;
    backtranslate: requests are written for people's texts; file: a finished data set."""
    path: str | None = None
    """The file of kind=file, of kind=backtranslate (texts), and of kind=answers or evol (tasks; None = the seed tasks)."""
    hub_file: str | None = None
    """The same on the Hugging Face hub: owner/dataset:file; `path` and `hub` win."""
    hub: str | None = None
    """A split of a data set on the Hugging Face hub: owner/dataset:split, or owner/dataset:subset:split; `path` wins."""
    revision: str = "main"
    """Of `hub` and `hub_file`: a branch, a tag or a commit. The commit is recorded, and the same command at another is another
    result."""
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    """kind=file, answers, evol and backtranslate: what the file calls its columns."""
    side: Side | None = None
    """kind=file: chosen imports the better answer of preference data; None refuses such data."""
    on_bad_row: OnBadRow = OnBadRow.stop
    """kind=file, answers, evol and backtranslate: stop names rows that cannot be used; reject lists them in rejected.jsonl,
    each with its reason."""
    classification_only: bool = False
    """Ask for classification tasks only, with classification seeds as demonstrations."""
    identify_classification: bool | None = None
    """kind=self_instruct: false writes an input and an answer to every task, for a generator that takes all tasks for
    classification ones; None = it is asked of each task, as in Self-Instruct."""
    magpie_prefix: str | None = None
    """kind=magpie at an endpoint: the text of the model's template up to where a user begins to speak."""
    instructions: int = setting(100, AT_LEAST_ONE)
    """Machine-written instructions to accept into the pool, 1 or more."""
    demonstrations: int = setting(8, AT_LEAST_ONE)
    """Tasks shown in a prompt for new instructions (Self-Instruct: 8)."""
    machine_demonstrations: int = setting(2, AT_LEAST_ZERO)
    """How many of them are machine-written once there are any (Self-Instruct: 2)."""
    instructions_per_request: int = setting(8, AT_LEAST_ONE)
    """New tasks asked for in one request."""
    requests_per_round: int = setting(8, AT_LEAST_ONE)
    """Prompts drawn from the same state of the pool; their results are accepted in order."""
    max_rounds: int = setting(50, AT_LEAST_ONE)
    """Rounds after which the generation stops even if the target was not met."""
    saturation: float = setting(0.02, SHARE)
    """Stop when fewer than this share of a round's candidates are accepted, three rounds running, 0 to 1."""
    max_minutes: float | None = setting(None, ABOVE_ZERO, "minutes")
    """Stop asking for new instructions after so many minutes; None = no limit. The result then depends on the machine."""
    instruction_tokens: int = setting(512, AT_LEAST_ONE, "tokens")
    """Longest reply with new instructions, in tokens."""
    instance_tokens: int = setting(512, AT_LEAST_ONE, "tokens")
    """Longest reply with an input and an answer, in tokens; LIMA's answers need about 1,500."""
    instance_demonstrations: int = setting(3, AT_LEAST_ZERO)
    """Seed tasks with their answers shown before an instance is asked for."""
    instance_temperature: float | None = setting(None, AT_LEAST_ZERO)
    """Sampling temperature of instances; None = the generator's. Self-Instruct: 0."""
    instances_per_task: int = setting(1, AT_LEAST_ONE)
    """Examples of each instruction; for classification tasks the labels take turns."""
    answers_per_task: int | None = setting(None, AT_LEAST_ONE)
    """Answers written to each input-first task, of which data.keep chooses one (best-of-n); None = 1. All are in
    candidates.jsonl of the pool, pairs of a better and a worse one in preferences.jsonl. Not for kind=alpaca or file."""
    min_score: float | None = setting(None, between(1, 5))
    """kind=backtranslate: pairs that the generator scores below this are rejected, 1 to 5; None = none is."""
    keep: Keep | None = None
    """With data.answers_per_task: first; longest; majority: the most frequent; reference: closest to the seed task's own answer
    (kind=answers on the seeds); judge: the generator's best rating from 1 to 10. Cut answers last. None = first."""
    answer_words: int | None = setting(None, AT_LEAST_ONE, "words")
    """Answers are asked to be about this long; None = as the task needs. LIMA's have a median of 260 words."""
    min_words: int = setting(3, AT_LEAST_ZERO, "words")
    """Instructions of fewer words than this are rejected."""
    max_words: int = setting(150, AT_LEAST_ZERO, "words")
    """Instructions of more words than this are rejected."""
    max_similarity: float = setting(0.7, SHARE)
    """An instruction whose ROUGE-L F1 with any earlier one is above this is rejected, 0 to 1."""
    tokenizer: Tokenizer = Tokenizer.auto
    """Tokens of ROUGE-L. auto: words in the script of the text, for ASCII text the same as rouge; rouge: a-z and 0-9, as in
    Self-Instruct; unicode: words of any script, CJK by character, with underscores."""
    blocked_words: list[str] = field(default_factory=list)
    """An instruction with one of these as a whole word is rejected: a text model cannot draw."""
    blocked_beginnings: list[str] = field(default_factory=list)
    """An instruction that begins with one of these is rejected (Self-Instruct: "Write a program")."""
    must_ask: bool = False
    """Reject instructions that contain neither a question nor a command, and drop an input that the instruction does not
    mention: small models often write statements and do not stop. Tasks in a language that the filter does not know are kept."""


@dataclass(kw_only=True)
class DatasetConfig:
    """Which of the pool becomes the data set, in which form."""

    size: int | None = setting(None, AT_LEAST_ONE)
    """Examples in the data set; None = all that pass. Sizes are nested: 100 lies inside 300 for the same seed."""
    select: Select = Select.random
    """Which examples come first: random; diverse: farthest first by sentence vectors; stratified: topics in turn; long: longest
    answers; quality: best ratings by the generator; tags: those that bring most new intents, named by the generator. By
    dataset.scorer: ifd: answers that the question helps least with (ratio of losses below 1, highest first); superfiltering:
    the same without a template, for small models; superfiltering_diverse: its best fifth by what it covers; perplexity; deita:
    complexity times quality, without near copies; and towards dataset.targets, rds: by hidden states; less: by gradients.
    Smaller sizes always lie inside larger ones."""
    topics: int = setting(20, AT_LEAST_ONE)
    """select=stratified: clusters of sentence vectors."""
    scorer: str | None = None
    """The model that scores, for ifd, superfiltering, perplexity, deita, rds and less: base, generator, judge, a packaged model,
    a folder or a hub name; for deita also a generator or judge at an endpoint that gives log-probabilities. None = base, and for
    deita a generator on this machine."""
    targets: str = "minilima_dev_50"
    """select=rds|less: the tasks that the model is to become good at, with answers: a packaged set or a file in an evaluation
    set's format. Refused where a task of the evaluation set is among them."""
    perplexity: Perplexity = Perplexity.middle
    """select=perplexity: which answers come first, by their perplexity after the question: low, middle or high."""
    warmup_examples: int | None = setting(None, AT_LEAST_ZERO)
    """select=ifd|less: examples of the pool that the scorer is trained on before, with adapters. None = none for ifd, and for
    less 5 % of the pool and at least 32."""
    warmup_epochs: int | None = setting(None, AT_LEAST_ONE, "passes")
    """Passes over them; None = 1 for ifd, 4 for less, which measures gradients after each."""
    warmup_learning_rate: float = setting(1e-4, ABOVE_ZERO)
    """Peak learning rate of that training, falling linearly to 0."""
    encoding: Encoding = Encoding.plain
    """plain: the input below the instruction; self_instruct: one of its 13 layouts at random, which makes models robust."""
    min_output_words: int = setting(0, AT_LEAST_ZERO, "words")
    """Examples with shorter answers are rejected."""
    max_output_words: int | None = setting(None, AT_LEAST_ZERO, "words")
    """Examples with longer answers are rejected; None = none."""
    include_seeds: bool = True
    """Whether the seed tasks themselves are examples too."""
    max_seeds: int | None = setting(None, AT_LEAST_ONE, "seed tasks")
    """include_seeds=true: most seed tasks among the examples, a random choice, so that a small data set shows what was written;
    None = all."""
    max_similarity: float | None = setting(None, SHARE)
    """Examples whose request has a ROUGE-L F1 above this with an earlier example's are rejected, 0 to 1, seeds first; None =
    only exact duplicates are. A generated pool has no near-duplicates among its instructions (data.max_similarity)."""
    decontaminate: bool = True
    """Exclude examples that resemble a prompt of the evaluation set (same limit as data.max_similarity)."""


@dataclass(kw_only=True)
class ModelConfig:
    """The base model: `path` wins over `hub`, `hub` over `packaged`."""

    packaged: str | None = None
    """A model that comes from the package index: smollm2_135m, gemma3_270m (base) or qwen2_5_coder_1_5b."""
    hub: str | None = None
    """Owner and name on the Hugging Face hub."""
    revision: str = "main"
    """Branch, tag or commit on the hub; resolved to a commit before anything runs."""
    path: str | None = None
    """A folder with safetensors, tokenizer and config."""
    thinking: Thinking | None = None
    """What becomes of reasoning, where the chat template or the data has any: off, asked for none, and left out of the data; on:
    asked for, kept in the reply cache, neither judged nor trained on; keep: judged and trained on like the rest of the answer.
    None: as off, but data that holds reasoning is refused."""


@dataclass(kw_only=True)
class SftConfig:
    """What is learned; every field enters the model's key."""

    method: Method = Method.full
    """full: all weights; lora: low-rank adapters, merged at the end."""
    epochs: int = setting(3, AT_LEAST_ONE, "passes")
    """Passes over the data, 1 or more."""
    batch_size: int = setting(32, AT_LEAST_ONE)
    """Examples in one optimizer step, whatever the hardware."""
    learning_rate: float = setting(1e-5, ABOVE_ZERO)
    """Peak learning rate."""
    final_learning_rate: float = setting(0.0, AT_LEAST_ZERO)
    """Learning rate at the last step, the floor of the schedule."""
    schedule: Schedule = Schedule.linear
    """Form of the decay from learning_rate to final_learning_rate."""
    warmup_ratio: float = setting(0.0, SHARE)
    """Share of the steps in which the rate rises from 0, 0 to 1."""
    weight_decay: float = setting(0.0, AT_LEAST_ZERO)
    """AdamW's decay; norms and biases are spared."""
    beta1: float = setting(0.9, BELOW_ONE)
    """AdamW's first moment decay."""
    beta2: float = setting(0.999, BELOW_ONE)
    """AdamW's second moment decay."""
    max_grad_norm: float = setting(1.0, AT_LEAST_ZERO)
    """Gradients are clipped to this norm; 0 = not at all."""
    max_tokens: int = setting(2048, AT_LEAST_ONE, "tokens")
    """Examples are cut to this many tokens, template included."""
    train_on_prompt: bool = False
    """Whether the loss covers the prompt too; by default only the answer and its end-of-turn token."""
    residual_dropout: float = setting(0.0, BELOW_ONE)
    """Dropout on the residual branches at the top layer, rising linearly from 0 at the bottom (LIMA, section 3)."""
    lora_rank: int = setting(16, AT_LEAST_ONE)
    """Rank of the adapters (method=lora)."""
    lora_alpha: int = setting(32, AT_LEAST_ONE)
    """Scale of the adapters: updates are multiplied by lora_alpha / lora_rank."""
    lora_dropout: float = setting(0.0, BELOW_ONE)
    """Dropout before the adapters, 0 to 1."""
    lora_dora: bool = False
    """Whether adapters learn direction and magnitude apart (DoRA, Liu et al. 2024)."""
    quantise: Quantise | None = None
    """nf4: the frozen weights under adapters in 4 bits while training (QLoRA, Dettmers et al. 2023; needs bitsandbytes);
    the adapters are merged into the weights as they were before."""
    weights: Rounding = Rounding.masters
    """masters: the optimizer keeps weights in float32; stochastic: bfloat16 alone, rounded at random so that updates too
    small for it are taken now and then (a model of 8 billion parameters on one GPU of 80 GB). Without effect on CPUs."""


@dataclass(kw_only=True)
class EpochConfig:
    """Which epoch of the training becomes the model."""

    select: Pick = Pick.last
    """Which epoch's weights become the model. last; judge: whose answers to the dev prompts the experiment's judge prefers
    (LIMA, section 3); dev_loss: the lowest loss on the dev set's answers, which LIMA found to favour epochs that are worse."""
    dev_set: str = "minilima_dev_50"
    """select=judge|dev_loss: a packaged set or a file in an evaluation set's format, never the evaluation set itself; prompts
    that resemble one of the evaluation set or of the training data are excluded."""


@dataclass(kw_only=True)
class ComputeConfig:
    """How it runs."""

    device: DeviceKind = DeviceKind.auto
    """auto: the GPU if there is one."""
    precision: Precision = Precision.auto
    """auto: models multiply in bfloat16 where the hardware does. float32: everywhere, for comparisons to many digits; a reply of
    a model on this machine then does not depend on those beside it, so that a kill changes none (not with engine=vllm)."""
    gpus: int | None = setting(None, AT_LEAST_ONE)
    """GPUs that a stage takes for itself, leased from other runs of yours on this machine; None = all that are visible,
    without asking. In a sweep with hydra/launcher=joblib each point leases one unless this says more."""
    processes: int | None = setting(None, AT_LEAST_ONE, "processes")
    """Training processes on each machine; None = one for each GPU, or one on a CPU."""
    nodes: int | None = setting(1, AT_LEAST_ONE)
    """Machines that train together; None = all of the Slurm job, or of the hostfile."""
    hostfile: str | None = None
    """A list of machines in DeepSpeed's format, `name slots=8` a line, reached by ssh without a password; this machine is the
    first. Without one, the machines are those of the Slurm job that this command runs in."""
    rendezvous: str | None = None
    """Address at which the machines meet, host:port; None = the first machine of the list, port 29500."""
    zero_stage: int | None = setting(None, between(0, 3))
    """DeepSpeed ZeRO stage 0 to 3; None = plain data parallelism without DeepSpeed."""
    offload: Offload = Offload.none
    """What DeepSpeed keeps in the machine's memory: optimizer (its states and the float32 weights; ZeRO 1 to 3), or all (the
    bfloat16 weights too; ZeRO 3). Slow, for models that do not fit otherwise."""
    activation_checkpointing: bool | None = None
    """Whether blocks are computed again in the backward pass instead of keeping what they need; None = where memory asks
    for it."""
    micro_batch_tokens: int | None = setting(None, AT_LEAST_ONE, "tokens")
    """Tokens that pass through the model at once in training, a row of packed examples; None = 512 on a CPU, what fits on a
    GPU."""
    compile: bool = False
    """Training with compiled blocks: a minute at the start, faster steps on a GPU; the compiled code is kept for later runs."""
    cuda_graphs: bool = True
    """Whether steps of a small model, for which a GPU takes longer to start the kernels than to run them, are recorded once and
    played again; with sft=full in bfloat16, neither compiled nor under DeepSpeed."""
    engine: Engine = Engine.auto
    """What writes answers and data on this machine. auto: transformers, or vllm where it is installed (the extra `vllm`), there
    is a GPU, and it ended sooner, its start included, when both were measured; at present it never did."""
    served_at: list[str] = field(default_factory=list)
    """Addresses of OpenAI-compatible servers that hold the models which are to answer, for example http://localhost:8000/v1;
    none = they answer on this machine. A model is named by its folder."""
    generation_batch: int | None = setting(None, AT_LEAST_ONE)
    """Most answers that a local model writes at once; None = 32 on a CPU, 256 on a GPU. Fewer where memory does not suffice."""
    answer_group: int = setting(64, AT_LEAST_ONE)
    """Prompts in a group, the longest first: a model on this machine ends all answers of a group before it begins the next, so
    that a kill loses no more than the unfinished ones of a group. A GPU takes at least four batches at once."""
    checkpoint_seconds: float = setting(300.0, AT_LEAST_ZERO, "seconds")
    """Training writes a checkpoint after this many seconds, so that a kill loses no more."""


@dataclass(kw_only=True)
class EvalSetConfig:
    """The prompts that both models answer: `path` wins over `hub`, `hub` over `hub_file`, `hub_file` over `packaged`."""

    packaged: str | None = None
    """Name of a set that ships with minilima."""
    hub_file: str | None = None
    """A file in a data set on the hub, written owner/name:file."""
    hub: str | None = None
    """A split of a data set on the hub, written owner/name:split or owner/name:subset:split."""
    revision: str = "main"
    """Of `hub` and `hub_file`: a branch, a tag or a commit."""
    path: str | None = None
    """A JSON or JSONL file with instruction and, for the reference judge, output."""
    size: int | None = setting(None, AT_LEAST_ONE)
    """Use only the first rows, for a quick look; None = all."""


@dataclass(kw_only=True)
class EvalConfig:
    """How answers are sampled, and what they are judged against."""

    temperature: float = setting(0.7, AT_LEAST_ZERO)
    """Sampling temperature; 0 = greedy."""
    top_p: float = setting(0.9, NUCLEUS)
    """Nucleus sampling, 0 to 1."""
    repetition_penalty: float | None = setting(None, ABOVE_ZERO)
    """Divides the scores of tokens already written (LIMA: 1.2)."""
    max_tokens: int = setting(2048, AT_LEAST_ONE, "tokens")
    """Longest answer, in tokens; cut answers are counted."""
    reference: str | None = None
    """What the tuned model is judged against. None: the base model; own: the set's own answers; else a model_outputs.json of
    AlpacaEval's form, or the folder of another run, whose tuned model it then meets. Enters keys by its content."""


@dataclass(kw_only=True)
class JudgeConfig:
    """Who compares the tuned model's answers with the reference model's."""

    kind: JudgeKind = JudgeKind.reference
    """reference: the answer closer to the reference answer wins; local, openai: a language model is asked; alpaca_eval: the
    alpaca-eval package asks."""
    annotators_config: str | None = None
    """kind=alpaca_eval: one of the package's evaluators_configs, or a configs.yaml of that form."""
    model: str | None = None
    """Model name at the endpoint; for kind=local a folder or hub name, None = the experiment's base model."""
    prompt: str = "choose"
    """Prompt file in minilima/prompts/judge. Two answers beside each other: choose (one word), explain (reasons first), weigh
    (one letter, m or M), arena_hard (five labels, the strong ones count three times), mt_bench_pair. Each answer alone:
    mt_bench and rubric (a rating from 1 to 10), yes_no (P(yes) - P(no): is it correct?)."""
    rubric: str | None = None
    """prompt=rubric: a text file that says what each rating means; None = the packaged one. Enters the key by its content."""
    max_tokens: int = setting(8, AT_LEAST_ONE, "tokens")
    """Longest reply of the judge, in tokens."""
    temperature: float | None = setting(0.0, AT_LEAST_ZERO)
    """Sampling temperature of kind=openai, 0 or more; None = none is sent; without effect where log-probabilities decide."""
    reasoning_effort: str | None = None
    """How long a reasoning model of an endpoint thinks: low, medium, high, as it calls them; None = its own default."""
    extra_body: dict[str, Any] | None = field(default_factory=dict)
    """Further fields of each request to the endpoint, as its own documentation names them: {top_k: 20}; they enter the key."""
    top_logprobs: int | None = setting(None, between(1, 20))
    """prompt=weigh and prompt=yes_no: the probabilities of m and M, or of yes and no, are read among so many likeliest first
    tokens, 1 to 20; None = what the judge writes decides."""
    orders: Orders = Orders.both
    """both: ask twice and take the mean, which removes a preference for the first answer; random: ask once, in the order that
    alpaca_eval's seeded switch gives to the instruction."""
    min_coverage: float = setting(0.9, SHARE)
    """Share of the prompts that must have a verdict that can be read, 0 to 1; below it no win rate is given."""
    embedding_weight: float = setting(0.5, SHARE)
    """kind=reference: weight of the sentence embedding beside ROUGE-L, 0 to 1."""
    tie_margin: float = setting(0.01, SHARE)
    """kind=reference: a smaller difference of closeness than this is a tie, 0 to 1."""


@dataclass(kw_only=True)
class JudgeOption:
    """One of several judges: an option of conf/judge, with its endpoint."""

    judge: JudgeConfig = field(default_factory=JudgeConfig)
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)


@dataclass(kw_only=True)
class BenchmarkConfig:
    """How the `benchmarks` are run."""

    size: int | None = setting(None, AT_LEAST_ONE)
    """Only the first rows of each, for a quick look (of the harness: of each of its tasks); None = all."""
    max_tokens: int = setting(256, AT_LEAST_ONE, "tokens")
    """Longest answer to a prompt of minilima_verifiable, in tokens; the harness's tasks have their own."""
    shots: int | None = setting(None, AT_LEAST_ZERO)
    """Worked examples shown before each row of the harness's tasks; None = as many as the task says."""
    data: str | None = None
    """A folder with copies of the harness's data sets, FOLDER/owner/name as on the hub; None = the hub, or its cache."""


@dataclass(kw_only=True)
class TrackingConfig:
    """Weights & Biases: a view of the files, never needed by a run."""

    mode: TrackingMode = TrackingMode.auto
    """auto: online where logged in, else offline; none: off."""
    project: str = "minilima"
    """Project the run appears in."""
    entity: str | None = None
    """User or team; None = the default of the login."""
    group: str | None = None
    """Holds W&B runs together; None = the experiment's name, and in a sweep that of the sweep."""
    upload_weights: bool = False
    """Whether the weights of models are sent too; by default an artifact only says where they are."""


@dataclass(kw_only=True)
class PathsConfig:
    """Where things are kept."""

    outputs: str = "auto"
    """Folder of store, reply cache, runs and W&B files; auto: $MINILIMA_OUTPUTS, else the nearest folder outputs/ with a store,
    here or above, else outputs in the current folder."""
    length_tables: str | None = None
    """Folder with AlpacaEval's tables for the length-controlled win rate; None = Hugging Face's cache."""


@dataclass(kw_only=True)
class Config:
    """One experiment."""

    name: str = "run"
    """Names the run's folder and its W&B run."""
    seed: int = setting(0, RANDOM_SEED)
    """Every random choice is drawn from this and the name of its stage."""
    until: Until = Until.report
    """Stop after this stage."""
    confirm_above_usd: float | None = setting(5.0, AT_LEAST_ZERO, "USD")
    """A run whose plan guesses more than so many US dollars asks first, and without a terminal needs --yes; None = never."""
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    seeds: SeedsConfig = field(default_factory=SeedsConfig)
    data: DataConfig = field(default_factory=DataConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    epoch: EpochConfig = field(default_factory=EpochConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    eval_set: EvalSetConfig = field(default_factory=EvalSetConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    judges: list[str] = field(default_factory=list)
    """Several judges, options of conf/judge: each gives its figure, beside their agreement and the majority. The first is
    `judge`, by which runs are compared and sweeps are searched."""
    eval_sets: list[str] = field(default_factory=list)
    """Several evaluation sets, options of conf/eval_set: each gives its figures; the training data is decontaminated against all.
    The first is `eval_set`."""
    judge_options: dict[str, JudgeOption] = field(default_factory=dict)
    """What `judges` lists, composed; filled in from it."""
    eval_set_options: dict[str, EvalSetConfig] = field(default_factory=dict)
    """What `eval_sets` lists, composed; filled in from it."""
    benchmarks: list[str] = field(default_factory=list)
    """What alignment cost or gained, without a judge, base against tuned: minilima_verifiable (packaged), and tasks of
    lm-evaluation-harness by its names (ifeval, gsm8k, mmlu, arc_challenge, hellaswag, truthfulqa_mc2; the extra `benchmarks`)."""
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)
    endpoints: EndpointsConfig = field(default_factory=EndpointsConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)


HOW = ("compute", "endpoints", "paths", "tracking", "confirm_above_usd", "judge_options", "eval_set_options")
"""Sections and settings that say how a run is made, never what comes out: they enter no key, and runs that differ in nothing
else are the same. The one list that keys, sweeps and comparisons use."""
CAPS = "endpoints.generator.budget"
"""The exception: where a cap ends the generation, the pool is another one."""


def changes_results(name: str) -> bool:
    """Whether another value of the setting `name` (dotted) can lead to other results."""
    inside = f"{name}."
    return inside.startswith(f"{CAPS}.") or not any(inside.startswith(f"{section}.") for section in HOW)

"""Methods of dataset.select beside the code that their authors published: the same examples, the same model, the same vectors.

    python benchmarks/authors.py --code FOLDER --model FOLDER --json benchmarks/results/authors.json

--code holds checkouts of github.com/tianyi-lab/Superfiltering and Cherry_LLM, hkust-nlp/deita, princeton-nlp/LESS and
hamishivi/automated-instruction-selection; of each file only the functions that compute are run. --model: a small model with a
chat template, on the CPU. Their facility location needs submodlib-py and numba. Examples are the packaged seed tasks.

What is compared: numbers by their largest relative difference, orders by the share of the same first tenth.
"""

import ast
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas
import scipy.special
import torch
from tqdm import tqdm

from benchmarks.publish import parser, publish
from minilima.config.choices import DeviceKind
from minilima.formats.files import DATA
from minilima.formats.records import Example
from minilima.formats.seeds import load_seeds
from minilima.generate.gradients import adam_step, best_group, per_passage, weighted
from minilima.generate.orders import apart_first, below_one_first, highest_first, most_covering_first, targets_in_turn
from minilima.generate.passages import passages, question
from minilima.generate.scoring import RATINGS, expected
from minilima.generate.tools import Text, mean_losses
from minilima.generate.warmup import adapter_weights, with_adapters
from minilima.models.embedder import Embedder
from minilima.models.reader import Passage, Reader
from minilima.models.template import prompt_text
from minilima.models.weights import load_model

LONGEST = 1024
EXAMPLES, MOST_WORDS = 80, 60
TARGETS = 18
SUBTASKS = 9
"""Of the task of LESS's script that has fewest."""
Names = dict[str, Any]


def theirs(file: Path, *names: str, **given: Any) -> Names:
    """Functions and classes of a published file, with what they take from its other lines in `given`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names]
    space: Names = {"torch": torch, "np": np, "tqdm": tqdm, "logger": logging.getLogger("theirs"), **given}
    exec(compile(tree, str(file), "exec"), space)
    return space


def branch(file: Path, condition: str, **given: Any) -> Names:
    """What the lines of a published script under `condition` leave behind."""
    nodes = (node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.If))
    found = next(node for node in nodes if ast.unparse(node.test) == condition)
    space: Names = {"torch": torch, "tqdm": tqdm, **given}
    exec(compile(ast.Module(found.body, []), str(file), "exec"), space)
    return space


def apart(ours: Sequence[float] | np.ndarray[Any, Any], other: Sequence[float] | np.ndarray[Any, Any]) -> float:
    """The largest relative difference."""
    one, two = np.asarray(ours, dtype=np.float64), np.asarray(other, dtype=np.float64)
    return float(np.max(np.abs(one - two) / np.maximum(np.abs(two), 1e-6)))


def shared(ours: Sequence[int], other: Sequence[int], first: int) -> float:
    """The share of the first so many that both have."""
    return len(set(ours[:first]) & set(other[:first])) / first


def superfiltering(code: Path, examples: Sequence[Example], reader: Reader, model: Any) -> Names:
    """Ratios of perplexities without a template, and their order."""
    run = theirs(
        code / "Superfiltering/code_ifd/data_analysis.py",
        "get_perplexity_and_embedding_whole_text",
        "get_perplexity_and_embedding_part_text",
        device="cpu",
    )
    ratios = []
    for example in examples:
        asked = "\n".join(part for part in (example.instruction, example.input) if part) + "\n"
        both = (reader.tokenizer, model)
        alone, _ = run["get_perplexity_and_embedding_whole_text"](*both, example.output, LONGEST)
        given, _ = run["get_perplexity_and_embedding_part_text"](*both, asked + example.output, example.output, LONGEST)
        ratios.append(given / alone)
    order = [index for index in np.argsort(ratios)[::-1].tolist() if ratios[index] < 1]  # select_data.py
    given, alone = (
        np.exp(mean_losses(reader.losses(passages(examples, text, reader.tokenizer)))) for text in (Text.plain, Text.plain_answer)
    )
    ours = below_one_first(given / alone)
    return {
        "superfiltering_ratio": (apart(given / alone, ratios), "relative difference"),
        "superfiltering_order": (shared(ours, order, len(order) // 10), "share"),
    }


def ifd(code: Path, examples: Sequence[Example], reader: Reader, model: Any) -> Names:
    """Ratios of losses, with this model's own template in place of the one that Cherry's code has."""
    run = theirs(
        code / "Cherry_LLM/cherry_seletion/data_analysis.py",
        "get_perplexity_and_embedding_part_text",
        device="cpu",
        log_softmax=torch.nn.LogSoftmax(dim=-1),
        nll_loss=torch.nn.NLLLoss(reduction="none"),
    )
    ratios = []
    for example in examples:
        turns = example.messages()
        asked = prompt_text(reader.tokenizer, turns[:-1])
        header = asked.removeprefix(prompt_text(reader.tokenizer, turns[:-1], complete=True))
        means = []
        for before in (asked, header):
            _, _, losses = run["get_perplexity_and_embedding_part_text"](
                reader.tokenizer, model, before + example.output, example.output, LONGEST
            )
            means.append(np.mean(losses[len(reader.tokenizer.encode(before)) - 1 :]))  # data_by_IFD.py
        ratios.append(means[0] / means[1])
    given, alone = (
        mean_losses(reader.losses(passages(examples, text, reader.tokenizer))) for text in (Text.conversation, Text.answer)
    )
    return {"ifd_ratio": (apart(given / alone, ratios), "relative difference")}


def deita(code: Path, examples: Sequence[Example], reader: Reader, model: Any, vectors: np.ndarray[Any, Any]) -> Names:
    """The expected rating from the model's next token, and the filter by nearness; a nearness at which it has work to do."""
    digits = [reader.tokenizer.encode(str(rating), add_special_tokens=False)[-1] for rating in RATINGS]
    asked = [question(example.instruction, reader.tokenizer, None, LONGEST) for example in examples]
    logits = reader.next_logits(asked, digits)
    ours = [expected(dict(zip(RATINGS, map(float, row), strict=True))) for row in logits]
    folder = code / "deita/src/deita/selection"
    scorer = theirs(folder / "scorer/base.py", "Scorer", softmax=scipy.special.softmax)["Scorer"]

    class Rating(scorer):  # type: ignore[misc, valid-type]
        is_vllm, tokenizer = False, reader.tokenizer
        id2score = dict(zip(digits, RATINGS, strict=True))

        def __init__(self) -> None:
            self.model = model

    ratings = [
        Rating().infer_score(reader.tokenizer.apply_chat_template(
            [{"role": "user", "content": example.instruction}], tokenize=False, add_generation_prompt=True
        ))
        for example in examples
    ]  # fmt: skip

    limit = float(np.quantile((vectors @ vectors.T)[np.triu_indices(len(vectors), 1)], 0.98))
    base = theirs(folder / "filter/base.py", "IterativeFilter")["IterativeFilter"]
    chosen = theirs(folder / "filter/combined_filter.py", "Combined_Filter", IterativeFilter=base)["Combined_Filter"](
        threshold=limit, data_size=-1, sort_key=["complexity", "quality"], chunk_size=64, device="cpu"
    )
    quality = np.random.default_rng(0).uniform(1, 6, len(examples))
    turns = {"complexity": [[each] for each in ours], "quality": [[each] for each in quality]}  # of one turn
    table = pandas.DataFrame({**turns, "embedding": vectors.tolist(), "row": range(len(examples))})
    kept, _ = apart_first(highest_first(np.array(ours) * quality), vectors, limit)
    found = chosen.filter(table)["row"].tolist()
    return {
        "deita_rating": (apart(ours, ratings), "relative difference"),
        "deita_kept": (float(len(kept)), "examples"),
        "deita_order": (float(np.mean([one == two for one, two in zip(kept, found, strict=True)])), "share"),
    }


def rds(code: Path, examples: Sequence[Example], targets: Sequence[Example], reader: Reader, model: Any) -> Names:
    """Vectors of their texts in tokens, and who is chosen in turn."""
    folder = code / "automated-instruction-selection/minimal_multitask"
    encode = theirs(folder / "utils.py", "encode_with_messages_format")["encode_with_messages_format"]
    sides, own = [], []
    for side in (examples, targets):
        rows = [encode({"messages": example.messages()}, reader.tokenizer, 2048)["input_ids"] for example in side]
        pooled = []
        for ids in rows:
            with torch.no_grad():
                outputs = model(input_ids=ids.unsqueeze(0), output_hidden_states=True)
            left = branch(
                folder / "compute_influence_cosinesim.py", "args.pooling == 'weighted_mean'", train_outputs=outputs
            )["train_embeddings"]  # fmt: skip
            pooled.append(torch.nn.functional.normalize(left[:, 0], dim=1)[0].numpy())
        sides.append(np.stack(pooled))
        own.append(reader.states([Passage(ids=ids.tolist(), start=0, end=0) for ids in rows]))
    cosines = sides[0] @ sides[1].T
    at_targets = {number: dict(enumerate(map(float, column))) for number, column in enumerate(cosines.T)}
    wanted = len(examples) // 5
    for _ in range(2):  # once more for as many as its last round had: of more, it leaves any out
        left = branch(
            folder / "get_top_influences.py", "'max' in args.selection_method", args=SimpleNamespace(output_size=wanted),
            instance_to_influences=at_targets,
        )  # fmt: skip
        wanted = left["last_size"]
    ours = targets_in_turn(own[0] @ own[1].T)
    return {
        "rds_cosine": (apart(own[0] @ own[1].T, cosines), "relative difference"),
        "rds_chosen": (shared(ours[:wanted], left["saved_instances"], wanted), "share"),
    }


def less(code: Path, examples: Sequence[Example], targets: Sequence[Example], reader: Reader, model: Any) -> Names:
    """Adam's steps of adapters, and influences out of projected gradients."""
    folder = code / "LESS/less/data_selection"
    run = theirs(folder / "collect_grad_reps.py", "obtain_gradients_with_adam")["obtain_gradients_with_adam"]
    model = with_adapters(model).eval()
    few = passages(examples[:8], Text.conversation, reader.tokenizer, with_end=True)
    generator = torch.Generator().manual_seed(0)
    weights = adapter_weights(model)
    for weight in weights:  # where one of two factors is 0, so is half of the gradient
        weight.data.normal_(0, 0.02, generator=generator)
    size = sum(weight.numel() for weight in weights)
    first = 1e-3 * torch.randn(size, generator=generator)
    second = 1e-6 * torch.rand(size, generator=generator)
    ours = adam_step(per_passage(model, few), first, second)
    steps = []
    for passage in few:
        ids = torch.tensor([list(passage.ids)])
        labels = torch.full_like(ids, -100)
        labels[0, passage.start : passage.end] = ids[0, passage.start : passage.end]
        steps.append(run(model, {"input_ids": ids, "labels": labels}, first, second).detach())
        model.zero_grad()
    cosines = torch.nn.functional.cosine_similarity(ours, torch.stack(steps))

    rates, count = (2e-5, 1e-5, 0.5e-5), len(examples)
    unit = [torch.nn.functional.normalize(torch.randn(count + TARGETS, 64, generator=generator), dim=1) for _ in rates]
    with tempfile.TemporaryDirectory() as name:
        at = Path(name)
        for epoch, rows in enumerate(unit):
            torch.save(rows[:count], at / f"pool-{epoch}.pt")
            torch.save(rows[count:], at / f"tydiqa-{epoch}.pt")
        command = [sys.executable, str(folder / "matching.py"), "--train_file_names", "pool", "--ckpts", "0", "1", "2"]
        command += ["--checkpoint_weights", *map(str, rates), "--target_task_names", "tydiqa", "--output_path", str(at)]
        command += ["--gradient_path", str(at / "{1}-{0}.pt"), "--validation_gradient_path", str(at / "{1}-{0}.pt")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        influence = torch.load(at / "tydiqa" / "pool_influence_score.pt").numpy()
    groups = [f"subtask {number // (TARGETS // SUBTASKS)}" for number in range(TARGETS)]
    mine = best_group(weighted([(rows[:count] @ rows[count:].T).numpy() for rows in unit], rates), groups)
    return {
        "less_step_cosine": (float(cosines.min()), "cosine, the lowest"),
        "less_influence": (apart(mine, influence), "relative difference"),
    }


def facility_location(code: Path, vectors: np.ndarray[Any, Any]) -> Names:
    """Who covers most; submodlib takes exp(-distance / dimensions) for nearness where we take the cosine."""
    from submodlib.functions.facilityLocation import FacilityLocationFunction

    run = theirs(
        code / "Superfiltering/code_diversity_fla/do_fla.py",
        "do_fla",
        time=SimpleNamespace(time=lambda: 0.0),
        FacilityLocationFunction=FacilityLocationFunction,
    )
    wanted = len(vectors) // 5
    found, ours = run["do_fla"](vectors, len(vectors), wanted), most_covering_first(vectors)[:wanted]

    def covered(chosen: Sequence[int]) -> float:
        return float((vectors @ vectors[list(chosen)].T).max(axis=1).mean())

    return {
        "facility_location_shared": (shared(ours, found, wanted), "share"),
        "facility_location_ours": (covered(ours), "mean cosine to the nearest chosen one"),
        "facility_location_theirs": (covered(found), "mean cosine to the nearest chosen one"),
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--code", type=Path, required=True, help="the folder of the authors' checkouts")
    options.add_argument("--model", type=Path, required=True, help="a model's folder")
    asked = options.parse_args()
    silent: Callable[[Any], None] = lambda progress: None  # noqa: E731
    seeds = [replace(task, output=task.output.strip()) for task in load_seeds(DATA / "minilima_175.jsonl")]
    examples = [
        Example(id=task.id, instruction=task.instruction, input=task.input, output=task.output, source="seed") for task in seeds
    ]
    short = [example for example in examples if 3 <= len(example.output.split()) <= MOST_WORDS]
    examples, targets = short[:EXAMPLES], short[-TARGETS:]

    def load() -> Any:
        return load_model(str(asked.model), torch.float32, torch.device("cpu")).eval()

    reader = Reader(str(asked.model), "theirs", device=DeviceKind.cpu, kept=None, on_progress=silent, load=load)
    model = load()  # the reader's passes its hidden states on, without the output layer
    vectors = Embedder()([f"{example.instruction}\n{example.output}" for example in examples])
    figures = {
        **superfiltering(asked.code, examples, reader, model),
        **ifd(asked.code, examples, reader, model),
        **deita(asked.code, examples, reader, model, vectors),
        **rds(asked.code, examples, targets, reader, model),
        **less(asked.code, examples, targets, reader, model),
        **facility_location(asked.code, vectors),
        "examples": (float(len(examples)), "examples"),
    }
    publish({name: (float(f"{value:.6g}"), unit) for name, (value, unit) in figures.items()}, asked.json)


if __name__ == "__main__":
    main()

"""How much replies of a local model depend on what is computed beside them, and what a kill changes, by data type.

    python benchmarks/neighbours.py --model outputs/store/base-… --json benchmarks/results/neighbours.json

On a GPU where there is one; the packaged model lies in the store after a quickstart.

Compares replies written alone with those of a batch, and those after a kill with those of a run without one: in the original
groups (as minilima goes on), and by themselves (as it did before).
"""

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))


from benchmarks.publish import parser, publish
from minilima.config.choices import DeviceKind
from minilima.formats.eval_sets import load_eval_set
from minilima.formats.files import DATA
from minilima.models import local
from minilima.models.chat import Reply, Request, Sampling, ask
from minilima.models.local import LocalModel


def different(one: list[Reply], two: list[Reply]) -> int:
    return sum(first.text != second.text for first, second in zip(one, two, strict=True))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--count", type=int, default=27)
    arguments.add_argument("--tokens", type=int, default=64)
    arguments.add_argument("--model", required=True, help="a model's folder")
    chosen = arguments.parse_args()
    sampling = Sampling(temperature=0.7, top_p=0.9, max_tokens=chosen.tokens, repetition_penalty=1.2)
    prompts = load_eval_set(DATA / "minilima_100.jsonl", chosen.count)
    asked = [Request(messages=ask(prompt.instruction), sampling=sampling) for prompt in prompts]
    figures: dict[str, tuple[float | None, str]] = {"replies": (len(asked), "replies")}
    device = ""
    for dtype in (torch.bfloat16, torch.float32):
        local.inference_dtype = lambda device, dtype=dtype: dtype
        model = LocalModel(chosen.model, "benchmark", device=DeviceKind.auto, batch=None)
        name = str(dtype).removeprefix("torch.")
        model.reply_many(asked[:1], lambda index, reply: None)  # whatever is set up at the first reply
        started = time.monotonic()
        whole = model.reply_many(asked, lambda index, reply: None)
        figures[f"{name}_seconds"] = (round(time.monotonic() - started, 2), "seconds")
        alone = [model.reply_many([request], lambda index, reply: None)[0] for request in asked]
        figures[f"{name}_depend_on_neighbours"] = (different(alone, whole), "replies")
        kept = {index: whole[index] for index in range(0, len(asked), 3)}
        beside = model.reply_beside(asked, kept, lambda index, reply: None)
        rest = [index for index in range(len(asked)) if index not in kept]
        apart = model.reply_many([asked[index] for index in rest], lambda index, reply: None)
        figures[f"{name}_differ_after_a_kill"] = (different(beside, whole), "replies")
        figures[f"{name}_would_differ_by_themselves"] = (different(apart, [whole[index] for index in rest]), "replies")
        device = model.arithmetic["device"]
    publish(figures, chosen.json, device=device)


if __name__ == "__main__":
    main()
